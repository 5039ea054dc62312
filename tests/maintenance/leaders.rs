//! One keeper at a time, and another where that one ended.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::config::Retention;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::maintenance::Pace;

use super::rig::{BUSY, Keeper, PATIENCE, days_go_by, deliver};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{register, registration, spec};
use crate::harness::eventually;

on_both_databases!(
    one_of_two_keeps_house_and_the_other_takes_over,
    what_a_crash_left_undone_is_done_by_the_next,
    what_is_kept_for_ever_stays,
);

fn start(store: &Arc<dyn forge_dispatch::store::Store>, pace: Pace) -> Keeper {
    Keeper::start(store, Arc::new(SystemClock), Retention::default(), pace)
}

/// Puts so many events there that are old, each with a delivery.
async fn old(db: &TestDatabase, count: usize) {
    deliver(&db.store, count, SystemClock.now()).await;
    days_go_by(db, 31).await;
}

async fn subscribe(db: &TestDatabase) {
    let new = registration(&WorkspaceId::default(), spec(&["*"]));
    register(&*db.store, &new).await.unwrap();
}

async fn until_gone(db: &TestDatabase) {
    eventually(PATIENCE, "what is old is gone", async || {
        db.count("event").await == 0
    })
    .await;
}

async fn one_of_two_keeps_house_and_the_other_takes_over(db: &TestDatabase) {
    subscribe(db).await;
    let one = start(&db.store, BUSY);
    eventually(PATIENCE, "one leads", async || db.count("lease").await == 1).await;
    let two = start(&db.replica, BUSY);
    for _ in 0..3 {
        old(db, 50).await;
        until_gone(db).await;
        assert_eq!(db.count("lease where fence = 1").await, 1);
    }
    // Without waiting for a lease to end.
    one.stop().await;
    old(db, 50).await;
    until_gone(db).await;
    assert_eq!(db.count("lease where fence = 2").await, 1);
    two.stop().await;
}

async fn what_a_crash_left_undone_is_done_by_the_next(db: &TestDatabase) {
    const OLD: i64 = 400;
    subscribe(db).await;
    old(db, usize::try_from(OLD).unwrap()).await;
    let young = deliver(&db.store, 30, SystemClock.now()).await;
    let slow = Pace {
        lease: Duration::from_secs(1),
        step: 5,
        ..BUSY
    };
    let first = start(&db.store, slow);
    eventually(PATIENCE, "some is gone", async || {
        db.count("event").await < OLD
    })
    .await;
    first.crash().await;
    // Whatever it was at: each event is there with all that is its own, or gone with it.
    for torn in [
        "event where id not in (select event_id from event_feed)",
        "event where id not in (select event_id from delivery)",
        "event_feed where event_id not in (select id from event)",
        "delivery where event_id not in (select id from event)",
        "delivery where id not in (select delivery_id from attempt)",
        "attempt where delivery_id not in (select id from delivery)",
    ] {
        assert_eq!(db.count(torn).await, 0, "{torn}");
    }
    let next = start(&db.replica, slow);
    eventually(PATIENCE, "the rest is gone", async || {
        db.count("event").await == 30
    })
    .await;
    next.stop().await;
    for table in ["event_feed", "delivery", "attempt"] {
        assert_eq!(db.count(table).await, 30, "{table}");
    }
    let feed = db.feed(&WorkspaceId::default()).await;
    let kept: BTreeSet<_> = feed.into_iter().map(|(_, event)| event).collect();
    assert_eq!(kept, young.into_iter().collect());
}

async fn what_is_kept_for_ever_stays(db: &TestDatabase) {
    subscribe(db).await;
    old(db, 10).await;
    days_go_by(db, 1_000).await;
    db.tamper("insert into event_key_age select at, key from event_key")
        .await;
    days_go_by(db, 1_000).await;
    let settings = Retention {
        events: Duration::ZERO,
        answers: Duration::ZERO,
        audit: Duration::ZERO,
        event_keys: Duration::from_hours(90 * 24),
        replays: Duration::ZERO,
        rollup_minutes: Duration::ZERO,
        rollup_hours: Duration::ZERO,
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let keeper = Keeper::start(&db.store, clock, settings, BUSY);
    // The last of what there is to do tells that all before it was done.
    eventually(PATIENCE, "keys are gone", async || {
        db.count("event_key").await == 0
    })
    .await;
    keeper.stop().await;
    for table in [
        "event",
        "event_feed",
        "delivery",
        "attempt where response_excerpt <> ''",
    ] {
        assert_eq!(db.count(table).await, 10, "{table}");
    }
}
