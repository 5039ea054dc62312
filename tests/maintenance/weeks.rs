//! Weeks go by, and what is kept grows no more.

use std::net::IpAddr;
use std::sync::Arc;

use forge_dispatch::clock::{Clock, ManualClock, SystemClock};
use forge_dispatch::config::Retention;
use forge_dispatch::domain::audit::{Action, Actor, AuditEntry, Request};
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::entropy::Entropy;
use secrecy::ExposeSecret;
use sqlx::{Connection, SqliteConnection};

use super::rig::{BUSY, DAY, Keeper, PATIENCE, days_go_by, deliver};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{register, registration, spec};
use crate::harness::eventually;

on_both_databases!(what_is_kept_of_events_is_what_came_in_the_last_days);

/// Events, deliveries, attempts and uses of keys of one day.
const DAILY: i64 = 120;

fn settings() -> Retention {
    Retention {
        events: 10 * DAY,
        answers: 3 * DAY,
        audit: 12 * DAY,
        event_keys: 15 * DAY,
        replays: 10 * DAY,
        rollup_minutes: 2 * DAY,
        rollup_hours: 10 * DAY,
    }
}

async fn subscribe(db: &TestDatabase) {
    let new = registration(&WorkspaceId::default(), spec(&["*"]));
    register(&*db.store, &new).await.unwrap();
}

/// A day of uses of a key.
fn uses(clock: &dyn Clock) -> Vec<AuditEntry> {
    let entry = || AuditEntry {
        workspace: WorkspaceId::default(),
        id: Entropy::system().id(clock.now()),
        actor: Actor::Key(Entropy::system().id(clock.now())),
        action: Action::Request,
        object: None,
        address: Some(IpAddr::from([203, 0, 113, 7])),
        request_id: Some("req_1".to_owned()),
        request: Some(Request {
            method: "GET".to_owned(),
            route: "/v1/editions/{id}".to_owned(),
            status: Some(200),
        }),
        before: None,
        after: None,
    };
    (0..DAILY).map(|_| entry()).collect()
}

/// Waits until these tables have no more than so many days' rows.
async fn until_no_more(db: &TestDatabase, tables: &[(&str, i64)]) {
    for (table, days) in tables {
        let what = format!("{table} has {days} days at most");
        eventually(PATIENCE, &what, async || {
            db.count(table).await <= days * DAILY
        })
        .await;
    }
}

/// Bytes of the file, as they are after the log was folded back; those that are free count.
async fn file_size(db: &TestDatabase) -> i64 {
    let mut connection = SqliteConnection::connect(db.url().expose_secret())
        .await
        .unwrap();
    let (pages, bytes): (i64, i64) =
        sqlx::query_as("select page_count, page_size from pragma_page_count, pragma_page_size")
            .fetch_one(&mut connection)
            .await
            .unwrap();
    pages * bytes
}

/// By the clock of the test, with all that a day brings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_grows_no_more_once_the_first_days_are_over() {
    let clock = Arc::new(ManualClock::at(SystemClock.now()));
    let db = TestDatabase::with_clock(Kind::Sqlite, Arc::clone(&clock) as Arc<dyn Clock>).await;
    subscribe(&db).await;
    let keeper_clock = Arc::clone(&clock) as Arc<dyn Clock>;
    let keeper = Keeper::start(&db.store, keeper_clock, settings(), BUSY);
    let mut sizes = Vec::new();
    for _ in 0..60 {
        deliver(&db.store, usize::try_from(DAILY).unwrap(), clock.now()).await;
        db.store.append_audit(&uses(&*clock)).await.unwrap();
        clock.advance(DAY);
        until_no_more(
            &db,
            &[
                ("event", 10),
                ("event_feed", 10),
                ("delivery", 10),
                ("attempt", 10),
                // A day more, since first attempts may be a day late.
                ("attempt where response_excerpt <> ''", 4),
                ("event_key", 15),
                ("audit_log where action = 'request'", 12),
                ("rollup_delta", 0),
            ],
        )
        .await;
        sizes.push(file_size(&db).await);
    }
    keeper.stop().await;
    // What is younger is all there.
    assert_eq!(db.count("event").await, 10 * DAILY);
    assert_eq!(db.count("event_key").await, 15 * DAILY);
    assert_eq!(
        db.count("attempt where response_excerpt <> ''").await,
        4 * DAILY
    );
    let (settled, last) = (sizes[24], sizes[59]);
    assert!(last <= settled + settled / 10, "{sizes:?}");
    assert!(
        settled > sizes[0] * 4,
        "there was something to remove: {sizes:?}"
    );
    db.remove().await;
}

/// The same by the database's own times, which are set back.
async fn what_is_kept_of_events_is_what_came_in_the_last_days(db: &TestDatabase) {
    subscribe(db).await;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let keeper = Keeper::start(&db.store, clock, settings(), BUSY);
    for _ in 0..30 {
        deliver(
            &db.store,
            usize::try_from(DAILY).unwrap(),
            SystemClock.now(),
        )
        .await;
        days_go_by(db, 1).await;
        until_no_more(
            db,
            &[
                ("event", 10),
                ("event_feed", 10),
                ("delivery", 10),
                ("attempt", 10),
                ("event_key", 15),
            ],
        )
        .await;
    }
    keeper.stop().await;
    let event = db.count("event").await;
    assert!(event >= 9 * DAILY, "{event}");
    assert!(db.count("event_key").await >= 14 * DAILY);
}
