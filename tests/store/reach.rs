//! What a restricted reach holds of the subscriptions, and what the audit log is told of changes.

use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::audit::{Act, Action, Actor, AuditEntry};
use forge_dispatch::domain::ids::{ProjectId, SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::signature::{SigningKey, webhook_signature};
use forge_dispatch::domain::subscription::{Subscription, SubscriptionStatus};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{PageRequest, StoreError};
use serde_json::Value;

use super::api_keys::entries;
use super::fixture::{HOUR, disable, rotation, subscribe, subscribe_in};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{
    act, register, register_as, registration, spec, spec_for_projects, workspace,
};

on_both_databases!(
    a_restricted_reach_holds_what_names_its_projects_only,
    what_is_out_of_reach_cannot_be_changed,
    lists_of_a_restricted_reach_are_paged,
    a_target_is_there_whatever_its_status,
    a_target_has_the_secrets_that_sign,
    a_change_that_changes_nothing_leaves_the_version_and_the_log,
    a_rotation_and_a_deletion_can_be_bound_to_a_version,
    every_change_is_told_with_what_changed,
    a_change_whose_entry_cannot_be_written_does_not_happen,
);

fn reach(projects: &[&str]) -> Reach {
    let projects = projects.iter().map(|id| ProjectId::new(id).unwrap());
    Reach {
        projects: Some(projects.collect()),
        ..here()
    }
}

fn here() -> Reach {
    Reach::all(&WorkspaceId::default())
}

async fn visible(db: &TestDatabase, reach: &Reach) -> Vec<SubscriptionId> {
    let all = PageRequest {
        limit: 100,
        after: None,
    };
    let page = db.replica.subscriptions(reach, all).await.unwrap();
    page.items.iter().map(|found| found.id).collect()
}

async fn a_restricted_reach_holds_what_names_its_projects_only(db: &TestDatabase) {
    let awkward = "p\"r,{2}";
    let subscribe = async |projects: &[&str]| {
        let spec = spec_for_projects(&["*"], projects);
        subscribe_in(&db.store, &WorkspaceId::default(), spec)
            .await
            .id
    };
    let one = subscribe(&["pr_1"]).await;
    let both = subscribe(&["pr_1", awkward, "pr_1"]).await;
    let other = subscribe(&["pr_3"]).await;
    let everything = subscribe_in(&db.store, &here().workspace, spec(&["*"]))
        .await
        .id;
    let theirs = workspace("ws_2");
    subscribe_in(&db.store, &theirs, spec_for_projects(&["*"], &["pr_1"])).await;

    for (reach, expected) in [
        (here(), vec![one, both, other, everything]),
        (reach(&["pr_1"]), vec![one]),
        (reach(&["pr_3", awkward, "pr_1"]), vec![one, both, other]),
        (reach(&["pr_2", "PR_1", "pr_"]), vec![]),
        (reach(&[awkward]), vec![]),
        (reach(&[]), vec![]),
    ] {
        let mut found = visible(db, &reach).await;
        found.sort();
        let mut expected_sorted = expected.clone();
        expected_sorted.sort();
        assert_eq!(found, expected_sorted, "{reach:?}");
        for id in [one, both, other, everything] {
            let seen = expected.contains(&id);
            let found = db.store.subscription(&reach, id).await.unwrap();
            assert_eq!(found.is_some(), seen, "{reach:?}");
            let target = db.store.target(&reach, id).await.unwrap();
            assert_eq!(target.is_some(), seen, "{reach:?}");
        }
    }
}

async fn what_is_out_of_reach_cannot_be_changed(db: &TestDatabase) {
    let all = subscribe(&db.store, &["*"]).await;
    let wider = spec_for_projects(&["*"], &["pr_1", "pr_2"]);
    let wider = subscribe_in(&db.store, &all.workspace, wider).await;
    let told = entries(&db.store).await;
    let stranger = Reach::all(&workspace("ws_2"));
    for kept in [&all, &wider] {
        for reach in [&reach(&["pr_1"]), &stranger] {
            // As what does not exist: a version that is wrong does not show that it is there.
            for version in [1, 7] {
                let asked = spec(&["x"]);
                let changed = db
                    .store
                    .update_subscription(reach, kept.id, version, &asked, &kept.status, &act())
                    .await;
                assert_eq!(changed.unwrap(), None);
                let some = Some(version);
                let rotated = db
                    .store
                    .rotate_secret(reach, kept.id, some, &rotation(HOUR), &act())
                    .await;
                assert_eq!(rotated.unwrap(), None);
                let deleted = db
                    .store
                    .delete_subscription(reach, kept.id, some, &act())
                    .await;
                assert!(!deleted.unwrap());
            }
        }
        let now = db.replica.subscription(&here(), kept.id).await.unwrap();
        assert_eq!(now.as_ref(), Some(kept));
    }
    assert_eq!(entries(&db.store).await, told);
    assert_eq!(db.count("subscription_secret").await, 2);
}

async fn lists_of_a_restricted_reach_are_paged(db: &TestDatabase) {
    let mut expected = Vec::new();
    for number in 0..9 {
        let projects = [["pr_1"], ["pr_2"], ["pr_3"]][number % 3];
        let spec = spec_for_projects(&["*"], &projects);
        let made = subscribe_in(&db.store, &here().workspace, spec).await;
        if number % 3 < 2 {
            expected.push(made.id);
        }
    }
    expected.sort();
    expected.reverse();
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let request = PageRequest { limit: 2, after };
        let reach = reach(&["pr_1", "pr_2"]);
        let page = db.store.subscriptions(&reach, request).await.unwrap();
        assert!(page.next.is_none() || page.items.len() == 2);
        found.extend(page.items.iter().map(|item| item.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, expected);
}

async fn a_target_is_there_whatever_its_status(db: &TestDatabase) {
    let active = subscribe(&db.store, &["*"]).await;
    let found = db.store.target(&here(), active.id).await.unwrap().unwrap();
    assert_eq!(found.subscription, active);
    let disabled = disable(&db.store, &active).await;
    let found = db.replica.target(&here(), active.id).await.unwrap();
    let found = found.unwrap();
    assert_eq!(found.subscription, disabled);
    assert_eq!(found.keys.len(), 1);
    let deleted = db
        .store
        .delete_subscription(&here(), active.id, None, &act())
        .await;
    assert!(deleted.unwrap());
    let gone = db.replica.target(&here(), active.id).await.unwrap();
    assert!(gone.is_none());
}

async fn a_target_has_the_secrets_that_sign(db: &TestDatabase) {
    let new = registration(&WorkspaceId::default(), spec(&["*"]));
    register(&*db.store, &new).await.unwrap();
    let neighbour = subscribe(&db.store, &["*"]).await;
    let signature = async || {
        let target = db.replica.target(&here(), new.id).await.unwrap().unwrap();
        assert!(target.keys.len() <= 2);
        webhook_signature(&target.signing_keys(SystemClock.now()), "evt_1", 1, b"x")
    };
    let signed = |keys: &[SigningKey]| webhook_signature(keys, "evt_1", 1, b"x");
    let first = SigningKey::new(&new.secret);
    assert_eq!(signature().await, signed(std::slice::from_ref(&first)));

    let second = rotation(HOUR);
    let rotated = db
        .store
        .rotate_secret(&here(), new.id, None, &second, &act())
        .await;
    assert!(rotated.unwrap().is_some());
    let both = [SigningKey::new(&second.secret), first];
    assert_eq!(signature().await, signed(&both), "newest first");

    let third = rotation(Duration::ZERO);
    let rotated = db
        .store
        .rotate_secret(&here(), new.id, None, &third, &act())
        .await;
    assert!(rotated.unwrap().is_some());
    assert_eq!(signature().await, signed(&[SigningKey::new(&third.secret)]));
    let beside = db.store.target(&here(), neighbour.id).await.unwrap();
    assert_eq!(beside.unwrap().keys.len(), 1);
}

async fn a_change_that_changes_nothing_leaves_the_version_and_the_log(db: &TestDatabase) {
    let active = subscribe(&db.store, &["*"]).await;
    let disabled = disable(&db.store, &subscribe(&db.store, &["*"]).await).await;
    let told = entries(&db.store).await;
    for kept in [&active, &disabled] {
        let change = async |status: &SubscriptionStatus| {
            db.replica
                .update_subscription(&here(), kept.id, kept.version, &kept.spec, status, &act())
                .await
                .unwrap()
                .unwrap()
        };
        assert_eq!(&change(&kept.status).await, kept);
        let now = db.store.subscription(&here(), kept.id).await.unwrap();
        assert_eq!(now.as_ref(), Some(kept));
        assert_eq!(entries(&db.store).await, told);
    }
    // Another reason is another status.
    let reason = SubscriptionStatus::disabled("another").unwrap();
    let spec = &disabled.spec;
    let changed = db
        .store
        .update_subscription(
            &here(),
            disabled.id,
            disabled.version,
            spec,
            &reason,
            &act(),
        )
        .await;
    let changed = changed.unwrap().unwrap();
    assert_eq!(changed.version, disabled.version + 1);
    assert_eq!(entries(&db.store).await.len(), told.len() + 1);
}

async fn a_rotation_and_a_deletion_can_be_bound_to_a_version(db: &TestDatabase) {
    let created = subscribe(&db.store, &["*"]).await;
    let rotate = async |version| {
        db.store
            .rotate_secret(&here(), created.id, version, &rotation(HOUR), &act())
            .await
    };
    let delete = async |version| {
        db.replica
            .delete_subscription(&here(), created.id, version, &act())
            .await
    };
    for version in [0, 2] {
        let rotated = rotate(Some(version)).await;
        assert!(matches!(rotated, Err(StoreError::Stale)), "{rotated:?}");
        let deleted = delete(Some(version)).await;
        assert!(matches!(deleted, Err(StoreError::Stale)), "{deleted:?}");
    }
    assert_eq!(db.count("subscription_secret").await, 1);
    assert_eq!(entries(&db.store).await.len(), 1);
    assert_eq!(rotate(Some(1)).await.unwrap().unwrap().version, 2);
    assert_eq!(rotate(None).await.unwrap().unwrap().version, 3);
    let deleted = delete(Some(2)).await;
    assert!(matches!(deleted, Err(StoreError::Stale)), "{deleted:?}");
    assert!(delete(Some(3)).await.unwrap());
    assert!(!delete(Some(4)).await.unwrap());
}

async fn every_change_is_told_with_what_changed(db: &TestDatabase) {
    let key = Entropy::system().id(SystemClock.now());
    let by_key = || Act {
        actor: Actor::Key(key),
        address: Some("2001:db8::1".parse().unwrap()),
        request_id: Some("req_1".to_owned()),
        ..act()
    };
    let acts = [by_key(), by_key(), by_key(), by_key()];
    let new = registration(&WorkspaceId::default(), spec(&["*"]));
    let created = register_as(&*db.store, &new, &acts[0]).await.unwrap();
    let narrow = spec_for_projects(&["edition.*"], &["pr_1"]);
    let updated = db
        .store
        .update_subscription(&here(), new.id, 1, &narrow, &created.status, &acts[1])
        .await
        .unwrap()
        .unwrap();
    let second = rotation(HOUR);
    let rotated = db
        .store
        .rotate_secret(&reach(&["pr_1"]), new.id, Some(2), &second, &acts[2])
        .await
        .unwrap()
        .unwrap();
    let deleted = db
        .store
        .delete_subscription(&reach(&["pr_1"]), new.id, None, &acts[3])
        .await;
    assert!(deleted.unwrap());

    let found = entries(&db.replica).await;
    for expected in [
        acts[0].made(Action::SubscriptionCreated, &created),
        acts[1].changed(Action::SubscriptionUpdated, &created, &updated),
        acts[2].changed(Action::SecretRotated, &updated, &rotated),
        acts[3].ended(Action::SubscriptionDeleted, &rotated),
    ] {
        assert!(found.contains(&expected), "{expected:?} in {found:?}");
    }
    assert_eq!(found.len(), 4);
    let of = |action| -> &AuditEntry { found.iter().find(|entry| entry.action == action).unwrap() };
    let version = |state: &Option<Value>| state.as_ref().map(|state| state["version"].clone());
    let rotation_told = of(Action::SecretRotated);
    assert_eq!(version(&rotation_told.before), Some(Value::from(2)));
    assert_eq!(version(&rotation_told.after), Some(Value::from(3)));
    assert_eq!(of(Action::SubscriptionDeleted).after, None);
    let told = format!("{found:?}");
    for secret in [&new.secret, &second.secret] {
        assert!(!told.contains(secret.expose()));
    }
}

async fn a_change_whose_entry_cannot_be_written_does_not_happen(db: &TestDatabase) {
    let taken = act();
    let new = registration(&WorkspaceId::default(), spec(&["*"]));
    let created = register_as(&*db.store, &new, &taken).await.unwrap();
    let another = registration(&WorkspaceId::default(), spec(&["*"]));
    let refused = |outcome: Result<Option<Subscription>, StoreError>| {
        assert!(
            matches!(outcome, Err(StoreError::AlreadyExists)),
            "{outcome:?}"
        );
    };
    refused(register_as(&*db.store, &another, &taken).await.map(Some));
    let asked = spec(&["x"]);
    let changed = db
        .store
        .update_subscription(&here(), new.id, 1, &asked, &created.status, &taken)
        .await;
    refused(changed);
    let rotated = db
        .store
        .rotate_secret(&here(), new.id, None, &rotation(HOUR), &taken)
        .await;
    refused(rotated);
    let deleted = db
        .store
        .delete_subscription(&here(), new.id, None, &taken)
        .await;
    refused(deleted.map(|_| None));
    let now = db.replica.subscription(&here(), new.id).await.unwrap();
    assert_eq!(now, Some(created));
    assert_eq!(visible(db, &here()).await, [new.id]);
    assert_eq!(db.count("subscription_secret").await, 1);
}
