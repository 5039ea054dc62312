//! Uses of keys that do not end as they should: what the client gets, and what the audit log says.

use std::net::SocketAddr;
use std::time::Duration;

use forge_dispatch::app::{App, AppError, Surroundings};
use forge_dispatch::config::Config;
use forge_dispatch::domain::audit::Action;
use forge_dispatch::domain::delivery::DeliveryState;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::key_text::KeyText;
use forge_dispatch::shutdown::Shutdown;
use forge_dispatch::store::{AuditFilter, PageRequest, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::rig::{PATIENCE, Rig};
use crate::harness::databases::TestDatabase;
use crate::harness::eventually;
use crate::harness::program::settings;
use crate::harness::receiver::{Receiver, Reply};
use crate::harness::simple::{all_become, subscribe};

on_both_databases!(
    a_client_that_does_not_wait_is_in_the_audit_log_without_a_status,
    a_body_that_comes_too_slowly_is_a_408_in_the_audit_log_too,
);

/// The whole program, behind a proxy that the test is.
struct Program {
    address: SocketAddr,
    shutdown: Shutdown,
    running: JoinHandle<Result<(), AppError>>,
}

impl Program {
    async fn start(database: &TestDatabase, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = settings(database.url());
        change(&mut config);
        let shutdown = Shutdown::default();
        let app = App::build(config, Surroundings::default(), shutdown.clone())
            .await
            .unwrap();
        let address = app.api_address().unwrap().unwrap();
        let running = tokio::spawn(app.run());
        Self {
            address,
            shutdown,
            running,
        }
    }

    /// Sends the head of a call with a body of so many bytes.
    async fn begin(&self, key: &KeyText, path: &str, length: usize) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nx-forwarded-proto: https\r\n\
             authorization: Bearer {}\r\ncontent-type: application/json\r\n\
             content-length: {length}\r\n\r\n",
            key.expose()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    /// Stops it: what waits for the audit log is written.
    async fn stop(self) {
        self.shutdown.begin();
        self.running.await.unwrap().unwrap();
    }
}

async fn a_key(database: &TestDatabase) -> KeyText {
    let rig = Rig::over(&database.store).await;
    let key = rig.admin().await;
    rig.stop().await;
    key
}

/// The uses of keys: method, route and status.
async fn uses(store: &dyn Store) -> Vec<(String, String, Option<u16>)> {
    let filter = AuditFilter {
        action: Some(Action::Request),
        ..AuditFilter::default()
    };
    let page = PageRequest {
        limit: 10,
        after: None,
    };
    let workspace = WorkspaceId::default();
    let log = store.audit_log(&workspace, &filter, page).await.unwrap();
    log.items
        .into_iter()
        .map(|entry| entry.request.unwrap())
        .map(|request| (request.method, request.route, request.status))
        .collect()
}

fn posted(route: &str, status: Option<u16>) -> (String, String, Option<u16>) {
    ("POST".to_owned(), route.to_owned(), status)
}

async fn a_client_that_does_not_wait_is_in_the_audit_log_without_a_status(db: &TestDatabase) {
    let key = a_key(db).await;
    let gate = CancellationToken::new();
    let held = gate.clone();
    let receiver = Receiver::start(move |_| Reply::status(200).held_until(&held));
    let subscription = subscribe(&*db.store, &receiver.url("/hook")).await;
    let program =
        Program::start(db, |config| config.egress.timeout = Duration::from_secs(40)).await;
    let path = format!("/v1/subscriptions/{subscription}/test");
    let waiting = program.begin(&key, &path, 0).await;
    receiver.wait_for_count(1, PATIENCE).await.unwrap();
    drop(waiting);
    let route = "/v1/subscriptions/{id}/test";
    eventually(PATIENCE, "the use is in the log", async || {
        uses(&*db.store).await == [posted(route, None)]
    })
    .await;
    // What it had begun goes on, and is kept.
    gate.cancel();
    let state = DeliveryState::Succeeded;
    all_become(&*db.store, subscription, 1, state).await;
    program.stop().await;

    let rig = Rig::over(&db.store).await;
    let shown = rig.get(&key, "/v1/audit-log?action=request").await.json();
    assert_eq!(shown["data"][0]["route"], route);
    assert!(shown["data"][0]["status"].is_null(), "{shown}");
    rig.stop().await;
}

async fn a_body_that_comes_too_slowly_is_a_408_in_the_audit_log_too(db: &TestDatabase) {
    let key = a_key(db).await;
    let patience = Duration::from_millis(200);
    let program = Program::start(db, |config| config.api.request_timeout = patience).await;
    let mut stream = program.begin(&key, "/v1/api-keys", 100).await;
    stream.write_all(b"{\"name\":").await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("/problems/request-timeout"), "{answer}");
    for header in ["x-request-id: req_", "x-ratelimit-remaining: "] {
        assert!(answer.contains(header), "{answer}");
    }
    program.stop().await;
    assert_eq!(uses(&*db.store).await, [posted("/v1/api-keys", Some(408))]);
}
