//! SIGKILL while a file is made: whoever asked for it gets it all the same, it is told of once, and
//! nothing half written is ever to be seen.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use forge_dispatch::clock::pause;
use forge_dispatch::domain::api_key::Scope;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::entropy::Entropy;
use http::StatusCode;
use serde_json::{Value, json};

use crate::api::outputs::{approved, output};
use crate::api::told::{message, tell};
use crate::harness::databases::TestDatabase;
use crate::harness::eventually;
use crate::harness::keys::{client, key};
use crate::harness::program::{Binary, settings};

on_both_databases!(an_output_is_made_once_wherever_the_program_is_killed,);

const PATIENCE: Duration = Duration::from_mins(1);

/// Of the moments that are drawn, behind the first one: when the job was just begun.
const SEED: u64 = 5;
const DRAWN: usize = 4;

/// About as long as a rendering takes.
const LATEST: Duration = Duration::from_millis(400);

const ROWS: usize = 8_000;

fn moments() -> Vec<Duration> {
    let entropy = Entropy::seeded(SEED);
    let drawn = std::iter::repeat_with(|| LATEST.mul_f64(entropy.unit()));
    std::iter::once(Duration::ZERO)
        .chain(drawn.take(DRAWN))
        .collect()
}

/// What every file has to hold.
fn table() -> String {
    let rows = (0..ROWS).map(|number| format!("row {number}\r\n"));
    std::iter::once("item\r\n".to_owned()).chain(rows).collect()
}

async fn told(db: &TestDatabase, outputs: usize) {
    let sections =
        r#"[{"name":"costs","kind":"repeating","fields":[{"name":"item","type":"text"}]}]"#;
    let blueprint = format!(
        r#"{{"id":"bp_1","version":1,"project_id":"pr_1","name":"Report","sections":{sections},"outputs":[]}}"#
    );
    let rows: Vec<Value> = (0..ROWS)
        .map(|number| json!({"id": format!("r{number}"), "values": {"item": format!("row {number}")}}))
        .collect();
    let content = json!({"costs": {"rows": rows}}).to_string();
    let mut told = vec![
        message("default", "blueprint.snapshot", &blueprint),
        approved("default", "pr_1", "bp_1", "ed_1", "April", &content),
    ];
    let output = |number| output("default", "pr_1", "ed_1", &id_of(number), "Figures", "csv");
    told.extend((0..outputs).map(output));
    tell(&db.store, &told).await;
}

fn id_of(number: usize) -> String {
    format!("out_{number}")
}

/// All files below that have their names: those under way have others.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if path.extension().is_some_and(|extension| extension == "csv") {
            files.push(path);
        }
    }
    files
}

/// Where the program that runs now has this.
async fn url(program: &Binary, path: &str) -> String {
    program.logged("\"ready\"").await;
    let starting = program.logged("\"starting\"").await;
    let starting: Value = serde_json::from_str(&starting).unwrap();
    format!("http://{}{path}", starting["api"].as_str().unwrap())
}

async fn an_output_is_made_once_wherever_the_program_is_killed(db: &TestDatabase) {
    let moments = moments();
    told(db, moments.len()).await;
    let scopes = [Scope::ReadOutputs, Scope::WriteOutputs];
    let http = client(&key(&*db.store, &scopes).await);
    let dir = tempfile::tempdir().unwrap();
    let directory = dir.path().join("files");
    let mut config = settings(db.url());
    config.outputs.directory = Some(directory.clone());
    let mut program = Binary::serve(&config, dir.path());
    let table = table();
    for (number, moment) in moments.iter().enumerate() {
        let path = format!("/v1/outputs/{}", id_of(number));
        let generate = url(&program, &format!("{path}/generate")).await;
        let asked = http.post(generate).send().await.unwrap();
        assert_eq!(asked.status(), StatusCode::ACCEPTED);
        let made = format!("output_file where output = '{}'", id_of(number));
        eventually(PATIENCE, "the job is begun", async || {
            db.count("output_job where owner is not null").await == 1 || db.count(&made).await == 1
        })
        .await;
        pause(*moment).await;
        program.kill();
        for path in files_below(&directory) {
            let held = fs::read_to_string(&path).unwrap();
            assert!(held == table, "{moment:?}: {} is torn", path.display());
        }
        // Its lease ends.
        db.tamper("update output_job set visible_at = (select min(last) from edition_clock)")
            .await;
        program.start_again();
        let shown = url(&program, &path).await;
        eventually(PATIENCE, "it is generated", async || {
            let shown = http.get(&shown).send().await.unwrap();
            let shown = shown.bytes().await.unwrap();
            serde_json::from_slice::<Value>(&shown).unwrap()["status"] == "generated"
        })
        .await;
        let download = http.get(format!("{shown}/download")).send().await.unwrap();
        let download = download.bytes().await.unwrap();
        assert!(download == table, "{moment:?}: another file");
    }
    program.terminate();
    assert!(program.ended().await.success());
    let of_each = moments.len();
    let told = db.feed(&WorkspaceId::default()).await;
    assert_eq!(told.len(), of_each, "each is told of once");
    assert_eq!(db.count("output_job").await, 0);
    let kept = i64::try_from(of_each).unwrap();
    assert_eq!(db.count("output_file").await, kept);
    // At most the one that a kill left between its name and the commit that refers to it, for the sweep.
    let files = files_below(&directory).len();
    assert!((of_each..=2 * of_each).contains(&files), "{files}");
}
