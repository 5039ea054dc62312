//! Several at one gate in the same moment.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::domain::delivery::{DeliveryState, Verdict};
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::replay::Refusal;
use forge_dispatch::domain::selection::Selection;
use forge_dispatch::store::SettleOutcome;
use secrecy::ExposeSecret;
use sqlx::{Connection, PgConnection};
use tokio::sync::Barrier;

use super::super::bulk_replay::{begin, now, put_into_queue};
use super::super::fixture::{accept, accept_leased, for_long, owner, settle};
use super::{check, drain, event_ids, ids_of, of, ordered};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::eventually;

on_both_databases!(
    accepts_at_once_of_one_edition_agree_on_one_order,
    an_accept_beside_a_settle_leaves_nobody_stuck,
);

async fn accepts_at_once_of_one_edition_agree_on_one_order(db: &TestDatabase) {
    const ROUNDS: usize = 15;
    let subscription = ordered(db).await.id;
    let workspace = WorkspaceId::default();
    for round in 0..ROUNDS {
        let barrier = Arc::new(Barrier::new(4));
        let writers: Vec<_> = [&db.store, &db.replica, &db.store, &db.replica]
            .into_iter()
            .enumerate()
            .map(|(number, store)| {
                // Each meets all editions, some of them from the other end.
                let mut batch: Vec<_> = ["ed_1", "ed_2", "ed_3"]
                    .iter()
                    .flat_map(|edition| of(edition, 2))
                    .collect();
                if number % 2 == 1 {
                    batch.reverse();
                }
                let (store, barrier) = (Arc::clone(store), Arc::clone(&barrier));
                tokio::spawn(async move {
                    barrier.wait().await;
                    let me = owner();
                    let born = accept_leased(&store, &batch, for_long(me)).await;
                    (me, born)
                })
            })
            .collect();
        let mut sent = Vec::new();
        for writer in writers {
            let (me, born) = writer.await.unwrap();
            for delivery in born {
                settle(&db.store, me, &delivery, Verdict::Succeeded).await;
                sent.push(delivery);
            }
        }
        assert_eq!(sent.len(), 3, "round {round}: one head for each edition");
        sent.extend(drain(db, subscription).await);
        let feed = db.feed(&workspace).await;
        let accepted: Vec<String> = feed[feed.len() - 24..]
            .iter()
            .map(|(_, event)| event.to_string())
            .collect();
        for edition in ["ed_1", "ed_2", "ed_3"] {
            let sent: Vec<_> = sent
                .iter()
                .filter(|one| one.payload.event().edition.as_ref().unwrap().as_str() == edition)
                .cloned()
                .collect();
            let sent = event_ids(&sent);
            let in_order = accepted.iter().filter(|id| sent.contains(id));
            assert_eq!(sent, in_order.cloned().collect::<Vec<_>>(), "round {round}");
            assert_eq!(sent.len(), 8);
        }
    }
}

/// The one that waits for the gate while another lets it go must be seen by that, or become the head.
async fn an_accept_beside_a_settle_leaves_nobody_stuck(db: &TestDatabase) {
    const ROUNDS: usize = 40;
    let subscription = ordered(db).await.id;
    for round in 0..ROUNDS {
        let me = owner();
        let batch = of("ed_1", 1);
        let born = accept_leased(&db.store, &batch, for_long(me)).await;
        let barrier = Arc::new(Barrier::new(2));
        let settling = {
            let (store, barrier) = (Arc::clone(&db.store), Arc::clone(&barrier));
            tokio::spawn(async move {
                barrier.wait().await;
                settle(&store, me, &born[0], Verdict::Succeeded).await
            })
        };
        let next = of("ed_1", 2);
        barrier.wait().await;
        accept(&db.replica, &next).await;
        assert_ne!(settling.await.unwrap(), SettleOutcome::LeaseLost);
        check(db, &format!("round {round}")).await;
        assert_eq!(event_ids(&drain(db, subscription).await), ids_of(&next));
    }
}

/// A gate may be held for as long as a batch of others takes. What is being sent is no matter of a replay.
#[tokio::test]
async fn a_replay_that_waits_for_a_gate_holds_up_no_settle() {
    let db = TestDatabase::new(Kind::Postgres).await;
    let subscription = ordered(&db).await.id;
    let me = owner();
    let failed = accept_leased(&db.store, &of("ed_1", 1), for_long(me)).await;
    settle(&db.store, me, &failed[0], Verdict::Failed).await;
    accept(&db.store, &of("ed_1", 1)).await;
    let sending = accept_leased(&db.store, &of("ed_2", 1), for_long(me)).await;
    let selection = Selection {
        states: vec![DeliveryState::InFlight, DeliveryState::Failed],
        ..Selection::default()
    };
    let many = begin(&db, selection).await;

    let mut holder = PgConnection::connect(db.url().expose_secret())
        .await
        .unwrap();
    sqlx::raw_sql("begin; select 1 from order_gate where edition = 'ed_1' for update")
        .execute(&mut holder)
        .await
        .unwrap();
    let settling = async {
        let waits = "pg_stat_activity
            where wait_event_type = 'Lock' and datname = current_database()";
        eventually(
            Duration::from_secs(20),
            "the replay waits for the gate",
            async || db.count(waits).await == 1,
        )
        .await;
        db.tamper(&format!(
            "select 1 from delivery_queue where delivery_id = '{}' for update nowait",
            sending[0].id.uuid()
        ))
        .await;
        settle(&db.replica, me, &sending[0], Verdict::Succeeded).await;
        holder.close().await.unwrap();
    };
    tokio::join!(put_into_queue(&db, &many), settling);
    let now = now(&db, &many).await;
    assert_eq!(now.queued, 1);
    let skipped: Vec<_> = now.skipped.0.into_iter().collect();
    assert_eq!(skipped, [(Refusal::InFlight, 1)]);
    check(&db, "replayed").await;
    assert_eq!(drain(&db, subscription).await.len(), 2);
    db.remove().await;
}
