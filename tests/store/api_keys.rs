//! Making, listing and taking back API keys.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::api_key::{ApiKey, ApiKeySpec, KeyLimits, Scope};
use forge_dispatch::domain::audit::{Act, Action, Actor, AuditEntry};
use forge_dispatch::domain::ids::{ApiKeyId, ProjectId, WorkspaceId};
use forge_dispatch::domain::key_text::{KeyDigest, KeyText};
use forge_dispatch::domain::rate::RateLimits;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{AuditFilter, NewApiKey, PageRequest, Store, StoreError};

use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, workspace};

on_both_databases!(
    a_key_is_given_back_as_it_was_made,
    an_id_is_made_once,
    an_act_whose_entry_cannot_be_written_does_not_happen,
    keys_are_listed_newest_first_whatever_became_of_them,
    another_workspace_sees_and_revokes_nothing,
    making_and_revoking_are_audited_with_what_changed,
    revoking_again_changes_and_tells_nothing,
    of_two_that_revoke_at_once_one_tells,
    only_the_digest_of_a_key_is_kept,
);

/// Far more than a test asks for.
pub(super) const PLENTY: RateLimits = RateLimits {
    per_minute: 1_000_000,
    per_hour: 1_000_000,
};

pub(super) fn key_spec() -> ApiKeySpec {
    ApiKeySpec {
        name: "ERP".to_owned(),
        scopes: BTreeSet::from([Scope::ReadEditions]),
        project_ids: None,
        expires_at: None,
        limits: KeyLimits::default(),
    }
}

/// A new key and its text.
pub(super) fn new_key(workspace: &WorkspaceId, spec: ApiKeySpec) -> (NewApiKey, KeyText) {
    let entropy = Entropy::system();
    let text = KeyText::generate(entropy.id(SystemClock.now()), entropy.bytes());
    let new = NewApiKey {
        id: text.id(),
        workspace: workspace.clone(),
        spec,
        digest: text.digest(),
    };
    (new, text)
}

/// Makes a key in workspace `default`.
pub(super) async fn make(store: &Arc<dyn Store>, spec: ApiKeySpec) -> (ApiKey, KeyDigest) {
    let (new, text) = new_key(&WorkspaceId::default(), spec);
    let key = store
        .create_api_key(&new, &act(), None)
        .await
        .unwrap()
        .created()
        .unwrap();
    (key, text.digest())
}

/// The audit log of workspace `default`, newest first.
pub(super) async fn entries(store: &Arc<dyn Store>) -> Vec<AuditEntry> {
    let all = PageRequest {
        limit: 100_000,
        after: None,
    };
    store
        .audit_log(&WorkspaceId::default(), &AuditFilter::default(), all)
        .await
        .unwrap()
        .items
}

/// A spec in which every field says something.
fn rich() -> ApiKeySpec {
    let project = |name| ProjectId::new(name).unwrap();
    ApiKeySpec {
        name: "Für Béla \u{1f600} \"quoted\" 'n \\ slashed".to_owned(),
        scopes: Scope::ALL.into_iter().collect(),
        project_ids: Some(vec![project("pr_1"), project("p\"r,{2}")]),
        expires_at: Some(SystemClock.now() + Duration::from_hours(24)),
        limits: KeyLimits {
            per_minute: NonZeroU32::new(1),
            per_hour: NonZeroU32::new(u32::MAX),
            concurrent: NonZeroU32::new(7),
        },
    }
}

