//! Removing what is old: all of it, in bounded steps, and nothing else.

mod beside;
mod events;
mod rest;

use std::time::Duration;

use forge_dispatch::store::{Kept, Lease, LeaseName, Removed, Rest, Swept};

use super::fixture::{for_long, owner};
use crate::harness::databases::{Kind, TestDatabase};

const DAY: Duration = Duration::from_hours(24);
pub(super) const MONTH: Duration = Duration::from_hours(30 * 24);

/// Becomes the leader.
pub(super) async fn lead(db: &TestDatabase) -> Lease {
    let taken = db.store.take_lease(LeaseName::RETENTION, for_long(owner()));
    taken.await.unwrap().expect("nobody else leads")
}

/// Makes what is there so many days older, by the columns that the database goes by.
pub(super) async fn grow_older(db: &TestDatabase, columns: &[(&str, &str)], days: u32) {
    for (table, column) in columns {
        let older = match db.kind {
            Kind::Sqlite => format!("{column} - {days} * 86400000"),
            Kind::Postgres => format!("{column} - interval '{days} days'"),
        };
        db.tamper(&format!("update {table} set {column} = {older}"))
            .await;
    }
}

/// When an event was accepted, and when its deliveries were settled.
pub(super) const EVENTS: [(&str, &str); 2] = [("event", "accepted_at"), ("delivery", "settled_at")];

/// Makes a step again and again until nothing is left; answers what each removed.
pub(super) async fn sweep(step: impl AsyncFn() -> Option<Swept>) -> Vec<Removed> {
    let mut steps = Vec::new();
    loop {
        let swept = step().await.expect("leads");
        match swept.rest {
            Rest::Nothing if swept.removed.is_empty() => return steps,
            Rest::Nothing => {
                steps.push(swept.removed);
                return steps;
            }
            Rest::Some => steps.push(swept.removed),
            Rest::Behind(_) => panic!("this step has no place"),
        }
    }
}

/// Removes events of feeds that are older than a month, so many at a time.
pub(super) async fn sweep_events(db: &TestDatabase, held: &Lease, limit: usize) -> Vec<Removed> {
    sweep(async || db.store.remove_events(held, MONTH, limit).await.unwrap()).await
}

/// Removes loose events that are older than a month, so many at a time; answers all that was removed.
pub(super) async fn sweep_loose(db: &TestDatabase, held: &Lease, limit: usize) -> Removed {
    let (mut removed, mut after) = (Removed::default(), None);
    loop {
        let step = db.store.remove_loose_events(held, MONTH, after, limit);
        let swept = step.await.unwrap().expect("leads");
        removed.take_in(&swept.removed);
        match swept.rest {
            Rest::Nothing => return removed,
            Rest::Some => {}
            Rest::Behind(event) => after = Some(event),
        }
    }
}

/// How many of one kind went in each step.
fn each(steps: &[Removed], kept: Kept) -> Vec<u64> {
    steps.iter().map(|removed| removed.rows(kept)).collect()
}

/// How many rows these tables have.
async fn counts<const N: usize>(db: &TestDatabase, tables: [&str; N]) -> [i64; N] {
    let mut counts = [0; N];
    for (count, table) in counts.iter_mut().zip(tables) {
        *count = db.count(table).await;
    }
    counts
}
