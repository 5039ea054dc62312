//! A keeper of a house, and what it finds there.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::config::Retention;
use forge_dispatch::domain::attempt::{Attempt, Trigger};
use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::ids::{EventId, OwnerId, SubscriptionId};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::maintenance::{self, Pace, Parts};
use forge_dispatch::shutdown::Shutdown;
use forge_dispatch::store::intake::{Intake, Permit};
use forge_dispatch::store::targets::Target;
use forge_dispatch::store::{LeasedDelivery, Leasing, Settlement, Store};
use tokio::task::JoinHandle;

use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::event;

/// Generous: the machine may be running everything else at the same time.
pub(super) const PATIENCE: Duration = Duration::from_mins(2);

pub(super) const DAY: Duration = Duration::from_hours(24);

/// Looks often, and removes little at once.
pub(super) const BUSY: Pace = Pace {
    lease: Duration::from_mins(10),
    every: Duration::from_millis(20),
    step: 40,
    fold_every: Duration::from_millis(20),
    fold_step: 40,
};

/// A keeper of its own process, as it were.
pub(super) struct Keeper {
    shutdown: Shutdown,
    running: JoinHandle<()>,
}

impl Keeper {
    pub(super) fn start(
        store: &Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        settings: Retention,
        pace: Pace,
    ) -> Self {
        let (entropy, shutdown) = (Entropy::system(), Shutdown::default());
        let parts = Parts {
            store: Arc::clone(store),
            clock,
            owner: entropy.id(SystemClock.now()),
            entropy,
            settings,
            pace,
        };
        Self {
            running: tokio::spawn(maintenance::run(parts, shutdown.clone())),
            shutdown,
        }
    }

    /// Stops it in good order.
    pub(super) async fn stop(self) {
        self.shutdown.begin();
        tokio::time::timeout(PATIENCE, self.running)
            .await
            .expect("it stops")
            .expect("it does not panic");
    }

    /// Ends it as a crash would, wherever it is.
    pub(super) async fn crash(self) {
        self.running.abort();
        self.running.await.expect_err("it is aborted");
    }
}

/// A dispatcher that takes everything.
struct TakesAll(Arc<()>);

impl Intake for TakesAll {
    fn admit(&self, _target: &Target, _bytes: usize) -> Option<Permit> {
        Some(Permit::new(Arc::clone(&self.0)))
    }

    fn hand_over(&self, _leased: Vec<(LeasedDelivery, Permit)>) {}

    fn left_waiting(&self, _of: &[SubscriptionId]) {}

    fn something_is_due(&self) {}
}

/// Accepts events of about 2 kB each at this instant, and delivers them; answers which.
pub(super) async fn deliver(
    store: &Arc<dyn Store>,
    count: usize,
    now: DateTime<Utc>,
) -> Vec<EventId> {
    let data = format!(r#"{{"text":"{}"}}"#, "x".repeat(2_000));
    let events: Vec<_> = (0..count)
        .map(|_| event().data(&data).build_at(now))
        .collect();
    let owner: OwnerId = Entropy::system().id(SystemClock.now());
    let leasing = Leasing {
        owner,
        lease: Duration::from_hours(1),
    };
    let intake = TakesAll(Arc::new(()));
    let accepted = store.accept(&events, leasing, &intake).await.unwrap();
    let settlements: Vec<_> = accepted
        .leased
        .iter()
        .map(|(delivery, _)| {
            let attempt = Attempt {
                at: now,
                duration: Duration::from_millis(3),
                trigger: Trigger::Schedule,
                status: Some(200),
                error: None,
                response_headers: vec![("server".to_owned(), "x".repeat(200))],
                response_excerpt: "y".repeat(500),
            };
            Settlement::of(delivery, Verdict::Succeeded, Some(attempt))
        })
        .collect();
    store.settle(owner, &settlements).await.unwrap();
    events.iter().map(|payload| payload.event().id).collect()
}

/// Makes all that was delivered so many days older, by the columns that the database goes by. A keeper may
/// be looking: deliveries go first, and a minute further, since one that is settled after its event holds
/// it for as long.
pub(super) async fn days_go_by(db: &TestDatabase, days: u32) {
    for (table, column, minutes) in [
        ("delivery", "settled_at", 1),
        ("event_key_age", "at", 0),
        ("event", "accepted_at", 0),
    ] {
        let older = match db.kind {
            Kind::Sqlite => format!("{column} - {days} * 86400000 - {minutes} * 60000"),
            Kind::Postgres => {
                format!("{column} - interval '{days} days {minutes} minutes'")
            }
        };
        db.tamper(&format!("update {table} set {column} = {older}"))
            .await;
    }
}
