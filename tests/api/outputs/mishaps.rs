//! What goes wrong on our side: whoever asked is told that it is ours, and may ask again.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, Utc};
use forge_dispatch::app::Surroundings;
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::config::{Config, Outputs};
use forge_dispatch::domain::ids::{OutputId, WorkspaceId};
use forge_dispatch::domain::output::{Output, OutputStatus};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::egress::{SystemLookup, WebhookClient};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::outputs::runner::{self, Pace};
use forge_dispatch::outputs::{Fetcher, FileStore, Renderer};
use forge_dispatch::shutdown::Shutdown;
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::{CoreFiles, Leasing, Store};
use forge_dispatch::wake::Wake;

use super::road::{COSTS, Road, blueprint, public};
use super::{approved, ask, output};
use crate::api::rig::PATIENCE;
use crate::api::told::tell;
use crate::harness::databases::TestDatabase;
use crate::harness::eventually;

on_both_databases!(
    a_job_that_panics_fails_and_the_next_is_done,
    what_fails_ten_times_failed_and_can_be_asked_for_again,
);

const OURS: &str = "for a reason that is ours";

async fn told(db: &TestDatabase) {
    let told = [
        blueprint(""),
        approved("default", "pr_1", "bp_1", "ed_1", "April", COSTS),
        output("default", "pr_1", "ed_1", "out_1", "Figures", "csv"),
    ];
    tell(&db.store, &told).await;
}

/// A clock with a bug: it panics the first time that it is asked for the time.
#[derive(Debug, Default)]
struct Broken(AtomicBool);

impl Clock for Broken {
    fn now(&self) -> DateTime<Utc> {
        assert!(self.0.swap(true, Ordering::SeqCst), "a bug");
        SystemClock.now()
    }

    fn monotonic(&self) -> std::time::Duration {
        SystemClock.monotonic()
    }
}

/// A runner of jobs, on this clock.
fn runner(db: &TestDatabase, clock: Arc<dyn Clock>, directory: &std::path::Path) -> runner::Parts {
    let settings = Outputs::default();
    let ours: Arc<dyn Clock> = Arc::new(SystemClock);
    let egress = Config::default().egress;
    let client = WebhookClient::new(&egress, Arc::new(SystemLookup), Arc::clone(&ours));
    let files = FileStore::open(&settings, directory, &egress, ours);
    let files = Arc::new(files.unwrap());
    let bell = Arc::new(Wake::default());
    db.store
        .open_output_jobs(Arc::clone(&bell), CoreFiles::LeftAlone);
    let pace = Pace::default();
    runner::Parts {
        store: Arc::clone(&db.store),
        renderer: Renderer::new(&settings, directory.to_owned()),
        fetcher: Fetcher::new(&settings, Arc::new(client.unwrap()), Arc::clone(&files)),
        files,
        clock,
        entropy: Entropy::system(),
        leasing: Leasing {
            owner: Entropy::system().id(SystemClock.now()),
            lease: pace.lease,
        },
        intake: Arc::new(NoDispatch),
        settings,
        public_url: None,
        bell,
        pace,
    }
}

/// Waits until the output is in this status.
async fn until(store: &dyn Store, status: OutputStatus) -> Output {
    let (reach, id) = (
        Reach::all(&WorkspaceId::default()),
        OutputId::new("out_1").unwrap(),
    );
    let shown = async || store.output(&reach, &id).await.unwrap().unwrap().output;
    eventually(PATIENCE, status.as_str(), async || {
        shown().await.status == status
    })
    .await;
    shown().await
}

async fn a_job_that_panics_fails_and_the_next_is_done(db: &TestDatabase) {
    told(db).await;
    let directory = tempfile::tempdir().unwrap();
    let parts = runner(db, Arc::new(Broken::default()), directory.path());
    let shutdown = Shutdown::default();
    let running = tokio::spawn(runner::run(parts, shutdown.clone()));
    ask(&db.store, "default", "out_1").await;
    let failed = until(&*db.store, OutputStatus::Failed).await;
    let reason = failed.failure.unwrap();
    assert!(reason.contains(OURS), "{reason}");
    assert_eq!(db.count("output_job").await, 0);
    ask(&db.store, "default", "out_1").await;
    let made = until(&*db.store, OutputStatus::Generated).await;
    assert!(made.file.is_some());
    shutdown.begin();
    running.await.unwrap();
}

async fn what_fails_ten_times_failed_and_can_be_asked_for_again(db: &TestDatabase) {
    told(db).await;
    let place = tempfile::tempdir().unwrap();
    let (directory, away) = (place.path().join("files"), place.path().join("away"));
    let mut config = public(db);
    config.outputs.directory = Some(directory.clone());
    let road = Road::start(config, Surroundings::default()).await;
    fs::rename(&directory, &away).unwrap();
    fs::write(&directory, "no directory").unwrap();
    road.generate("out_1").await;
    eventually(PATIENCE, "it is put off", async || {
        db.count("output_job where owner is null and tries = 1")
            .await
            == 1
    })
    .await;
    // Hours pass, and eight more tries.
    db.tamper(
        "update output_job set tries = 9, visible_at = (select min(last) from edition_clock)",
    )
    .await;
    let failed = road.until("out_1", "failed").await;
    let reason = failed["failure"].as_str().unwrap();
    assert!(reason.contains(OURS), "{reason}");
    assert_eq!(db.count("output_job").await, 0);

    fs::remove_file(&directory).unwrap();
    fs::rename(&away, &directory).unwrap();
    road.generate("out_1").await;
    let made = road.until("out_1", "generated").await;
    let got = road.fetch(&made["download_url"]).await;
    assert!(got.body.starts_with(b"item,amount"), "{got:?}");
    assert!(made["failure"].is_null(), "{made}");
    road.stop().await;
}
