//! The whole road of an output: from being asked for, over the file, to whoever hears of it.

use std::io::{Cursor, Read};
use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::app::Surroundings;
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::config::Config;
use forge_dispatch::domain::api_key::Scope;
use forge_dispatch::domain::file::FileKey;
use forge_dispatch::domain::hex::hex;
use forge_dispatch::domain::ids::{OutputId, WorkspaceId};
use forge_dispatch::domain::key_text::KeyText;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{FileError, Files, Leasing, Store};
use http::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{approved, ask, output};
use crate::api::rig::{Answer, Key, PATIENCE, Rig};
use crate::api::told::{message, tell};
use crate::egress::Names;
use crate::egress::tls::Authority;
use crate::harness::databases::TestDatabase;
use crate::harness::program::{InProcess, settings};
use crate::harness::publisher::publish_to;
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::{eventually, queues};
use crate::outbox::rig::Core;
use crate::outputs::reading;

on_both_databases!(
    a_workbook_holds_what_the_api_shows_and_is_told_of,
    a_table_of_several_sections_is_a_zip_and_takes_the_place_of_the_one_before,
    a_job_of_a_process_that_died_is_taken_over,
    what_the_core_makes_is_asked_of_it_and_taken_once,
    what_a_sheet_cannot_hold_fails_with_the_reason,
);

const COSTS: &str = r#"{"costs":{"rows":[
    {"id":"r1","values":{"item":"Steel","amount":12.50,"count":3,"day":"2026-05-01","paid":true,"tags":["a","b"]}},
    {"id":"r2","values":{"item":"=1+1","amount":-0.1,"tags":[]}},
    {"id":"r3","values":{"item":"Überbau \"x\"","paid":false,"count":0}}]}}"#;

fn blueprint(more: &str) -> forge_dispatch::domain::snapshot::Snapshot {
    let data = format!(
        r#"{{"id":"bp_1","version":1,"project_id":"pr_1","name":"Monthly report","sections":[
            {{"name":"costs","kind":"repeating","fields":[
                {{"name":"item","type":"text"}},{{"name":"amount","type":"number"}},
                {{"name":"count","type":"integer"}},{{"name":"day","type":"date"}},
                {{"name":"paid","type":"boolean"}},
                {{"name":"tags","type":"multi_select","options":["a","b"]}}]}}{more}],
            "outputs":[]}}"#
    );
    message("default", "blueprint.snapshot", &data)
}

/// A program, and an API beside it.
struct Road {
    program: InProcess,
    rig: Rig,
    key: KeyText,
}

impl Road {
    async fn start(config: Config, surroundings: Surroundings) -> Self {
        let beside = config.clone();
        let program = InProcess::start_in(config, surroundings).await;
        let rig = Rig::beside(&program.store, &beside).await;
        let key = rig.key(Key::with(&[Scope::Admin])).await;
        Self { program, rig, key }
    }

    /// Asks for an output.
    async fn generate(&self, id: &str) {
        let path = format!("/v1/outputs/{id}/generate");
        let asked = self.rig.post(&self.key, &path, &json!({})).await;
        assert_eq!(asked.status, StatusCode::ACCEPTED, "{asked:?}");
    }

    /// Polls until the output is in this status, as clients do.
    async fn until(&self, id: &str, status: &str) -> Value {
        let path = format!("/v1/outputs/{id}");
        let what = format!("{id} is {status}");
        eventually(PATIENCE, &what, async || {
            self.rig.get(&self.key, &path).await.json()["status"] == status
        })
        .await;
        self.rig.get(&self.key, &path).await.json()
    }

    /// What an address of the API leads to.
    async fn fetch(&self, url: &Value) -> Answer {
        let path = url
            .as_str()
            .unwrap()
            .strip_prefix("https://forge.example")
            .unwrap();
        let got = self.rig.get(&self.key, path).await;
        assert_eq!(got.status, StatusCode::OK, "{got:?}");
        got
    }

    async fn stop(self) {
        self.rig.stop().await;
        self.program.stop().await.unwrap();
    }
}

fn public(db: &TestDatabase) -> Config {
    let mut config = settings(db.url());
    config.api.public_url = Some("https://forge.example".parse().unwrap());
    config
}

/// A value as a workbook shows it.
fn cell(value: &Value) -> Value {
    match value {
        Value::String(text) if text.starts_with(['=', '+', '-', '@']) => json!({"guarded": text}),
        Value::String(text) if text.starts_with("2026-") => {
            json!({"yyyy-mm-dd": format!("{text}T00:00:00")})
        }
        Value::Array(words) if words.is_empty() => Value::Null,
        Value::Array(words) => {
            let words: Vec<&str> = words.iter().map(|word| word.as_str().unwrap()).collect();
            words.join("; ").into()
        }
        other => other.clone(),
    }
}

