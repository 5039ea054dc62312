//! The running program, held against its own document: schemathesis reads it and asks for everything
//! in it, with what the document allows and with what it does not.
//!
//! What it sends is the same each time. `SCHEMATHESIS_SEED=7 scripts/test api::contract` tries others,
//! and more; what is let pass is in `tests/contract/hooks.py`.

use std::path::{Path, PathBuf};
use std::process::Output;

use forge_dispatch::api::openapi;
use forge_dispatch::domain::key_text::KeyText;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::process::Command;

use super::outputs;
use super::rig::Rig;
use super::scene::{ROW, SECTION, Scene};
use super::told::{edition, tell};
use crate::harness::databases::TestDatabase;
use crate::harness::program::{Binary, settings};

on_both_databases!(every_answer_is_as_the_document_says);

/// What the fuzzer asks with, and what there is to ask for.
struct Seeded {
    key: KeyText,
    /// By the names under which `tests/contract/schemathesis.toml` binds them to parameters.
    ids: Vec<(&'static str, String)>,
}

async fn every_answer_is_as_the_document_says(db: &TestDatabase) {
    let seeded = seed(db).await;
    let mut config = settings(db.url());
    config.api.behind_proxy.clear();
    config.api.requests_per_minute = 10_000_000;
    config.api.requests_per_hour = 10_000_000;
    config.api.concurrent_requests = 1_000;
    config.api.failed_authentications_per_minute = 10_000_000;
    let dir = tempfile::tempdir().unwrap();
    let program = Binary::serve(&config, dir.path());
    let started: Value = serde_json::from_str(&program.logged("starting").await).unwrap();
    program.logged("ready").await;
    program.logged("output settled").await;
    // In the program's own directory, unless the database has one.
    let certificate = dir.path().join(config.data_directory());
    let output = run(
        started["api"].as_str().unwrap(),
        &certificate.join("api-cert.pem"),
        dir.path(),
        &seeded,
    )
    .await;
    let report = String::from_utf8_lossy(&output.stdout);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{report}\n{told}\nthe end of the program's log:\n{}",
        program.tail()
    );
    let all = operations();
    for line in [format!("Selected: {all}/{all}"), format!("Tested: {all}")] {
        assert!(report.contains(&line), "no `{line}`:\n{report}");
    }
    drop(program);
    // It was asked with a key that was taken to the end.
    let rig = Rig::over(&db.store).await;
    let answer = rig.get(&seeded.key, "/v1/subscriptions").await;
    assert_eq!(answer.status, StatusCode::OK);
    rig.stop().await;
}

/// Something of each kind, so that not all answers are 404.
async fn seed(db: &TestDatabase) -> Seeded {
    let rig = Rig::over(&db.store).await;
    let key = rig.admin().await;
    let scene = Scene::in_workspace(&rig, "default", "pr_1").await;
    let test = format!("/v1/subscriptions/{}/test", scene.subscription);
    let tested = rig.post(&key, &test, &json!({})).await.json();
    rig.stop().await;
    // What is submitted takes no writes any more: an edition of its own.
    let submitted = "ed_submitted";
    let held = r#"{"summary":{"values":{"rate":1}}}"#;
    let told = edition("default", "pr_1", &scene.blueprint, submitted, 1, held);
    tell(&db.store, &[told]).await;
    // What can be made, and is by the time that it is asked for.
    let (approved, generated) = ("ed_approved", "out_generated");
    let told = [
        outputs::approved("default", "pr_1", &scene.blueprint, approved, "April", held),
        outputs::output("default", "pr_1", approved, generated, "Figures", "xlsx"),
    ];
    tell(&db.store, &told).await;
    outputs::ask(&db.store, "default", generated).await;
    let ids = vec![
        ("CONTRACT_GENERATED", generated.to_owned()),
        ("CONTRACT_KEY", key.id().to_string()),
        ("CONTRACT_SUBSCRIPTION", scene.subscription),
        ("CONTRACT_EVENT", scene.event),
        ("CONTRACT_PROJECT", scene.project),
        ("CONTRACT_BLUEPRINT", scene.blueprint),
        ("CONTRACT_EDITION", scene.edition),
        ("CONTRACT_SUBMITTED", submitted.to_owned()),
        ("CONTRACT_SECTION", SECTION.to_owned()),
        ("CONTRACT_ROW", ROW.to_owned()),
        ("CONTRACT_OUTPUT", scene.output),
        ("CONTRACT_DELIVERY", scene.delivery),
        ("CONTRACT_REPLAY", scene.replay),
        (
            "CONTRACT_DELIVERY_WITH_ATTEMPT",
            tested["delivery_id"].as_str().unwrap().to_owned(),
        ),
    ];
    Seeded { key, ids }
}

async fn run(api: &str, certificate: &Path, dir: &Path, seeded: &Seeded) -> Output {
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/contract");
    let mut command = Command::new(schemathesis());
    command
        .arg("--config-file")
        .arg(files.join("schemathesis.toml"))
        .args(["run", &format!("https://{api}/openapi.json")])
        .arg("--tls-verify")
        .arg(certificate)
        .args(["--checks", "all", "--no-color"]);
    match std::env::var("SCHEMATHESIS_SEED") {
        Ok(seed) => command.args(["--seed", &seed, "--max-examples", "50"]),
        Err(_) => command.args(["--seed", "1", "--generation-deterministic"]),
    };
    command
        .env("SCHEMATHESIS_HOOKS", files.join("hooks.py"))
        .env("CONTRACT_API_KEY", seeded.key.expose())
        .envs(seeded.ids.iter().map(|(name, id)| (name, id)))
        .env("PYTHONHASHSEED", "0")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("COLUMNS", "100")
        // What it leaves behind is left there.
        .current_dir(dir)
        .kill_on_drop(true);
    command.output().await.unwrap()
}

/// The program, which `scripts/test` installs.
fn schemathesis() -> PathBuf {
    let named = std::env::var_os("SCHEMATHESIS").map(PathBuf::from);
    let installed =
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/schemathesis/bin/schemathesis");
    let program = named.unwrap_or_else(installed);
    assert!(
        program.exists(),
        "{} is missing: run the tests by `scripts/test`, which installs schemathesis, or name it in \
         SCHEMATHESIS",
        program.display()
    );
    program
}

/// How many operations the document has.
fn operations() -> usize {
    let document: Value = serde_json::from_str(&openapi::write(&openapi::document())).unwrap();
    let paths = document["paths"].as_object().unwrap();
    paths
        .values()
        .map(|item| item.as_object().unwrap().len())
        .sum()
}
