//! The ops port, asked over the network as a probe and a scraper would.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use forge_dispatch::clock::SystemClock;
use forge_dispatch::config::Config;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::health::{Health, Part};
use forge_dispatch::ops::{self, Ops};
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::{self, Leasing, Store};
use forge_dispatch::telemetry::Metrics;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{events, register, registration, spec};

/// A database that is away: nothing listens on port 1.
const AWAY: [&str; 2] = [
    "database.url=postgres://forge:s3cret@127.0.0.1:1/forge",
    "master_key=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
];

/// A running ops port.
struct Port {
    address: SocketAddr,
    store: Arc<dyn Store>,
    health: Arc<Health>,
    end: CancellationToken,
    served: JoinHandle<std::io::Result<()>>,
}

impl Port {
    async fn over_sqlite(dir: &Path) -> Self {
        let url = format!("database.url=sqlite://{}/forge.db", dir.display());
        let port = Self::over(&[url]).await;
        port.store.migrate().await.unwrap();
        port
    }

    async fn over_a_database_away() -> Self {
        Self::over(&AWAY.map(str::to_owned)).await
    }

    async fn over(flags: &[String]) -> Self {
        let config = Config::load(None, [], flags).unwrap();
        let clock = Arc::new(SystemClock);
        let entropy = Entropy::system();
        let store = store::open(&config, clock.clone(), &entropy).await.unwrap();
        let health = Arc::new(Health::default());
        let ops = Ops {
            store: Arc::clone(&store),
            health: Arc::clone(&health),
            metrics: Metrics::install(None).unwrap(),
            clock,
            exported_every: None,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let end = CancellationToken::new();
        let served = tokio::spawn(ops::serve(listener, ops, end.clone()));
        Self {
            address,
            store,
            health,
            end,
            served,
        }
    }

    /// The status and the body of an answer.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: ops\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        (status, body.to_owned())
    }

    async fn readyz(&self) -> (u16, Value) {
        let (status, body) = self.get("/readyz").await;
        (status, serde_json::from_str(&body).unwrap())
    }
}

#[tokio::test]
async fn a_process_whose_database_works_is_ready_also_without_its_broker() {
    let dir = tempfile::tempdir().unwrap();
    let port = Port::over_sqlite(dir.path()).await;
    let up = json!({"status": "ready", "parts": {"database": {"status": "up"}}});
    assert_eq!(port.readyz().await, (200, up));

    port.health.down(Part::Broker, "connection refused");
    let (status, report) = port.readyz().await;
    assert_eq!((status, &report["status"]), (200, &json!("degraded")));
    assert_eq!(
        report["parts"]["broker"],
        json!({"status": "down", "reason": "connection refused"})
    );

    port.health.up(Part::Broker);
    let (status, report) = port.readyz().await;
    assert_eq!((status, &report["status"]), (200, &json!("ready")));
    assert_eq!(report["parts"]["broker"], json!({"status": "up"}));
}

#[tokio::test]
async fn a_schema_that_is_not_there_unreadies() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("database.url=sqlite://{}/forge.db", dir.path().display());
    let port = Port::over(&[url]).await;
    let (status, report) = port.readyz().await;
    assert_eq!((status, &report["status"]), (503, &json!("unavailable")));
    assert_eq!(report["parts"]["database"]["status"], "down");
}

#[tokio::test]
async fn a_database_away_unreadies_but_the_process_lives_and_no_secret_is_told() {
    let port = Port::over_a_database_away().await;
    let (status, report) = port.readyz().await;
    assert_eq!((status, &report["status"]), (503, &json!("unavailable")));
    assert_eq!(report["parts"]["database"]["status"], "down");
    assert!(!report.to_string().contains("s3cret"), "{report}");
    assert_eq!(port.get("/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(port.get("/nothing").await.0, 404);
}

#[tokio::test]
async fn metrics_tell_the_queue_and_survive_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let port = Port::over_sqlite(dir.path()).await;
    leave_one_waiting(&*port.store).await;
    let (status, text) = port.get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        r#"forge_deliveries_queued{state="pending"} 1"#,
        r#"forge_deliveries_queued{state="in_flight"} 0"#,
        "forge_database_up 1",
        "# TYPE forge_oldest_due_age_seconds gauge",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }

    let away = Port::over_a_database_away().await;
    let (status, text) = away.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("forge_database_up 0"), "{text}");
}

#[tokio::test]
async fn a_queue_that_takes_too_long_to_count_is_no_database_that_is_down() {
    let db = TestDatabase::new(Kind::Postgres).await;
    let url = db.url();
    let port = Port::over(&[
        format!("database.url={}", url.expose_secret()),
        "master_key=BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=".to_owned(),
    ])
    .await;
    let mut holder = PgConnection::connect(url.expose_secret()).await.unwrap();
    let mut holding = holder.begin().await.unwrap();
    sqlx::query("lock table delivery_queue in access exclusive mode")
        .execute(&mut *holding)
        .await
        .unwrap();
    let (status, text) = port.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(text.contains("forge_database_up 1"), "{text}");
    assert!(!text.contains("forge_deliveries_queued{"), "{text}");
    holding.rollback().await.unwrap();
    port.store.close().await;
    db.remove().await;
}

#[tokio::test]
async fn a_client_that_stays_does_not_hold_up_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let port = Port::over_sqlite(dir.path()).await;
    let mut half = TcpStream::connect(port.address).await.unwrap();
    half.write_all(b"GET /healthz HTTP/1.1\r\n").await.unwrap();
    assert_eq!(port.get("/healthz").await.0, 200);
    port.end.cancel();
    let served = tokio::time::timeout(Duration::from_secs(10), port.served).await;
    served.expect("it ends").unwrap().unwrap();
}

/// One event for one subscription, and nobody to send it.
async fn leave_one_waiting(store: &dyn Store) {
    let new = registration(&WorkspaceId::default(), spec(&["*"]));
    register(store, &new).await.unwrap();
    let leasing = Leasing {
        owner: Entropy::system().id(DateTime::UNIX_EPOCH),
        lease: Duration::from_mins(1),
    };
    let accepted = store
        .accept(&events(1), leasing, &NoDispatch)
        .await
        .unwrap();
    assert_eq!(accepted.pending, 1);
}