async fn a_workbook_holds_what_the_api_shows_and_is_told_of(db: &TestDatabase) {
    let receiver = Receiver::ok();
    let road = Road::start(public(db), Surroundings::default()).await;
    let hook = json!({"url": receiver.url("/hook"), "event_types": ["output.generated"]});
    let hook = road
        .rig
        .post(&road.key, "/v1/subscriptions", &hook)
        .await
        .json();
    let told = [
        blueprint(""),
        approved("default", "pr_1", "bp_1", "ed_1", "April", COSTS),
        output("default", "pr_1", "ed_1", "out_1", "Figures", "xlsx"),
    ];
    tell(&db.store, &told).await;
    road.generate("out_1").await;
    let made = road.until("out_1", "generated").await;

    let delivered = receiver.wait_for_count(1, PATIENCE).await.unwrap();
    delivered[0]
        .verify(hook["secret"].as_str().unwrap())
        .unwrap();
    let data = &delivered[0].json()["data"];
    for member in ["download_url", "sha256", "size"] {
        assert_eq!(data[member], made[member], "{member}");
    }
    let got = road.fetch(&data["download_url"]).await;
    assert_eq!(made["sha256"], hex(&Sha256::digest(&got.body)));
    assert_eq!(made["size"], got.body.len());

    let rows = road
        .rig
        .get(&road.key, "/v1/editions/ed_1/sections/costs/rows")
        .await
        .json();
    let fields = ["item", "amount", "count", "day", "paid", "tags"];
    let rows = rows["data"].as_array().unwrap().iter();
    let rows = rows.map(|row| fields.map(|field| cell(&row["values"][field])).into());
    let header: Value = fields.map(Value::from).to_vec().into();
    let expected: Vec<Value> = std::iter::once(header).chain(rows).collect();
    assert_eq!(expected.len(), 4);
    let sheets = reading::read(&got.body);
    assert_eq!(sheets[0]["rows"], Value::from(expected));
    road.stop().await;
    assert_eq!(receiver.count(), 1);
}

async fn a_table_of_several_sections_is_a_zip_and_takes_the_place_of_the_one_before(
    db: &TestDatabase,
) {
    let road = Road::start(public(db), Surroundings::default()).await;
    let more = r#",{"name":"risks","kind":"repeating","fields":[{"name":"risk","type":"text"}]}"#;
    let told = [
        blueprint(more),
        approved("default", "pr_1", "bp_1", "ed_1", "April", COSTS),
        output("default", "pr_1", "ed_1", "out_1", "Figures", "csv"),
    ];
    tell(&db.store, &told).await;
    road.generate("out_1").await;
    let made = road.until("out_1", "generated").await;
    let got = road.fetch(&made["download_url"]).await;
    assert_eq!(got.header("content-type"), "application/zip");
    assert!(
        got.header("content-disposition")
            .contains("Figures - April.zip")
    );
    let mut zip = zip::ZipArchive::new(Cursor::new(&got.body)).unwrap();
    let names: Vec<String> = zip
        .file_names()
        .map(|name| name.unwrap().into_owned())
        .collect();
    assert_eq!(names, ["1-costs.csv", "2-risks.csv"]);
    let mut costs = String::new();
    zip.by_name("1-costs.csv")
        .unwrap()
        .read_to_string(&mut costs)
        .unwrap();
    assert!(
        costs.starts_with("item,amount,count,day,paid,tags\r\nSteel,12.5,3,"),
        "{costs}"
    );
    assert!(costs.contains("\r\n'=1+1,-0.1,"), "{costs}");

    let old = kept(&db.store, "out_1").await;
    road.generate("out_1").await;
    eventually(PATIENCE, "there is another file", async || {
        kept(&db.store, "out_1").await != old
    })
    .await;
    let new = kept(&db.store, "out_1").await;
    eventually(PATIENCE, "the old file is gone", async || {
        let gone = road.rig.files.read(&old, 0..1).await;
        matches!(gone, Err(FileError::Missing))
    })
    .await;
    assert!(road.rig.files.read(&new, 0..1).await.is_ok());
    road.stop().await;
}

async fn kept(store: &Arc<dyn Store>, id: &str) -> FileKey {
    let reach = Reach::all(&WorkspaceId::default());
    let found = store.output(&reach, &OutputId::new(id).unwrap()).await;
    found.unwrap().unwrap().kept.expect("it has a file")
}

