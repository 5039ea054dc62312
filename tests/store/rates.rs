//! Whose requests are let through, and how many.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use chrono::DateTime;
use forge_dispatch::clock::{Clock, ManualClock, SystemClock};
use forge_dispatch::domain::api_key::{ApiKey, ApiKeySpec, KeyLimits};
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::key_text::KeyDigest;
use forge_dispatch::domain::rate::{MINUTE, RateLimits, RateUsage, Window};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{Admitted, Store};

use super::api_keys::{PLENTY, key_spec, make};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::act;

on_both_databases!(
    a_stranger_is_not_admitted_and_counts_for_nothing,
    a_key_that_ended_is_not_admitted,
    revocation_holds_at_the_very_next_request_of_a_replica,
    a_request_over_the_limit_is_refused_and_does_not_count,
    the_hour_is_a_limit_of_its_own,
    a_keys_own_limits_go_before_the_defaults,
    keys_are_counted_apart,
    many_at_once_are_never_more_than_the_limit,
    two_replicas_share_a_limit_where_they_can,
    what_is_given_back_can_be_asked_for_again,
);

const SIXTY: RateLimits = RateLimits {
    per_minute: 60,
    per_hour: 1_000,
};

const THREE: RateLimits = RateLimits {
    per_minute: 3,
    ..SIXTY
};

async fn admit(
    store: &Arc<dyn Store>,
    key: &ApiKey,
    digest: &KeyDigest,
    limits: RateLimits,
) -> Admitted {
    let admitted = store.admit(key.id, digest, limits).await.unwrap();
    admitted.expect("the key is valid")
}

async fn a_stranger_is_not_admitted_and_counts_for_nothing(db: &TestDatabase) {
    let (key, digest) = make(&db.store, key_spec()).await;
    for byte in [0, 31] {
        let mut wrong = digest;
        wrong.0[byte] ^= 1;
        for _ in 0..5 {
            let admitted = db.store.admit(key.id, &wrong, THREE).await.unwrap();
            assert!(admitted.is_none());
        }
    }
    let (other, others_digest) = make(&db.store, key_spec()).await;
    let admitted = db.store.admit(key.id, &others_digest, THREE).await;
    assert!(admitted.unwrap().is_none(), "another key's");
    for digest in [digest, KeyDigest([0; 32])] {
        let nobody = Entropy::system().id(SystemClock.now());
        assert!(
            db.store
                .admit(nobody, &digest, THREE)
                .await
                .unwrap()
                .is_none()
        );
    }
    for (key, digest) in [(key, digest), (other, others_digest)] {
        let admitted = admit(&db.store, &key, &digest, THREE).await;
        assert!(admitted.allowed);
        assert_eq!(admitted.usage.minute.count, 1);
    }
}

async fn a_key_that_ended_is_not_admitted(db: &TestDatabase) {
    let hour = Duration::from_hours(1);
    for (end, valid) in [
        (SystemClock.now() - hour, false),
        (SystemClock.now() + hour, true),
    ] {
        let spec = ApiKeySpec {
            expires_at: Some(end),
            ..key_spec()
        };
        let (key, digest) = make(&db.store, spec).await;
        let admitted = db.replica.admit(key.id, &digest, PLENTY).await.unwrap();
        assert_eq!(admitted.is_some(), valid);
    }
}

async fn revocation_holds_at_the_very_next_request_of_a_replica(db: &TestDatabase) {
    let (key, digest) = make(&db.store, key_spec()).await;
    assert!(admit(&db.replica, &key, &digest, PLENTY).await.allowed);
    db.store
        .revoke_api_key(&WorkspaceId::default(), key.id, &act())
        .await
        .unwrap();
    for store in [&db.replica, &db.store] {
        let admitted = store.admit(key.id, &digest, PLENTY).await.unwrap();
        assert!(admitted.is_none());
    }
}