async fn a_key_is_given_back_as_it_was_made(db: &TestDatabase) {
    let here = WorkspaceId::default();
    assert!(!db.store.has_api_keys().await.unwrap());
    let (elsewhere, _) = new_key(&WorkspaceId::new("ws_2").unwrap(), key_spec());
    db.store
        .create_api_key(&elsewhere, &act(), None)
        .await
        .unwrap();
    assert!(db.store.has_api_keys().await.unwrap());
    for spec in [rich(), key_spec()] {
        let before = SystemClock.now() - Duration::from_secs(5);
        let (created, digest) = make(&db.store, spec.clone()).await;
        assert_eq!(created.spec, spec);
        assert_eq!(created.created_by, "cli");
        assert!(created.created_at > before);
        assert_eq!((created.revoked_at, created.last_used_at), (None, None));
        let found = db.replica.api_key(&here, created.id).await.unwrap();
        assert_eq!(found.as_ref(), Some(&created));
        let admitted = db.replica.admit(created.id, &digest, PLENTY).await.unwrap();
        assert_eq!(admitted.map(|admitted| admitted.key), Some(created));
    }
    // A key does not outlive what was asked for by the rest of a millisecond.
    let end = DateTime::<Utc>::from_timestamp_micros(4_000_000_000_000_900);
    let (created, _) = make(
        &db.store,
        ApiKeySpec {
            expires_at: end,
            ..key_spec()
        },
    )
    .await;
    let kept = DateTime::from_timestamp_millis(4_000_000_000_000);
    assert_eq!(created.spec.expires_at, kept);
    let found = db.replica.api_key(&here, created.id).await.unwrap();
    assert_eq!(found, Some(created));
}

async fn an_id_is_made_once(db: &TestDatabase) {
    let (new, _) = new_key(&WorkspaceId::default(), key_spec());
    db.store
        .create_api_key(&new, &act(), None)
        .await
        .unwrap()
        .created()
        .unwrap();
    let theirs = NewApiKey {
        workspace: workspace("ws_2"),
        ..new.clone()
    };
    for again in [new, theirs] {
        let again = db.replica.create_api_key(&again, &act(), None).await;
        assert!(matches!(again, Err(StoreError::AlreadyExists)), "{again:?}");
    }
    assert_eq!(db.count("audit_log").await, 1);
}

async fn an_act_whose_entry_cannot_be_written_does_not_happen(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let act = act();
    let (first, _) = new_key(&here, key_spec());
    db.store
        .create_api_key(&first, &act, None)
        .await
        .unwrap()
        .created()
        .unwrap();
    let (second, _) = new_key(&here, key_spec());
    let made = db.store.create_api_key(&second, &act, None).await;
    assert!(matches!(made, Err(StoreError::AlreadyExists)), "{made:?}");
    assert_eq!(db.store.api_key(&here, second.id).await.unwrap(), None);
    let revoked = db.store.revoke_api_key(&here, first.id, &act).await;
    assert!(
        matches!(revoked, Err(StoreError::AlreadyExists)),
        "{revoked:?}"
    );
    let found = db.store.api_key(&here, first.id).await.unwrap().unwrap();
    assert_eq!(found.revoked_at, None);
}

