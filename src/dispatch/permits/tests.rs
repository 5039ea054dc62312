//! The rules of the ledger, and that its books balance.

use std::sync::Arc;

use chrono::DateTime;
use proptest::prelude::*;

use super::*;
use crate::domain::ids::{WorkspaceId, new_id};
use crate::domain::subscription::{BodyFormat, Subscription, SubscriptionSpec};
use crate::domain::subscription::{SubscriptionStatus, TargetUrl};

fn target(number: u8, limit: Option<u32>) -> Target {
    let now = DateTime::UNIX_EPOCH;
    Target {
        subscription: Subscription {
            id: new_id(now, [number; 10]),
            workspace: WorkspaceId::default(),
            spec: SubscriptionSpec {
                url: TargetUrl::new("https://receiver.example/").unwrap(),
                description: String::new(),
                event_types: vec!["*".parse().unwrap()],
                project_ids: None,
                format: BodyFormat::Standard,
                max_concurrency: limit.and_then(NonZeroU32::new),
                retry_schedule: None,
            },
            status: SubscriptionStatus::Active,
            version: 1,
            created_at: now,
            updated_at: now,
        },
        keys: Vec::new(),
    }
}

fn ledger(concurrency: usize, per_subscription: usize, bytes: usize) -> Arc<Ledger> {
    Arc::new(Ledger::new(&config::Dispatch {
        concurrency,
        subscription_concurrency: per_subscription,
        max_bytes_in_flight: bytes,
        ..config::Dispatch::default()
    }))
}

#[test]
fn a_subscriptions_own_limit_holds_over_both_lanes() {
    let (ledger, target) = (ledger(100, 64, 1_000), target(1, Some(4)));
    let fresh = ledger.reserve(&target, Lane::Fresh, 100);
    let retry = ledger.reserve(&target, Lane::Retry, 100);
    assert_eq!((fresh.len(), retry.len()), (3, 1));
    drop(fresh);
    assert_eq!(ledger.reserve(&target, Lane::Fresh, 100).len(), 3);
}

#[test]
fn however_many_receivers_hang_the_next_one_gets_permits() {
    let ledger = ledger(512, 512, 1_000);
    let held: Vec<_> = (0..90)
        .map(|number| ledger.reserve(&target(number, None), Lane::Fresh, 512))
        .collect();
    assert!(held.iter().all(|guards| !guards.is_empty()));
    assert!(held[0].len() > 100, "one alone is not held back");
    assert!(!ledger.reserve(&target(99, None), Lane::Fresh, 1).is_empty());
}

#[test]
fn retries_and_fresh_work_do_not_take_each_others_share() {
    let ledger = ledger(16, 64, 1_000);
    let retries: Vec<_> = (0..100)
        .flat_map(|number| ledger.reserve(&target(number, None), Lane::Retry, 100))
        .collect();
    assert_eq!(retries.len(), 4);
    assert!(
        !ledger
            .reserve(&target(200, None), Lane::Fresh, 1)
            .is_empty()
    );
}

#[test]
fn bytes_are_bounded_but_a_giant_goes_alone() {
    let (ledger, target) = (ledger(100, 64, 1_000), target(1, None));
    let giant = ledger.admit(&target, Lane::Fresh, 5_000).unwrap();
    assert_eq!(ledger.bytes_free(), 0);
    assert!(ledger.admit(&target, Lane::Fresh, 1).is_none());
    drop(giant);
    assert_eq!(ledger.bytes_free(), 1_000);
}

#[test]
fn what_comes_behind_a_waiting_delivery_waits_too_until_the_queue_is_empty() {
    let (ledger, target) = (ledger(100, 1, 1_000), target(1, None));
    let first = ledger.admit(&target, Lane::Fresh, 1).unwrap();
    assert!(ledger.admit(&target, Lane::Fresh, 1).is_none());
    drop(first);
    assert!(
        ledger.admit(&target, Lane::Fresh, 1).is_none(),
        "older ones wait"
    );
    ledger.set_backlogged(|_| false);
    assert!(ledger.admit(&target, Lane::Fresh, 1).is_some());
}

#[test]
fn a_closed_ledger_gives_nothing() {
    let ledger = ledger(100, 64, 1_000);
    ledger.close();
    assert!(ledger.admit(&target(1, None), Lane::Fresh, 1).is_none());
    assert!(ledger.reserve(&target(1, None), Lane::Retry, 1).is_empty());
}

proptest! {
    /// Whatever is taken and given back in whatever order, the books balance at the end.
    #[test]
    fn the_books_balance(steps in prop::collection::vec((0_u8..4, any::<bool>(), 0_usize..300, any::<bool>()), 0..200)) {
        let ledger = ledger(8, 4, 1_000);
        let mut held = Vec::new();
        for (number, retry, bytes, give_back) in steps {
            let lane = if retry { Lane::Retry } else { Lane::Fresh };
            if give_back && !held.is_empty() {
                held.swap_remove(bytes % held.len());
            } else {
                held.extend(ledger.admit(&target(number, None), lane, bytes));
            }
            prop_assert_eq!(ledger.in_flight(), held.len());
            prop_assert!(held.len() <= 8);
        }
        held.clear();
        ledger.set_backlogged(|_| false);
        let books = ledger.books();
        prop_assert_eq!((books.free.fresh, books.free.retry), (6, 2));
        prop_assert_eq!((books.bytes_in_flight, books.in_flight), (0, 0));
        prop_assert!(books.accounts.is_empty());
    }
}
