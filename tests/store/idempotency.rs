//! Creating calls that come twice.

use std::sync::Arc;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::ids::{ApiKeyId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::subscription::Subscription;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{Creation, Idempotency, NewSubscription, Store, StoreError};

use super::api_keys::{key_spec, new_key};
use super::fixture::subscribe;
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{act, registration, spec};

on_both_databases!(
    what_a_key_created_is_not_created_again,
    the_same_key_with_something_else_conflicts,
    each_caller_and_each_route_has_keys_of_its_own,
    a_call_that_fails_leaves_its_key_unused,
    a_key_is_forgotten_after_a_day,
    old_keys_are_removed_a_few_at_a_time,
    of_two_calls_at_once_one_creates,
    api_keys_are_made_once_too,
    what_was_created_is_told_after_it_is_gone,
);

fn once(caller: ApiKeyId, key: &str) -> Idempotency {
    Idempotency {
        caller,
        route: "POST /v1/subscriptions",
        key: key.to_owned(),
        fingerprint: [7; 32],
    }
}

fn caller() -> ApiKeyId {
    Entropy::system().id(SystemClock.now())
}

fn new() -> NewSubscription {
    registration(&WorkspaceId::default(), spec(&["*"]))
}

async fn create(store: &Arc<dyn Store>, once: &Idempotency) -> Creation<Subscription> {
    let created = store.create_subscription(&new(), &act(), Some(once)).await;
    created.unwrap()
}

fn repeated(earlier: &Subscription) -> Creation<Subscription> {
    Creation::Repeated {
        id: earlier.id.to_string(),
    }
}

/// How much there is: subscriptions, their secrets, what was told of them, and keys.
async fn counts(db: &TestDatabase) -> [i64; 4] {
    [
        db.count("subscription").await,
        db.count("subscription_secret").await,
        db.count("audit_log").await,
        db.count("idempotency_key").await,
    ]
}

/// Makes all keys as old as this, by what the database goes by.
async fn age(db: &TestDatabase, minutes: u32) {
    let sql = match db.kind {
        Kind::Sqlite => {
            format!("update idempotency_key set created_at = created_at - {minutes} * 60000")
        }
        Kind::Postgres => format!(
            "update idempotency_key set created_at = created_at - interval '{minutes} minutes'"
        ),
    };
    db.tamper(&sql).await;
}

async fn what_a_key_created_is_not_created_again(db: &TestDatabase) {
    let once = once(caller(), "k \u{e9} '1'");
    let created = create(&db.store, &once).await.created().unwrap();
    for store in [&db.store, &db.replica] {
        assert_eq!(create(store, &once).await, repeated(&created));
    }
    assert_eq!(counts(db).await, [1, 1, 1, 1]);
    // Without a key every call creates.
    subscribe(&db.store, &["*"]).await;
    subscribe(&db.store, &["*"]).await;
    assert_eq!(counts(db).await, [3, 3, 3, 1]);
}

async fn the_same_key_with_something_else_conflicts(db: &TestDatabase) {
    let first = once(caller(), "k");
    let other = Idempotency {
        fingerprint: [8; 32],
        ..first.clone()
    };
    let created = create(&db.store, &first).await.created().unwrap();
    assert_eq!(create(&db.replica, &other).await, Creation::Conflicting);
    assert_eq!(create(&db.replica, &first).await, repeated(&created));
    assert_eq!(counts(db).await, [1, 1, 1, 1]);
}

async fn each_caller_and_each_route_has_keys_of_its_own(db: &TestDatabase) {
    let first = once(caller(), "k");
    let elsewhere = Idempotency {
        route: "POST /v1/others",
        ..first.clone()
    };
    for own in [
        &first,
        &elsewhere,
        &once(caller(), "k"),
        &once(first.caller, "K"),
    ] {
        let created = create(&db.store, own).await.created().unwrap();
        assert_eq!(create(&db.store, own).await, repeated(&created));
    }
    assert_eq!(counts(db).await, [4, 4, 4, 4]);
}

async fn a_call_that_fails_leaves_its_key_unused(db: &TestDatabase) {
    let there = subscribe(&db.store, &["*"]).await;
    let once = once(caller(), "k");
    let again = NewSubscription {
        id: there.id,
        ..new()
    };
    let failed = db
        .store
        .create_subscription(&again, &act(), Some(&once))
        .await;
    assert!(
        matches!(failed, Err(StoreError::AlreadyExists)),
        "{failed:?}"
    );
    assert_eq!(db.count("idempotency_key").await, 0);
    assert!(create(&db.store, &once).await.created().is_ok());
}

async fn a_key_is_forgotten_after_a_day(db: &TestDatabase) {
    let once = once(caller(), "k");
    let other = Idempotency {
        fingerprint: [8; 32],
        ..once.clone()
    };
    let first = create(&db.store, &once).await.created().unwrap();
    age(db, 24 * 60 - 1).await;
    assert_eq!(create(&db.store, &once).await, repeated(&first));
    age(db, 2).await;
    // It is the new call's from now on, whatever that one asks for.
    let second = create(&db.replica, &other).await.created().unwrap();
    assert_ne!(second.id, first.id);
    assert_eq!(create(&db.store, &other).await, repeated(&second));
    assert_eq!(create(&db.store, &once).await, Creation::Conflicting);
    assert_eq!(counts(db).await, [2, 2, 2, 1]);
}

async fn old_keys_are_removed_a_few_at_a_time(db: &TestDatabase) {
    let caller = caller();
    for number in 0..30 {
        create(&db.store, &once(caller, &format!("old {number}"))).await;
    }
    age(db, 24 * 60 + 1).await;
    for (key, left) in [("a", 11), ("b", 2), ("c", 3)] {
        create(&db.store, &once(caller, key)).await;
        assert_eq!(db.count("idempotency_key").await, left, "{key}");
    }
    // What is not old stays.
    for key in ["a", "b", "c"] {
        let again = create(&db.store, &once(caller, key)).await;
        assert!(matches!(again, Creation::Repeated { .. }), "{again:?}");
    }
}

async fn of_two_calls_at_once_one_creates(db: &TestDatabase) {
    let caller = caller();
    for round in 1..=10 {
        let once = once(caller, &round.to_string());
        let calls: Vec<_> = [&db.store, &db.replica, &db.store, &db.replica]
            .into_iter()
            .map(|store| {
                let (store, once) = (Arc::clone(store), once.clone());
                tokio::spawn(async move { create(&store, &once).await })
            })
            .collect();
        let (mut created, mut told) = (Vec::new(), Vec::new());
        for call in calls {
            match call.await.unwrap() {
                Creation::Created(subscription) => created.push(subscription.id.to_string()),
                Creation::Repeated { id } => told.push(id),
                Creation::Conflicting => panic!("they asked for the same"),
            }
        }
        assert_eq!(created.len(), 1, "round {round}");
        assert_eq!(told, vec![created[0].clone(); 3], "round {round}");
        assert_eq!(counts(db).await, [round; 4]);
    }
}

async fn api_keys_are_made_once_too(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let caller = caller();
    let create = async |store: &Arc<dyn Store>, once: &Idempotency| {
        let (new, _) = new_key(&here, key_spec());
        let made = store.create_api_key(&new, &act(), Some(once)).await;
        made.unwrap()
    };
    let keyed = Idempotency {
        route: "POST /v1/api-keys",
        ..once(caller, "k")
    };
    let other = Idempotency {
        fingerprint: [8; 32],
        ..keyed.clone()
    };
    let made = create(&db.store, &keyed).await.created().unwrap();
    let id = made.id.to_string();
    assert_eq!(create(&db.replica, &keyed).await, Creation::Repeated { id });
    assert_eq!(create(&db.replica, &other).await, Creation::Conflicting);
    assert_eq!(db.count("api_key").await, 1);
    assert_eq!(db.count("audit_log").await, 1);

    for round in 1..=10 {
        let racing = Idempotency {
            key: round.to_string(),
            ..keyed.clone()
        };
        let (one, another) =
            tokio::join!(create(&db.store, &racing), create(&db.replica, &racing),);
        let created = [&one, &another]
            .iter()
            .filter(|made| matches!(made, Creation::Created(_)))
            .count();
        assert_eq!(created, 1, "{one:?} {another:?}");
        assert_eq!(db.count("api_key").await, 1 + round);
    }
}

async fn what_was_created_is_told_after_it_is_gone(db: &TestDatabase) {
    let once = once(caller(), "k");
    let created = create(&db.store, &once).await.created().unwrap();
    let here = Reach::all(&created.workspace);
    let deleted = db
        .store
        .delete_subscription(&here, created.id, None, &act())
        .await;
    assert!(deleted.unwrap());
    assert_eq!(create(&db.replica, &once).await, repeated(&created));
    assert_eq!(db.count("subscription_secret").await, 0);
}