async fn a_request_over_the_limit_is_refused_and_does_not_count(db: &TestDatabase) {
    let (key, digest) = make(&db.store, key_spec()).await;
    let before = SystemClock.now() - Duration::from_secs(5);
    let first = admit(&db.store, &key, &digest, THREE).await;
    assert!(first.usage.minute.opened_at > before);
    assert_eq!(first.usage.minute, first.usage.hour);
    for count in 2..=3 {
        let admitted = admit(&db.store, &key, &digest, THREE).await;
        assert!(admitted.allowed);
        assert_eq!(
            admitted.usage.minute,
            Window {
                count,
                ..first.usage.minute
            }
        );
        assert_eq!(admitted.usage.hour, admitted.usage.minute);
    }
    for _ in 0..3 {
        let refused = admit(&db.store, &key, &digest, THREE).await;
        assert!(!refused.allowed);
        assert_eq!(
            (refused.usage.minute.count, refused.usage.hour.count),
            (3, 3)
        );
        assert_eq!(refused.usage.tightest(THREE).remaining, 0);
    }
    // A limit that was raised meanwhile goes on from there.
    let admitted = admit(&db.store, &key, &digest, SIXTY).await;
    assert_eq!((admitted.allowed, admitted.usage.minute.count), (true, 4));
    let none = RateLimits {
        per_minute: 0,
        ..SIXTY
    };
    let (fresh, digest) = make(&db.store, key_spec()).await;
    let refused = admit(&db.store, &fresh, &digest, none).await;
    assert_eq!((refused.allowed, refused.usage.minute.count), (false, 0));
}

async fn the_hour_is_a_limit_of_its_own(db: &TestDatabase) {
    let limits = RateLimits {
        per_hour: 2,
        ..SIXTY
    };
    let (key, digest) = make(&db.store, key_spec()).await;
    for allowed in [true, true, false] {
        assert_eq!(
            admit(&db.store, &key, &digest, limits).await.allowed,
            allowed
        );
    }
}

async fn a_keys_own_limits_go_before_the_defaults(db: &TestDatabase) {
    let own = |per_minute, per_hour| ApiKeySpec {
        limits: KeyLimits {
            per_minute: NonZeroU32::new(per_minute),
            per_hour: NonZeroU32::new(per_hour),
            concurrent: None,
        },
        ..key_spec()
    };
    // Nought is none of its own.
    for (spec, expected) in [
        (own(2, 0), 2),
        (own(0, 2), 2),
        (own(5, 0), 5),
        (own(0, 9), 3),
    ] {
        let (key, digest) = make(&db.store, spec).await;
        let mut through = 0;
        for _ in 0..8 {
            through += u32::from(admit(&db.store, &key, &digest, THREE).await.allowed);
        }
        assert_eq!(through, expected, "{:?}", key.spec.limits);
    }
}

async fn keys_are_counted_apart(db: &TestDatabase) {
    let (one, ones) = make(&db.store, key_spec()).await;
    let (other, others) = make(&db.store, key_spec()).await;
    for _ in 0..4 {
        admit(&db.store, &one, &ones, THREE).await;
    }
    assert!(!admit(&db.store, &one, &ones, THREE).await.allowed);
    let admitted = admit(&db.store, &other, &others, THREE).await;
    assert_eq!((admitted.allowed, admitted.usage.minute.count), (true, 1));
}

/// How many of these requests, all at once, are let through.
async fn let_through(
    stores: &[&Arc<dyn Store>],
    requests: usize,
    key: &ApiKey,
    digest: KeyDigest,
) -> usize {
    let asked: Vec<_> = (0..requests)
        .map(|number| {
            let (store, id) = (Arc::clone(stores[number % stores.len()]), key.id);
            tokio::spawn(async move { store.admit(id, &digest, SIXTY).await })
        })
        .collect();
    let mut through = 0;
    for asked in asked {
        let admitted = asked.await.unwrap().unwrap().expect("the key is valid");
        through += usize::from(admitted.allowed);
        assert!(admitted.usage.minute.count <= 60);
    }
    through
}

async fn many_at_once_are_never_more_than_the_limit(db: &TestDatabase) {
    for _ in 0..3 {
        let (key, digest) = make(&db.store, key_spec()).await;
        assert_eq!(let_through(&[&db.store], 100, &key, digest).await, 60);
    }
}

/// On Postgres two replicas let through what one does. One process serves a `SQLite` file; a second
/// one would count for itself.
async fn two_replicas_share_a_limit_where_they_can(db: &TestDatabase) {
    let expected = match db.kind {
        Kind::Postgres => 60,
        Kind::Sqlite => 120,
    };
    for _ in 0..3 {
        let (key, digest) = make(&db.store, key_spec()).await;
        let stores = [&db.store, &db.replica];
        assert_eq!(let_through(&stores, 200, &key, digest).await, expected);
    }
}