async fn a_job_of_a_process_that_died_is_taken_over(db: &TestDatabase) {
    let told = [
        blueprint(""),
        approved("default", "pr_1", "bp_1", "ed_1", "April", COSTS),
        output("default", "pr_1", "ed_1", "out_1", "Figures", "csv"),
    ];
    tell(&db.store, &told).await;
    ask(&db.store, "default", "out_1").await;
    let died = Leasing {
        owner: Entropy::system().id(SystemClock.now()),
        lease: Duration::ZERO,
    };
    let job = db.store.take_output_jobs(died, 1).await.unwrap().remove(0);
    assert_eq!(job.tries, 1);
    let road = Road::start(public(db), Surroundings::default()).await;
    let made = road.until("out_1", "generated").await;
    let got = road.fetch(&made["download_url"]).await;
    assert!(got.body.starts_with(b"item,amount"));
    road.stop().await;
}

async fn what_a_sheet_cannot_hold_fails_with_the_reason(db: &TestDatabase) {
    let road = Road::start(public(db), Surroundings::default()).await;
    let long = json!({"costs": {"rows": [{"id": "r1", "values": {"item": "x".repeat(40_000)}}]}});
    let told = [
        blueprint(""),
        approved(
            "default",
            "pr_1",
            "bp_1",
            "ed_1",
            "April",
            &long.to_string(),
        ),
        output("default", "pr_1", "ed_1", "out_1", "Figures", "xlsx"),
    ];
    tell(&db.store, &told).await;
    road.generate("out_1").await;
    let failed = road.until("out_1", "failed").await;
    let reason = failed["failure"].as_str().unwrap();
    assert!(reason.contains("longer than 32767 characters"), "{reason}");
    assert_eq!(db.count("output_job").await, 0);
    road.stop().await;
}

async fn what_the_core_makes_is_asked_of_it_and_taken_once(db: &TestDatabase) {
    const HOST: &str = "inside.example";
    let authority = Authority::new();
    let content: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let body = content.clone();
    let tls = authority.server(HOST, &["http/1.1"]);
    let files = Receiver::start_tls(tls, move |_| Reply::status(200).body(body.clone()));
    let mut config = public(db);
    config.amqp = queues::unique().await;
    config.egress.ca_file = Some(authority.file().to_owned());
    config.outputs.core_hosts = vec![
        format!("{HOST}:{}", files.address().port())
            .parse()
            .unwrap(),
    ];
    let amqp = config.amqp.clone();
    let core = Core::all(&amqp).await;
    let names = Names::default().with(HOST, &[&["127.0.0.1"]]);
    let surroundings = Surroundings {
        lookup: Arc::new(names),
        ..Surroundings::default()
    };
    let road = Road::start(config, surroundings).await;
    queues::declared(&amqp).await;
    let told = [
        blueprint(""),
        approved("default", "pr_1", "bp_1", "ed_1", "April", COSTS),
        output("default", "pr_1", "ed_1", "out_1", "Report", "pdf"),
    ];
    tell(&db.store, &told).await;
    road.generate("out_1").await;
    let asked = core.take(1).await.remove(0);
    let asked: Value = serde_json::from_slice(&asked.data).unwrap();
    assert_eq!(asked["type"], "output.requested");
    assert_eq!(
        (&asked["data"]["output_id"], &asked["data"]["format"]),
        (&json!("out_1"), &json!("pdf"))
    );

    let url = files.url_at(HOST, "/files/1?token=s3cret");
    let answer = |id: &str| {
        json!({
            "specversion": "1.0", "id": id, "source": "/report-forge", "type": "output.generated",
            "time": SystemClock.now().to_rfc3339(), "subject": "ed_1",
            "data": {"edition_id": "ed_1", "output_id": "out_1", "format": "pdf", "download_url": url},
        })
        .to_string()
        .into_bytes()
    };
    let answers = [answer("1"), answer("1"), answer("2")];
    let messages: Vec<_> = answers
        .iter()
        .map(|body| ("output.generated", body.as_slice()))
        .collect();
    publish_to(&amqp, &amqp.events_exchange, &messages[..2]).await;
    let made = road.until("out_1", "generated").await;
    let got = road.fetch(&made["download_url"]).await;
    assert_eq!(got.header("content-type"), "application/pdf");
    assert!(got.body == content);
    // Another event that leads to the same file.
    publish_to(&amqp, &amqp.events_exchange, &messages[2..]).await;
    queues::drained(&amqp, PATIENCE).await;
    road.stop().await;
    assert_eq!(files.count(), 1, "it is taken once");
    assert_eq!(db.count("output_job").await, 0);
    queues::check_empty(&amqp).await;
}
