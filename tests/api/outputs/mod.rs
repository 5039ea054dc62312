//! Outputs that clients ask for, and the files that they download.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::api_key::Scope;
use forge_dispatch::domain::file::{FileKey, KeptFile};
use forge_dispatch::domain::ids::{OutputId, WorkspaceId};
use forge_dispatch::domain::key_text::KeyText;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::snapshot::Snapshot;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::{
    FileError, JobOutcome, JobSettled, Leasing, OutputAsk, OutputAsked, Store, Telling,
};
use futures::stream;
use serde_json::{Value, json};

use super::rig::{Key, Rig};
use super::told::message;

mod download;
mod generate;
mod road;

/// An edition that is approved, of this name.
pub(crate) fn approved(
    workspace: &str,
    project: &str,
    blueprint: &str,
    id: &str,
    name: &str,
    sections: &str,
) -> Snapshot {
    let sections: Value = serde_json::from_str(sections).unwrap();
    let data = json!({
        "id": id, "version": 1, "project_id": project, "blueprint_id": blueprint, "name": name,
        "status": "approved", "status_changed_at": "2026-04-01T00:00:00Z",
        "created_at": "2026-04-01T00:00:00Z", "sections": sections,
    });
    message(workspace, "edition.snapshot", &data.to_string())
}

/// An output that nobody asked for yet, of this name and format.
pub(crate) fn output(
    workspace: &str,
    project: &str,
    edition: &str,
    id: &str,
    name: &str,
    format: &str,
) -> Snapshot {
    let data = json!({
        "id": id, "version": 1, "project_id": project, "edition_id": edition, "name": name,
        "format": format, "status": "not_generated", "updated_at": "2026-05-01T09:00:00Z",
    });
    message(workspace, "output.snapshot", &data.to_string())
}

/// Asks for an output, as its client does.
pub(crate) async fn ask(store: &Arc<dyn Store>, workspace: &str, output: &str) {
    let ask = OutputAsk {
        reach: &Reach::all(&WorkspaceId::new(workspace).unwrap()),
        once: None,
        core_timeout: None,
        answer: &|_| String::new(),
        event: Entropy::system().id(SystemClock.now()),
    };
    let id = OutputId::new(output).unwrap();
    let asked = store.ask_output(&id, &ask).await.unwrap();
    assert_eq!(asked, OutputAsked::Done(String::new()), "{output}");
}

/// Has an output made, with this content, as a runner does.
pub(crate) async fn make(
    rig: &Rig,
    workspace: &str,
    output: &str,
    content: &[u8],
) -> (KeptFile, JobSettled) {
    ask(&rig.store, workspace, output).await;
    let (entropy, now) = (Entropy::system(), SystemClock.now());
    let leasing = Leasing {
        owner: entropy.id(now),
        lease: Duration::from_hours(1),
    };
    let jobs = rig.store.take_output_jobs(leasing, 10).await.unwrap();
    let [job] = &jobs[..] else { panic!("{jobs:?}") };
    let id = entropy.id(now);
    let key = FileKey::new(&job.workspace, &job.output.id, id, &job.output.format);
    let pieces: Vec<Result<Bytes, FileError>> = content
        .chunks(1_000_000)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    let file = rig.files.keep(&key, stream::iter(pieces)).await.unwrap();
    let outcome = JobOutcome::Rendered {
        file: &file,
        version: 1,
        telling: Telling {
            event: entropy.id(now),
            download_url: "/v1/outputs/x/download",
            leasing,
            intake: &NoDispatch,
        },
    };
    let settled = rig.store.settle_output_job(job, outcome).await.unwrap();
    (file, settled)
}

/// A key that reads outputs and asks for them.
async fn maker(rig: &Rig) -> KeyText {
    rig.key(Key::with(&[Scope::ReadOutputs, Scope::WriteOutputs]))
        .await
}
