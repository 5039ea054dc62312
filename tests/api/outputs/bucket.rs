//! The same road with an S3-compatible store at its end.

use std::path::Path;

use forge_dispatch::app::Surroundings;
use forge_dispatch::config::Config;
use http::{Method, StatusCode};
use secrecy::SecretString;

use super::road::{COSTS, Road, blueprint, public};
use super::{approved, output};
use crate::api::rig::{PATIENCE, Rig};
use crate::api::told::tell;
use crate::harness::databases::TestDatabase;
use crate::harness::eventually;
use crate::outputs::bucket::Server;

on_both_databases!(
    a_file_in_a_bucket_is_made_and_read_in_parts,
    a_wrong_secret_postpones_and_is_not_told,
);

/// A program that keeps its files there.
fn keeping(db: &TestDatabase, server: &Server, scratch: &Path) -> Config {
    let mut config = public(db);
    config.outputs = server.settings();
    config.outputs.directory = Some(scratch.to_owned());
    config
}

async fn begin(db: &TestDatabase, config: Config) -> Road {
    let road = Road::start(config, Surroundings::default()).await;
    let told = [
        blueprint(""),
        approved("default", "pr_1", "bp_1", "ed_1", "April", COSTS),
        output("default", "pr_1", "ed_1", "out_1", "Figures", "csv"),
    ];
    tell(&db.store, &told).await;
    road
}

async fn a_file_in_a_bucket_is_made_and_read_in_parts(db: &TestDatabase) {
    let (server, scratch) = (Server::start().await, tempfile::tempdir().unwrap());
    let road = begin(db, keeping(db, &server, scratch.path())).await;
    road.generate("out_1").await;
    let made = road.until("out_1", "generated").await;
    let whole = road.fetch(&made["download_url"]).await;
    assert!(whole.body.starts_with(b"item,amount"), "{whole:?}");
    let path = "/v1/outputs/out_1/download";
    let ask = road.rig.ask(Method::GET, path).key(&road.key);
    let part = ask.header("range", "bytes=5-10").send().await;
    assert_eq!(part.status, StatusCode::PARTIAL_CONTENT);
    assert_eq!(part.body, whole.body.slice(5..11));
    let left = scratch.path().read_dir().unwrap().count();
    assert_eq!(left, 0, "nothing is kept beside the bucket");
    road.stop().await;
}

async fn a_wrong_secret_postpones_and_is_not_told(db: &TestDatabase) {
    let (server, scratch) = (Server::start().await, tempfile::tempdir().unwrap());
    let right = keeping(db, &server, scratch.path());
    let mut wrong = right.clone();
    wrong.outputs.s3.secret_access_key = Some(SecretString::from("s3cret"));
    let road = begin(db, wrong.clone()).await;
    road.generate("out_1").await;
    eventually(PATIENCE, "it is put off", async || {
        db.count("output_job where owner is null and tries = 1")
            .await
            == 1
    })
    .await;
    let shown = road.rig.get(&road.key, "/v1/outputs/out_1").await;
    assert_eq!(shown.json()["status"], "generating");
    road.stop().await;

    let long_ago = "update output_job set visible_at = (select min(last) from edition_clock)";
    db.tamper(long_ago).await;
    let road = Road::start(right, Surroundings::default()).await;
    road.until("out_1", "generated").await;
    let rig = Rig::beside(&db.store, &wrong).await;
    let refused = rig.get(&road.key, "/v1/outputs/out_1/download").await;
    assert_eq!(refused.problem(), "unavailable");
    let text = format!("{refused:?}");
    assert!(
        !text.contains("s3cret") && !text.contains("Signature"),
        "{text}"
    );
    rig.stop().await;
    road.stop().await;
}