#[tokio::test]
async fn windows_open_and_close_by_the_clock_on_sqlite() {
    let start = DateTime::from_timestamp_millis(1_777_000_000_000).unwrap();
    let clock = Arc::new(ManualClock::at(start));
    let db = TestDatabase::with_clock(Kind::Sqlite, Arc::clone(&clock) as Arc<dyn Clock>).await;
    let (key, digest) = make(&db.store, key_spec()).await;
    let limits = RateLimits {
        per_minute: 1,
        per_hour: 2,
    };
    let almost = Duration::from_millis(59_999);
    let rest = Duration::from_millis(1);
    for (pause, allowed) in [
        (Duration::ZERO, true),
        (almost, false),
        (rest, true),
        (MINUTE, false),
        (Duration::from_millis(3_479_999), false),
        (rest, true),
    ] {
        clock.advance(pause);
        let admitted = admit(&db.store, &key, &digest, limits).await;
        assert_eq!(admitted.allowed, allowed, "{:?}", clock.now() - start);
    }
    db.remove().await;
}

/// The windows are moved where a clock would have moved, and what the database makes of them is held
/// against what the domain does.
#[tokio::test]
async fn windows_open_and_close_as_the_domain_says_on_postgres() {
    let db = TestDatabase::new(Kind::Postgres).await;
    let (key, digest) = make(&db.store, key_spec()).await;
    let limits = RateLimits {
        per_minute: 3,
        per_hour: 5,
    };
    admit(&db.store, &key, &digest, limits).await;
    // Seconds that lie far enough from every end for the time that the test takes.
    let ages = [-4_000_i64, -3_000, -90, -30, 0, 30, 90, 3_000, 4_000];
    for (minute_age, hour_age) in ages.iter().flat_map(|m| ages.iter().map(move |h| (*m, *h))) {
        for (minute_count, hour_count) in [(0, 0), (2, 4), (3, 3), (2, 5), (3, 5)] {
            let moved = format!(
                "update api_key_usage
                set minute_opened_at = now() - interval '{minute_age} s',
                    minute_count = {minute_count},
                    hour_opened_at = now() - interval '{hour_age} s',
                    hour_count = {hour_count}"
            );
            db.tamper(&moved).await;
            let now = SystemClock.now();
            let window = |age, count| Window {
                opened_at: now - chrono::Duration::seconds(age),
                count,
            };
            let before = RateUsage {
                minute: window(minute_age, minute_count),
                hour: window(hour_age, hour_count),
            };
            let (expected, allowed) = before.count(now, limits);
            let admitted = admit(&db.store, &key, &digest, limits).await;
            let told = format!("{before:?} at {now}: {admitted:?}");
            assert_eq!(admitted.allowed, allowed, "{told}");
            for (window, expected) in [
                (admitted.usage.minute, expected.minute),
                (admitted.usage.hour, expected.hour),
            ] {
                assert_eq!(window.count, expected.count, "{told}");
                let apart = (window.opened_at - expected.opened_at).abs();
                assert!(apart < chrono::Duration::seconds(10), "{told}");
            }
        }
    }
    db.remove().await;
}

async fn what_is_given_back_can_be_asked_for_again(db: &TestDatabase) {
    let (key, digest) = make(&db.store, key_spec()).await;
    for _ in 0..2 {
        admit(&db.store, &key, &digest, THREE).await;
    }
    let last = admit(&db.store, &key, &digest, THREE).await;
    db.store.give_back(key.id, last.usage).await.unwrap();
    let again = admit(&db.store, &key, &digest, THREE).await;
    assert!(again.allowed);
    assert_eq!(again.usage.minute.count, 3);
    assert_eq!(again.usage.hour.count, 3);

    let mut ended = again.usage;
    ended.minute.opened_at -= MINUTE;
    ended.hour.opened_at -= MINUTE;
    db.store.give_back(key.id, ended).await.unwrap();
    let refused = admit(&db.store, &key, &digest, THREE).await;
    assert!(!refused.allowed, "windows that have ended were left alone");
    let stranger = Entropy::system().id(SystemClock.now());
    db.store.give_back(stranger, ended).await.unwrap();
}
