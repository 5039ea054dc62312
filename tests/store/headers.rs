//! Custom headers: kept sealed, held by the targets, told by name only.

use forge_dispatch::domain::audit::Action;
use forge_dispatch::domain::headers::CustomHeaders;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::subscription::SubscriptionSpec;
use forge_dispatch::store::StoreError;
use serde_json::json;

use super::api_keys::entries;
use super::fixture::{HOUR, accept_leased, for_long, owner, rotation, subscribe_in};
use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::events::{act, events, spec};

on_both_databases!(
    headers_are_given_back_as_they_were_registered,
    values_are_sealed_at_rest_and_told_nowhere,
    what_is_sent_has_the_headers_of_the_last_change,
    a_new_secret_leaves_the_headers,
    another_rows_headers_do_not_open,
);

const TOKEN: &str = "Bearer tok-5e5e5e5e5e5e";

fn headers(pairs: &[(&str, &str)]) -> CustomHeaders {
    let owned = pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    CustomHeaders::new(owned).unwrap()
}

fn with(pairs: &[(&str, &str)]) -> SubscriptionSpec {
    SubscriptionSpec {
        headers: headers(pairs),
        ..spec(&["*"])
    }
}

fn here() -> Reach {
    Reach::all(&WorkspaceId::default())
}

async fn headers_are_given_back_as_they_were_registered(db: &TestDatabase) {
    for spec in [
        with(&[("authorization", TOKEN), ("x-tenant", "a \"b\" \\ {c}")]),
        with(&[]),
    ] {
        let created = subscribe_in(&db.store, &here().workspace, spec.clone()).await;
        assert_eq!(created.spec, spec);
        let found = db.replica.subscription(&here(), created.id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&created));
        let target = db.replica.target(&here(), created.id).await.unwrap();
        assert_eq!(target.unwrap().subscription, created);
    }
}

async fn values_are_sealed_at_rest_and_told_nowhere(db: &TestDatabase) {
    let other_token = "Bearer tok-6f6f6f6f6f6f";
    let first = with(&[("authorization", TOKEN)]);
    let second = with(&[("authorization", other_token)]);
    let created = subscribe_in(&db.store, &here().workspace, first).await;
    let changed = db
        .store
        .update_subscription(&here(), created.id, 1, &second, &created.status, &act())
        .await;
    // Another value of the same name is a change, though nothing of it can be shown.
    let changed = changed.unwrap().unwrap();
    assert_eq!((changed.version, &changed.spec), (2, &second));
    let told = entries(&db.store).await;
    let update = told
        .iter()
        .find(|entry| entry.action == Action::SubscriptionUpdated)
        .unwrap();
    for state in [&update.before, &update.after] {
        assert_eq!(state.as_ref().unwrap()["headers"], json!(["authorization"]));
    }
    let shown = format!("{created:?} {changed:?} {told:?}");
    assert!(shown.contains("authorization"));
    for token in [TOKEN, other_token] {
        assert!(!shown.contains(&token[7..]));
        assert!(!db.holds(&token.as_bytes()[7..]).await);
    }
    let deleted = db
        .store
        .delete_subscription(&here(), created.id, None, &act())
        .await;
    assert!(deleted.unwrap());
    assert_eq!(db.count("subscription where headers is not null").await, 0);
}

async fn what_is_sent_has_the_headers_of_the_last_change(db: &TestDatabase) {
    let first = with(&[("x-first", "1")]);
    let created = subscribe_in(&db.store, &here().workspace, first.clone()).await;
    let sent = async || {
        let born = accept_leased(&db.store, &events(1), for_long(owner())).await;
        born[0].target.subscription.spec.clone()
    };
    assert_eq!(sent().await, first);
    for (version, spec) in [(1, with(&[("x-second", "2")])), (2, with(&[]))] {
        let changed = db
            .replica
            .update_subscription(&here(), created.id, version, &spec, &created.status, &act())
            .await;
        assert!(changed.unwrap().is_some());
        assert_eq!(sent().await, spec);
    }
}

async fn a_new_secret_leaves_the_headers(db: &TestDatabase) {
    let spec = with(&[("authorization", TOKEN)]);
    let created = subscribe_in(&db.store, &here().workspace, spec.clone()).await;
    let rotated = db
        .store
        .rotate_secret(&here(), created.id, None, &rotation(HOUR), &act())
        .await;
    assert_eq!(rotated.unwrap().unwrap().spec, spec);
    let found = db.replica.subscription(&here(), created.id).await.unwrap();
    assert_eq!(found.unwrap().spec, spec);
}

async fn another_rows_headers_do_not_open(db: &TestDatabase) {
    let one = subscribe_in(&db.store, &here().workspace, with(&[("x", "1")])).await;
    let other = subscribe_in(&db.store, &here().workspace, with(&[])).await;
    let hex = format!("{:032x}", other.id.uuid().as_u128());
    let id = match db.kind {
        Kind::Sqlite => format!("x'{hex}'"),
        Kind::Postgres => format!("'{hex}'"),
    };
    db.tamper(&format!(
        "update subscription
        set headers = (select headers from subscription where headers is not null)
        where id = {id}"
    ))
    .await;
    let opened = db.store.subscription(&here(), other.id).await;
    assert!(
        matches!(opened, Err(StoreError::MasterKey(_))),
        "{opened:?}"
    );
    let own = db.store.subscription(&here(), one.id).await.unwrap();
    assert_eq!(own, Some(one));
}
