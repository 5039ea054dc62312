//! What only Postgres has.

use std::time::Duration;

use forge_dispatch::domain::delivery::{DeliveryState, Verdict};
use forge_dispatch::store::{Claim, SettleOutcome, Settlement};
use secrecy::ExposeSecret;
use sqlx::Connection;

use super::fixture::{
    accept, accept_leased, claim_of, for_long, owner, record, settle, settlement, subscribe,
};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::events;
use crate::harness::eventually;

#[tokio::test]
async fn an_outcome_in_a_strangers_name_does_not_keep_the_holder_from_settling() {
    let db = TestDatabase::new(Kind::Postgres).await;
    subscribe(&db.store, &["*"]).await;
    let (me, stranger) = (owner(), owner());
    let born = accept_leased(&db.store, &events(1), for_long(me)).await;
    let told = settle(&db.store, stranger, &born[0], Verdict::Succeeded).await;
    assert_eq!(told, SettleOutcome::LeaseLost);
    let told = settle(&db.store, me, &born[0], Verdict::Failed).await;
    assert_eq!(told, SettleOutcome::Settled);
    let now = record(&db.store, born[0].id).await;
    assert_eq!((now.state, now.attempts), (DeliveryState::Failed, 1));
    assert_eq!(db.count("attempt").await, 1, "the stranger's stays");
    db.remove().await;
}

#[tokio::test]
async fn a_long_queue_is_estimated_and_a_short_one_counted() {
    let db = TestDatabase::new(Kind::Postgres).await;
    subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(1)).await;
    // A quarter of them leased.
    let many = "insert into delivery_queue (
            delivery_id, event_id, subscription_id, visible_at, owner, epoch, attempts, lost_leases,
            bytes, lane, workspace
        )
        select
            gen_random_uuid(), event_id, subscription_id, visible_at,
            case when number % 4 = 0 then gen_random_uuid() end,
            1, attempts, lost_leases, bytes, lane, workspace
        from delivery_queue
        cross join generate_series(1, 200000) as copy (number)";
    db.tamper(many).await;
    let depth = db.store.queue_depth().await.unwrap();
    assert!((120_000..180_000).contains(&depth.pending), "{depth:?}");
    assert!((40_000..60_000).contains(&depth.in_flight), "{depth:?}");

    db.tamper("delete from delivery_queue where owner is null")
        .await;
    db.tamper(
        "delete from delivery_queue where delivery_id > '20000000-0000-0000-0000-000000000000'",
    )
    .await;
    let left = u64::try_from(db.count("delivery_queue").await).unwrap();
    let depth = db.store.queue_depth().await.unwrap();
    assert_eq!((depth.pending, depth.in_flight), (0, left));
    db.remove().await;
}

#[tokio::test]
async fn a_batch_reads_its_own_rows_whatever_the_statistics_say_of_the_queue() {
    let db = TestDatabase::new(Kind::Postgres).await;
    let subscription = subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(1)).await;
    let backlog = "insert into delivery_queue (
            delivery_id, event_id, subscription_id, visible_at, owner, epoch, attempts, lost_leases,
            bytes, lane, workspace
        )
        select
            gen_random_uuid(), event_id, subscription_id, visible_at, null, 0, 0, 0, bytes, 0,
            workspace
        from (select * from delivery_queue limit 1) as one
        cross join generate_series(1, 20000)";
    // A vacuum that finds a bloated table nearly empty, and then a backlog: the planner takes it for
    // one row, until the next analyze.
    db.tamper("alter table delivery_queue set (autovacuum_enabled = false)")
        .await;
    db.tamper(backlog).await;
    db.tamper(
        "delete from delivery_queue
        where delivery_id not in (select min(delivery_id::text)::uuid from delivery_queue)",
    )
    .await;
    db.tamper("vacuum (analyze, truncate off) delivery_queue")
        .await;
    db.tamper(backlog).await;

    let me = owner();
    let claim = Claim {
        wants: vec![(subscription.id, 500)],
        ..claim_of(subscription.id, for_long(me))
    };
    let claimed = db.store.claim(&claim).await.unwrap();
    let settlements: Vec<Settlement> = claimed
        .iter()
        .enumerate()
        .map(|(number, delivery)| {
            let delay = Duration::from_hours(1);
            let verdicts = [Verdict::Succeeded, Verdict::Retry { delay }];
            settlement(delivery, verdicts[number % 2].clone())
        })
        .collect();
    let outcomes = db.store.settle(me, &settlements).await.unwrap();
    assert_eq!(outcomes, [SettleOutcome::Settled; 500]);

    // What a connection read is told when it ends, at the latest.
    db.store.close().await;
    let few = "pg_stat_user_tables where relname = 'delivery_queue' and idx_tup_fetch < 8000";
    let deadline = Duration::from_secs(20);
    eventually(deadline, "the reads are told, and few", async || {
        db.count(few).await == 1
            && db
                .count("pg_stat_user_tables where relname = 'delivery' and n_tup_ins >= 250")
                .await
                == 1
    })
    .await;
    db.remove().await;
}

/// Another replica's claim commits between a settle's look at the queue and its change of the row.
#[tokio::test]
async fn a_lease_that_is_taken_over_during_a_settle_is_not_settled() {
    let db = TestDatabase::new(Kind::Postgres).await;
    subscribe(&db.store, &["*"]).await;
    let delay = Duration::from_hours(1);
    for verdict in [Verdict::Failed, Verdict::Retry { delay }] {
        let (me, other) = (owner(), owner());
        let born = accept_leased(&db.store, &events(1), for_long(me)).await;
        let mut claim = sqlx::PgConnection::connect(db.url().expose_secret())
            .await
            .unwrap();
        let mut claiming = claim.begin().await.unwrap();
        let taken = sqlx::query(
            "update delivery_queue set owner = $1, epoch = epoch + 1 where delivery_id = $2",
        )
        .bind(other.uuid())
        .bind(born[0].id.uuid())
        .execute(&mut *claiming)
        .await
        .unwrap();
        assert_eq!(taken.rows_affected(), 1);

        let settling = settle(&db.store, me, &born[0], verdict);
        let claim_ends = async {
            let waits = "pg_stat_activity
                where wait_event_type = 'Lock' and datname = current_database()";
            let deadline = Duration::from_secs(10);
            eventually(deadline, "the settle waits for the row", async || {
                db.count(waits).await == 1
            })
            .await;
            claiming.commit().await.unwrap();
        };
        let (told, ()) = tokio::join!(settling, claim_ends);
        assert_eq!(told, SettleOutcome::LeaseLost);
        let now = record(&db.store, born[0].id).await;
        assert_eq!((now.state, now.attempts), (DeliveryState::InFlight, 0));
        db.tamper("delete from delivery_queue").await;
    }
    db.remove().await;
}
