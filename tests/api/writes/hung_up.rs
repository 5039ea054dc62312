//! A write whose client does not wait for it goes on, and counts for as long as it does.

use std::num::NonZeroU32;

use forge_dispatch::domain::api_key::{KeyLimits, Scope};
use forge_dispatch::domain::audit::Action;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::store::{AuditFilter, PageRequest, Store};
use http::{Method, StatusCode};
use tokio::net::TcpStream;

use super::{HELD, SUBMIT, begin};
use crate::api::rig::{Key, PATIENCE};
use crate::api::told::{blueprint, edition, tell};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::eventually;
use crate::harness::gate::Gate;
use crate::harness::keys::{client, key};
use crate::harness::program::{InProcess, settings};
use crate::harness::receiver::Receiver;
use crate::harness::simple::subscribe;

/// A submit stops in the middle of its transaction.
async fn submits_shut(db: &TestDatabase) -> Gate {
    Gate::before(db, "insert on event", "0").await
}

/// Waits until the handler of a request is gone that had no answer: its use is written down then.
async fn hung_up(store: &dyn Store) {
    let filter = AuditFilter {
        action: Some(Action::Request),
        ..AuditFilter::default()
    };
    eventually(PATIENCE, "the client is known to be gone", async || {
        let page = PageRequest {
            limit: 100,
            after: None,
        };
        let log = store
            .audit_log(&WorkspaceId::default(), &filter, page)
            .await;
        let mut requests = log.unwrap().items.into_iter().map(|entry| entry.request);
        requests.any(|request| request.unwrap().status.is_none())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_its_place_until_it_has_ended() {
    let db = TestDatabase::new(Kind::Postgres).await;
    let (rig, _) = begin(&db).await;
    let limits = KeyLimits {
        concurrent: NonZeroU32::new(1),
        ..KeyLimits::default()
    };
    let scopes = [Scope::ReadEditions, Scope::WriteEditions];
    let key = Key {
        limits,
        ..Key::with(&scopes)
    };
    let key = rig.key(key).await;
    let mut gate = submits_shut(&db).await;
    let waiting = tokio::spawn(rig.ask(Method::POST, SUBMIT).key(&key).begin());
    gate.until_waiting(1).await;
    waiting.abort();
    hung_up(&*db.store).await;
    let second = rig.get(&key, "/v1/editions/ed_1").await;
    assert_eq!(second.problem(), "too-many-concurrent-requests");
    gate.open().await;
    eventually(PATIENCE, "its place is free", async || {
        rig.get(&key, "/v1/editions/ed_1").await.status == StatusCode::OK
    })
    .await;
    let shown = rig.get(&key, "/v1/editions/ed_1").await.json();
    assert_eq!(shown["status"], "submitted");
    rig.stop().await;
    drop(gate);
    db.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_it_and_leaves_no_lease_behind() {
    let db = TestDatabase::new(Kind::Postgres).await;
    let receiver = Receiver::ok();
    subscribe(&*db.store, &receiver.url("/hook")).await;
    let told = [
        blueprint("default", "pr_1", "bp_1"),
        edition("default", "pr_1", "bp_1", "ed_1", 7, HELD),
    ];
    tell(&db.store, &told).await;
    let http = client(&key(&*db.store, &[Scope::WriteEditions]).await);
    let program = InProcess::start(settings(db.url())).await;
    let api = program.api;
    let mut gate = submits_shut(&db).await;
    let waiting = tokio::spawn(http.post(format!("http://{api}{SUBMIT}")).send());
    gate.until_waiting(1).await;
    waiting.abort();
    hung_up(&*db.store).await;
    program.shutdown.begin();
    let stopping = tokio::spawn(program.stop());
    eventually(PATIENCE, "no request comes in any more", async || {
        TcpStream::connect(api).await.is_err()
    })
    .await;
    gate.open().await;
    stopping.await.unwrap().unwrap();
    assert_eq!(db.count("event").await, 1);
    // It was sent, or given back unsent for whoever runs next: nobody has to wait for the end of a lease.
    assert_eq!(db.count("delivery_queue where owner is not null").await, 0);
    drop(gate);
    db.remove().await;
}
