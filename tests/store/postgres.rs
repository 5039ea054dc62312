//! What only Postgres has.

use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::delivery::{DeliveryState, Verdict};
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::selection::Selection;
use forge_dispatch::store::{
    Claim, DeliveryFilter, LeaseName, PageRequest, SettleOutcome, Settlement,
};
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

/// Claims begin where the last look found something.
#[tokio::test]
async fn what_is_given_a_time_of_before_the_last_look_is_found_by_the_next() {
    let db = TestDatabase::new(Kind::Postgres).await;
    let subscription = subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(2)).await;
    let claim = claim_of(subscription.id, for_long(owner()));
    let is_due = async || {
        let due = db.store.due(claim.grace).await.unwrap();
        let targets = due.work.iter().map(|(target, _)| target.id());
        targets.collect::<Vec<_>>() == [subscription.id]
    };
    assert!(is_due().await);
    db.tamper("update delivery_queue set visible_at = visible_at - interval '1 hour'")
        .await;
    assert_eq!(db.store.claim(&claim).await.unwrap().len(), 0);
    // Another process looked at no other time.
    let one = Claim {
        wants: vec![(subscription.id, 1)],
        ..claim.clone()
    };
    assert_eq!(db.replica.claim(&one).await.unwrap().len(), 1);
    assert!(is_due().await);
    assert_eq!(db.store.claim(&claim).await.unwrap().len(), 1);
    db.remove().await;
}

/// Behind what waits for another tenant, or failed for another subscription.
#[tokio::test]
async fn what_is_of_one_is_found_without_reading_what_is_of_others() {
    let db = TestDatabase::new(Kind::Postgres).await;
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(2), for_long(me)).await;
    settle(&db.store, me, &born[0], Verdict::Failed).await;
    db.tamper(
        "insert into delivery_queue (
            delivery_id, event_id, subscription_id, visible_at, epoch, attempts, lost_leases, bytes,
            lane, workspace
        )
        select
            gen_random_uuid(), event_id, md5((number % 10)::text)::uuid, visible_at, 0, 0, 0, bytes, 0,
            'ws_other'
        from delivery_queue
        cross join generate_series(1, 40000) as copy (number)",
    )
    .await;
    // Another subscription's failures, and our own successes.
    db.tamper(
        "insert into delivery (
            id, event_id, subscription_id, settled_at, epoch, attempts, state, workspace
        )
        select
            gen_random_uuid(), event_id,
            case when number % 2 = 0 then subscription_id else md5('other')::uuid end,
            settled_at, 1, 1, case when number % 2 = 0 then 'succeeded' else 'failed' end, workspace
        from delivery
        cross join generate_series(1, 40000) as copy (number)",
    )
    .await;
    db.tamper("analyze").await;

    let reach = Reach::all(&WorkspaceId::default());
    let later = SystemClock.now() + Duration::from_secs(1);
    let waiting = Selection {
        states: vec![DeliveryState::Pending, DeliveryState::InFlight],
        ..Selection::default()
    };
    let missed = Selection::missed(subscription.id, subscription.created_at);
    let store = db.open().await;
    for selection in [waiting, missed] {
        let page = PageRequest {
            limit: 1_000,
            after: None,
        };
        let found = store
            .replay_candidates(&reach, &selection, later, page)
            .await;
        assert_eq!(found.unwrap().items.len(), 1);
    }
    let of_one = DeliveryFilter {
        subscription: Some(subscription.id),
        state: Some(DeliveryState::Failed),
        ..DeliveryFilter::default()
    };
    let waiting = DeliveryFilter {
        state: Some(DeliveryState::InFlight),
        ..DeliveryFilter::default()
    };
    for filter in [of_one, waiting] {
        let page = PageRequest {
            limit: 50,
            after: None,
        };
        let found = store.deliveries(&reach, &filter, page).await.unwrap();
        assert_eq!(found.items.len(), 1);
    }

    // What a connection read is told when it ends, at the latest.
    for store in [&store, &db.store, &db.replica] {
        store.close().await;
    }
    let open = "pg_stat_activity
        where datname = current_database() and application_name = 'forge-dispatch'";
    let deadline = Duration::from_secs(20);
    eventually(deadline, "all connections have ended", async || {
        db.count(open).await == 0
    })
    .await;
    let few = "pg_stat_user_tables
        where relname in ('delivery_queue', 'delivery') and idx_scan > 0 and idx_tup_fetch < 1000";
    assert_eq!(db.count(few).await, 2);
    db.remove().await;
}

#[tokio::test]
async fn the_database_ends_what_nobody_waits_for_any_more_but_no_migration() {
    let db = TestDatabase::new(Kind::Postgres).await;
    // What a connection of the store's is told, seen from inside.
    db.tamper(
        "create table told (timeout text);
        create function tell() returns trigger language plpgsql as $$
        begin
            insert into told values (current_setting('statement_timeout'));
            return new;
        end $$;
        create trigger tell before insert on lease for each row execute function tell();
        create trigger tell before insert on _sqlx_migrations
            for each row execute function tell();",
    )
    .await;
    let leasing = for_long(owner());
    let leads = db.store.take_lease(LeaseName::REPLAY, leasing).await;
    assert!(leads.unwrap().is_some());
    assert_eq!(db.count("told where timeout = '30s'").await, 1);
    db.tamper(
        "drop index delivery_not_succeeded_of_subscription;
        delete from _sqlx_migrations where version = 18;",
    )
    .await;
    db.store.migrate().await.unwrap();
    assert_eq!(db.count("told where timeout = '0'").await, 1);
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