async fn keys_are_listed_newest_first_whatever_became_of_them(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let past = ApiKeySpec {
        expires_at: Some(SystemClock.now() - Duration::from_hours(1)),
        ..key_spec()
    };
    let mut made = Vec::new();
    for spec in [key_spec(), past, rich(), key_spec(), key_spec()] {
        made.push(make(&db.store, spec).await.0);
    }
    let revoked = db.store.revoke_api_key(&here, made[0].id, &act()).await;
    made[0] = revoked.unwrap().unwrap();
    made.sort_by_key(|key| std::cmp::Reverse(key.id));

    let (mut found, mut after): (Vec<ApiKey>, Option<ApiKeyId>) = (Vec::new(), None);
    loop {
        let request = PageRequest { limit: 2, after };
        let page = db.replica.api_keys(&here, request).await.unwrap();
        assert!(page.next.is_none() || page.items.len() == 2);
        found.extend(page.items);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(found, made);
}

async fn another_workspace_sees_and_revokes_nothing(db: &TestDatabase) {
    let there = workspace("ws_2");
    let (key, digest) = make(&db.store, key_spec()).await;
    let all = PageRequest {
        limit: 10,
        after: None,
    };
    assert!(
        db.store
            .api_keys(&there, all)
            .await
            .unwrap()
            .items
            .is_empty()
    );
    assert_eq!(db.store.api_key(&there, key.id).await.unwrap(), None);
    let revoked = db.store.revoke_api_key(&there, key.id, &act()).await;
    assert_eq!(revoked.unwrap(), None);
    let admitted = db.store.admit(key.id, &digest, PLENTY).await.unwrap();
    assert_eq!(admitted.unwrap().key, key);
    let log = db
        .store
        .audit_log(
            &there,
            &AuditFilter::default(),
            PageRequest {
                limit: 10,
                after: None,
            },
        )
        .await
        .unwrap();
    assert!(log.items.is_empty());
    assert_eq!(db.count("audit_log").await, 1, "the making of it");
}

async fn making_and_revoking_are_audited_with_what_changed(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let (admin, _) = make(&db.store, key_spec()).await;
    let (new, text) = new_key(&here, rich());
    let by_key = || Act {
        actor: Actor::Key(admin.id),
        address: Some("2001:db8::1".parse().unwrap()),
        request_id: Some("req_1".to_owned()),
        ..act()
    };
    let (making, revoking) = (by_key(), by_key());
    let created = db
        .store
        .create_api_key(&new, &making, None)
        .await
        .unwrap()
        .created()
        .unwrap();
    assert_eq!(created.created_by, admin.id.to_string());
    let revoked = db.store.revoke_api_key(&here, new.id, &revoking).await;
    let revoked = revoked.unwrap().unwrap();
    assert!(revoked.revoked_at >= Some(created.created_at));

    let mut found = entries(&db.replica).await;
    found.retain(|entry| entry.object == Some(new.id.to_string()));
    found.sort_by_key(|entry| entry.action == Action::KeyRevoked);
    assert_eq!(
        found,
        [
            making.made(Action::KeyCreated, &created),
            revoking.changed(Action::KeyRevoked, &created, &revoked),
        ]
    );
    let (before, after) = (&found[1].before, &found[1].after);
    let (before, after) = (before.as_ref().unwrap(), after.as_ref().unwrap());
    assert!(before["revoked_at"].is_null() && after["revoked_at"].is_string());
    assert_eq!(found[0].after.as_ref(), Some(before));
    assert_eq!(before["name"], rich().name);
    assert_eq!(before["scopes"].as_array().unwrap().len(), Scope::ALL.len());
    let told = format!("{found:?}");
    assert!(
        !told.contains(text.expose()) && !told.contains("digest"),
        "{told}"
    );
}

async fn revoking_again_changes_and_tells_nothing(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let (key, _) = make(&db.store, key_spec()).await;
    let first = db.store.revoke_api_key(&here, key.id, &act()).await;
    let again = db.replica.revoke_api_key(&here, key.id, &act()).await;
    let first = first.unwrap().unwrap();
    assert!(first.revoked_at.is_some());
    assert_eq!(again.unwrap(), Some(first.clone()));
    assert_eq!(db.store.api_key(&here, key.id).await.unwrap(), Some(first));
    assert_eq!(db.count("audit_log").await, 2);
    let nobody = Entropy::system().id(SystemClock.now());
    let missing = db.store.revoke_api_key(&here, nobody, &act()).await;
    assert_eq!(missing.unwrap(), None);
    assert_eq!(db.count("audit_log").await, 2);
}

async fn of_two_that_revoke_at_once_one_tells(db: &TestDatabase) {
    let here = WorkspaceId::default();
    for round in 1..=10 {
        let (key, _) = make(&db.store, key_spec()).await;
        let revoke = |store: &Arc<dyn Store>| {
            let (store, here) = (Arc::clone(store), here.clone());
            tokio::spawn(async move { store.revoke_api_key(&here, key.id, &act()).await })
        };
        let (one, other) = (revoke(&db.store), revoke(&db.replica));
        let one = one.await.unwrap().unwrap();
        assert!(one.is_some());
        assert_eq!(one, other.await.unwrap().unwrap());
        assert_eq!(db.count("audit_log").await, 2 * round);
    }
}

async fn only_the_digest_of_a_key_is_kept(db: &TestDatabase) {
    let (new, text) = new_key(&WorkspaceId::default(), rich());
    db.store
        .create_api_key(&new, &act(), None)
        .await
        .unwrap()
        .created()
        .unwrap();
    let secret = text.expose().rsplit('_').next().unwrap();
    // Without the checksum; in whole and in its first half.
    for part in [&secret[..40], &secret[..20]] {
        assert!(!db.holds(part.as_bytes()).await);
    }
    assert!(
        db.holds(&text.digest().0).await,
        "the search finds what is there"
    );
}
