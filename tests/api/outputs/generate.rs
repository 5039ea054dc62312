//! Asking for an output.

use forge_dispatch::domain::api_key::Scope;
use http::{Method, StatusCode};
use serde_json::json;

use super::{approved, make, maker, output};
use crate::api::rig::{Key, Rig};
use crate::api::told::{blueprint, edition, tell};
use crate::harness::databases::TestDatabase;

on_both_databases!(
    what_is_asked_for_is_queued_and_answered_the_same_until_it_is_done,
    a_repeat_is_given_the_first_answer,
    where_it_cannot_be_made_the_reason_is_told,
    who_may_not_see_or_write_it_does_not_ask_for_it,
);

const GENERATE: &str = "/v1/outputs/out_csv/generate";

/// An API that knows `ed_1`, approved, with `out_csv` and `out_pdf`, and a draft `ed_2` with `out_2`.
async fn begin(db: &TestDatabase) -> Rig {
    let public = "https://forge.example/".parse().unwrap();
    let rig = Rig::with(&db.store, |api| api.public_url = Some(public)).await;
    let told = [
        blueprint("default", "pr_1", "bp_1"),
        approved("default", "pr_1", "bp_1", "ed_1", "April", "{}"),
        edition("default", "pr_1", "bp_1", "ed_2", 1, "{}"),
        output("default", "pr_1", "ed_1", "out_csv", "Figures", "csv"),
        output("default", "pr_1", "ed_1", "out_pdf", "Report", "pdf"),
        output("default", "pr_1", "ed_2", "out_2", "Figures", "csv"),
    ];
    tell(&db.store, &told).await;
    rig
}

async fn what_is_asked_for_is_queued_and_answered_the_same_until_it_is_done(db: &TestDatabase) {
    let rig = begin(db).await;
    let key = maker(&rig).await;
    let asked = rig.post(&key, GENERATE, &json!({})).await;
    assert_eq!(asked.status, StatusCode::ACCEPTED, "{asked:?}");
    assert_eq!(
        asked.header("location"),
        "https://forge.example/v1/outputs/out_csv"
    );
    assert_eq!(asked.header("content-type"), "application/json");
    assert_eq!(asked.json()["status"], "queued");
    let shown = rig.get(&key, "/v1/outputs/out_csv").await;
    assert_eq!(shown.body, asked.body);
    // No body is as good as an empty one, and the other name leads to the same.
    let again = format!("/report-forge{GENERATE}");
    let again = rig.ask(Method::POST, &again).key(&key).send().await;
    assert_eq!((again.status, &again.body), (asked.status, &asked.body));
    assert_eq!(db.count("output_job").await, 1);

    db.tamper("delete from output_job").await;
    let (file, _) = make(&rig, "default", "out_csv", b"a,b\r\n").await;
    let made = rig.get(&key, "/v1/outputs/out_csv").await.json();
    assert_eq!(made["status"], "generated");
    assert_eq!(
        (&made["size"], &made["sha256"]),
        (&json!(5), &json!(file.sha256))
    );
    let url = "https://forge.example/v1/outputs/out_csv/download";
    assert_eq!(made["download_url"], url);
    let next = rig.post(&key, GENERATE, &json!({})).await.json();
    assert_eq!(
        (&next["status"], &next["download_url"]),
        (&json!("queued"), &json!(url))
    );
    rig.stop().await;
}

async fn a_repeat_is_given_the_first_answer(db: &TestDatabase) {
    let rig = begin(db).await;
    let key = maker(&rig).await;
    let ask = async |path: &str| {
        let ask = rig.ask(Method::POST, path).key(&key);
        ask.header("idempotency-key", "once").send().await
    };
    let first = ask(GENERATE).await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    db.tamper("delete from output_job").await;
    make(&rig, "default", "out_csv", b"x").await;
    let again = ask(GENERATE).await;
    assert_eq!((again.status, again.body), (first.status, first.body));
    assert_eq!(db.count("output_job").await, 0, "nothing was done");
    let other = ask("/v1/outputs/out_pdf/generate").await;
    assert_eq!(other.problem(), "idempotency-key-reused");
    rig.stop().await;
}

async fn where_it_cannot_be_made_the_reason_is_told(db: &TestDatabase) {
    let rig = begin(db).await;
    let key = maker(&rig).await;
    let draft = rig
        .post(&key, "/v1/outputs/out_2/generate", &json!({}))
        .await;
    assert_eq!(draft.problem(), "edition-not-approved");
    let detail = draft.json()["detail"].to_string();
    assert!(detail.contains("`draft`"), "{detail}");
    let of_core = rig
        .post(&key, "/v1/outputs/out_pdf/generate", &json!({}))
        .await;
    assert_eq!(of_core.problem(), "output-not-made-here");
    assert_eq!(of_core.status, StatusCode::CONFLICT);
    let more = rig.post(&key, GENERATE, &json!({"format": "pdf"})).await;
    assert_eq!(more.problem(), "invalid-values");
    assert_eq!(db.count("output_job").await, 0);
    rig.stop().await;
}

async fn who_may_not_see_or_write_it_does_not_ask_for_it(db: &TestDatabase) {
    let rig = begin(db).await;
    let reader = rig.key(Key::with(&[Scope::ReadOutputs])).await;
    let refused = rig.post(&reader, GENERATE, &json!({})).await;
    assert_eq!(refused.problem(), "insufficient-scope");
    for projects in [["pr_2"], ["pr_1"]] {
        let key = Key {
            projects: Some(&projects),
            ..Key::with(&[Scope::WriteOutputs])
        };
        let key = rig.key(key).await;
        let asked = rig.post(&key, GENERATE, &json!({})).await;
        let expected = if projects == ["pr_1"] {
            StatusCode::ACCEPTED
        } else {
            StatusCode::NOT_FOUND
        };
        assert_eq!(asked.status, expected);
    }
    rig.stop().await;
}
