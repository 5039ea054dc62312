//! What Report Forge tells, for tests: snapshots, as it publishes them.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use forge_dispatch::domain::snapshot::Snapshot;
use forge_dispatch::store::{Applied, Store};

/// When all of it was so.
fn at() -> DateTime<Utc> {
    DateTime::from_timestamp(1_777_626_000, 0).unwrap()
}

/// One message: of this type, in this workspace, with this data.
pub(crate) fn message(workspace: &str, kind: &str, data: &str) -> Snapshot {
    let text = format!(
        r#"{{"specversion":"1.0","id":"1","source":"/report-forge","type":"{kind}",
            "time":"2026-05-01T09:00:00Z","workspaceid":"{workspace}","data":{data}}}"#
    );
    Snapshot::decode(text.as_bytes(), at()).unwrap()
}

/// Takes them in, and each must be news.
pub(crate) async fn tell(store: &Arc<dyn Store>, snapshots: &[Snapshot]) {
    let applied = store.apply(snapshots).await.unwrap();
    assert!(
        applied.iter().all(|one| *one == Applied::Changed),
        "{applied:?}"
    );
}

/// Version 3 of a blueprint with a section of each kind.
pub(crate) fn blueprint(workspace: &str, project: &str, id: &str) -> Snapshot {
    let data = format!(
        r#"{{"id":"{id}","version":3,"project_id":"{project}","name":"Monthly report",
            "sections":[
                {{"name":"summary","label":"Summary","kind":"single","fields":[
                    {{"name":"note","type":"long_text"}},
                    {{"name":"rate","type":"number","required":true,"min":0.5,"max":100}}]}},
                {{"name":"costs","kind":"repeating","fields":[
                    {{"name":"item","label":"Item","type":"text","pattern":"[A-Z].*"}},
                    {{"name":"amount","type":"number"}},
                    {{"name":"tags","type":"multi_select","options":["a","b"]}},
                    {{"name":"total","type":"calculated"}}]}},
                {{"name":"risks","kind":"repeating","fields":[{{"name":"risk","type":"text"}}]}}],
            "outputs":[{{"name":"Board report","format":"pdf"}}]}}"#
    );
    message(workspace, "blueprint.snapshot", &data)
}

/// An edition at a version, with these sections (JSON).
pub(crate) fn edition(
    workspace: &str,
    project: &str,
    blueprint: &str,
    id: &str,
    version: i64,
    sections: &str,
) -> Snapshot {
    let data = format!(
        r#"{{"id":"{id}","version":{version},"project_id":"{project}","blueprint_id":"{blueprint}",
            "name":"April","status":"draft","status_changed_at":"2026-04-01T00:00:00Z",
            "period":"2026-04","assignee":{{"id":"u_1","name":"Ada"}},
            "created_at":"2026-04-01T00:00:00Z","sections":{sections}}}"#
    );
    message(workspace, "edition.snapshot", &data)
}

/// An output at a version, with more members of its data.
pub(crate) fn output(
    workspace: &str,
    project: &str,
    edition: &str,
    id: &str,
    version: i64,
    more: &str,
) -> Snapshot {
    let data = format!(
        r#"{{"id":"{id}","version":{version},"project_id":"{project}","edition_id":"{edition}",
            "name":"Board report","format":"pdf","updated_at":"2026-05-01T09:00:00Z",{more}}}"#
    );
    message(workspace, "output.snapshot", &data)
}
