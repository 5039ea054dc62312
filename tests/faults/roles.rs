//! Each role a process of its own, on one Postgres and one RabbitMQ.

use std::time::Duration;

use forge_dispatch::config::{Config, Role};
use forge_dispatch::domain::api_key::Scope;
use http::StatusCode;
use lapin::types::FieldTable;
use serde_json::Value;

use crate::api::told::{blueprint, edition, tell};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::flow::Flow;
use crate::harness::keys::{client, key};
use crate::harness::program::{Binary, settings};
use crate::harness::publisher::publish;
use crate::harness::receiver::Receiver;
use crate::harness::{queues, simple};
use crate::outbox::rig::Core;

const PATIENCE: Duration = Duration::from_mins(2);

/// A process of one role.
struct Process {
    program: Binary,
    _dir: tempfile::TempDir,
}

impl Process {
    async fn start(config: &Config, role: Role) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            role,
            ..config.clone()
        };
        let program = Binary::serve(&config, dir.path());
        program.logged("\"ready\"").await;
        Self { program, _dir: dir }
    }

    /// What its first line says of this.
    async fn said(&self, what: &str) -> Option<String> {
        let line = self.program.logged("\"starting\"").await;
        let line: Value = serde_json::from_str(&line).unwrap();
        line[what].as_str().map(str::to_owned)
    }

    async fn dies_and_returns(&mut self) {
        self.program.kill();
        self.program.start_again();
        self.program.logged("\"ready\"").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_apart_do_the_whole_work_whichever_of_them_dies() {
    let db = TestDatabase::new(Kind::Postgres).await;
    let mut config = settings(db.url());
    config.amqp = queues::unique().await;
    config.dispatch.concurrency = 32;
    config.dispatch.subscription_concurrency = 16;
    config.dispatch.settle_batch = 25;
    let flow = Flow::new(2_000);
    let mut ingest = Process::start(&config, Role::Ingest).await;
    let mut dispatch = Process::start(&config, Role::Dispatch).await;
    let mut api = Process::start(&config, Role::Api).await;
    assert_eq!(ingest.said("api").await, None, "it serves no API");
    assert_eq!(dispatch.said("api").await, None, "it serves no API");
    flow.subscribe(&*db.store).await;
    queues::declared(&config.amqp).await;
    let (amqp, events) = (config.amqp.clone(), flow.events.clone());
    let publishing = tokio::spawn(async move { publish(&amqp, &events).await });
    for (share, process) in [(4, &mut ingest), (2, &mut dispatch)] {
        let count = flow.deliveries() / share;
        flow.wait_until_taken(count, PATIENCE).await;
        process.dies_and_returns().await;
    }
    publishing.await.unwrap();
    flow.wait_for_all(PATIENCE).await;
    queues::drained(&config.amqp, PATIENCE).await;
    let unwritten = config.dispatch.concurrency + 5 * config.dispatch.settle_batch;
    flow.check(unwritten);
    flow.check_store(&*db.store, PATIENCE).await;

    api.dies_and_returns().await;
    submitted_here_is_told_by_the_others(&db, &config, &api).await;
    for process in [&mut api, &mut ingest, &mut dispatch] {
        process.program.terminate();
        assert!(process.program.ended().await.success());
    }
    queues::check_empty(&config.amqp).await;
}

/// What the API's process takes in, another sends to subscribers and to the broker.
async fn submitted_here_is_told_by_the_others(db: &TestDatabase, config: &Config, api: &Process) {
    let core = Core::bound(&config.amqp, "edition.submitted", FieldTable::default()).await;
    let receiver = Receiver::ok();
    simple::subscribe(&*db.store, &receiver.url("/hook")).await;
    tell(&db.store, &[blueprint("default", "pr_1", "bp_1")]).await;
    let filled = r#"{"summary":{"values":{"rate":1.50}}}"#;
    let told = edition("default", "pr_1", "bp_1", "ed_1", 1, filled);
    tell(&db.store, &[told]).await;
    let http = client(&key(&*db.store, &[Scope::ReadEditions, Scope::WriteEditions]).await);
    let address = api.said("api").await.expect("it serves the API");
    let submit = http.post(format!("http://{address}/v1/editions/ed_1/submit"));
    let answer = submit.send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let arrived = receiver.wait_for(|requests| !requests.is_empty(), PATIENCE);
    arrived.await.expect("the subscriber is told");
    let mut messages = Vec::new();
    core.take_until("the broker is told", &mut messages, |told| !told.is_empty())
        .await;
    let envelope: Value = serde_json::from_slice(&messages[0].data).unwrap();
    assert_eq!(envelope["data"]["edition_id"], "ed_1");
}
