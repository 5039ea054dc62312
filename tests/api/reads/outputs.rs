//! Outputs, and what is shown of their files.

use serde_json::{Value, json};

use super::super::rig::Rig;
use super::{reader, tell_all};
use crate::api::outputs;
use crate::api::told::{output, tell};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    an_output_is_shown_as_far_as_it_is,
    a_file_is_read_where_clients_reach_this_deployment,
);

const SHA: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Of one with a file.
fn generated() -> String {
    format!(
        r#""status":"generated","file":{{"size":48213,"sha256":"{SHA}","generated_at":"2026-05-01T08:00:00Z"}}"#
    )
}

async fn an_output_is_shown_as_far_as_it_is(db: &TestDatabase) {
    let rig = Rig::over(&db.store).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    let queued = json!({
        "id": "out_1",
        "edition_id": "ed_1",
        "project_id": "pr_1",
        "name": "Board report",
        "format": "pdf",
        "status": "queued",
        "size": null,
        "sha256": null,
        "generated_at": null,
        "failure": null,
        "version": 2,
        "updated_at": "2026-05-01T09:00:00Z",
    });
    let shown = rig.get(&key, "/v1/outputs/out_1").await;
    assert_eq!(shown.json(), queued);
    let told = [
        output("default", "pr_1", "ed_1", "out_2", 1, &generated()),
        output(
            "default",
            "pr_1",
            "ed_1",
            "out_3",
            1,
            r#""status":"failed","failure":"too long""#,
        ),
    ];
    tell(&db.store, &told).await;
    let first = rig.get(&key, "/v1/editions/ed_1/outputs?limit=2").await;
    let mut done = queued.clone();
    for (name, value) in [
        ("id", json!("out_2")),
        ("status", json!("generated")),
        ("size", json!(48213)),
        ("sha256", json!(SHA)),
        ("generated_at", json!("2026-05-01T08:00:00Z")),
        ("version", json!(1)),
    ] {
        done[name] = value;
    }
    assert_eq!(first.json()["data"], json!([queued, done]));
    let rest = rig.get(&key, &super::next(&first).unwrap()).await.json();
    assert_eq!(rest["data"][0]["failure"], "too long");
    assert_eq!(rest["data"][0]["download_url"], Value::Null);
    assert_eq!(rest["next_cursor"], Value::Null);
    for missing in ["/v1/outputs/out_4", "/v1/editions/ed_2/outputs"] {
        assert_eq!(rig.get(&key, missing).await.problem(), "not-found");
    }
    rig.stop().await;
}

async fn a_file_is_read_where_clients_reach_this_deployment(db: &TestDatabase) {
    let public = "https://forge.example/".parse().unwrap();
    let rig = Rig::with(&db.store, |api| api.public_url = Some(public)).await;
    let key = reader(&rig).await;
    tell_all(db).await;
    let told = [
        outputs::approved("default", "pr_1", "bp_1", "ed_2", "April", "{}"),
        outputs::output("default", "pr_1", "ed_2", "out/2", "Figures", "csv"),
    ];
    tell(&db.store, &told).await;
    // What Report Forge says of a file is shown; it is kept here only once it was made here.
    let shown = rig.get(&key, "/v1/outputs/out%2F2").await.json();
    assert_eq!(shown["download_url"], Value::Null);
    outputs::make(&rig, "default", "out/2", b"content").await;
    let shown = rig.get(&key, "/report-forge/v1/outputs/out%2F2").await;
    let url = "https://forge.example/v1/outputs/out%2F2/download";
    assert_eq!(shown.json()["download_url"], url);
    rig.stop().await;
}
