//! Settles of two processes that tell of the same receivers, one the other way round than the other.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::store::Settlement;

use super::super::fixture::{accept_leased, for_long, owner, settlement, subscribe};
use super::super::postgres_editions::tell_of_no_deadlock;
use super::{RETRY, judge, rules};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::events;
use crate::harness::eventually;
use crate::harness::gate::Gate;

/// Each opens one circuit and is told by the other receiver that it is gone. (A deadlock would be run
/// again, and nobody else sees anything of it.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settles_of_failures_and_of_receivers_that_are_gone_never_lock_each_other_out() {
    let db = TestDatabase::new(Kind::Postgres).await;
    judge(&db, &rules());
    let first = subscribe(&db.store, &["*"]).await.id;
    subscribe(&db.store, &["*"]).await;
    let me = owner();
    let (mut of_first, mut of_second): (Vec<_>, Vec<_>) =
        accept_leased(&db.store, &events(8), for_long(me))
            .await
            .into_iter()
            .partition(|delivery| delivery.target.id() == first);
    let batches = [&mut of_first, &mut of_second].map(|failing| {
        let batch = failing.drain(..3);
        batch
            .map(|delivery| settlement(&delivery, RETRY))
            .collect::<Vec<Settlement>>()
    });
    let [mut opens_first, mut opens_second] = batches;
    opens_first.push(settlement(&of_second[0], Verdict::Gone));
    opens_second.push(settlement(&of_first[0], Verdict::Gone));

    let mut gate = Gate::before(&db, "update on subscription_generation", "0").await;
    let work = [(&db.store, opens_first), (&db.replica, opens_second)].map(|(store, batch)| {
        let store = Arc::clone(store);
        tokio::spawn(async move { store.settle(me, &batch).await })
    });
    let waiting = "pg_stat_activity
        where datname = current_database() and wait_event_type = 'Lock'";
    eventually(Duration::from_secs(20), "both wait", async || {
        db.count(waiting).await == 2
    })
    .await;
    gate.open().await;
    for settle in work {
        settle.await.unwrap().unwrap();
    }
    drop(gate);
    tell_of_no_deadlock(&db).await;
    db.remove().await;
}
