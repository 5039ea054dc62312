//! Registering, changing and deleting subscriptions.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::retry::RetrySchedule;
use forge_dispatch::domain::secret::SigningSecret;
use forge_dispatch::domain::signature::{SigningKey, webhook_signature};
use forge_dispatch::domain::subscription::{
    BodyFormat, Ordering, SubscriptionSpec, SubscriptionStatus, TargetUrl,
};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{PageRequest, Store, StoreError};

use super::fixture::{
    HOUR, accept_leased, disable, for_long, owner, rotation, subscribe, subscribe_in,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{
    act, events, register, registration, spec, spec_for_projects, workspace,
};

on_both_databases!(
    a_subscription_is_given_back_as_it_was_registered,
    an_id_is_registered_once,
    a_change_takes_effect_and_grows_the_version,
    a_change_from_an_old_version_is_refused,
    two_changes_at_once_cannot_both_win,
    a_deleted_subscription_is_gone,
    lists_are_newest_first_and_paged,
    another_workspace_sees_and_changes_nothing,
    a_new_secret_signs_at_once_and_the_old_one_for_the_overlap,
    a_rotation_elsewhere_is_none,
);

/// A spec in which every field says something.
fn rich() -> SubscriptionSpec {
    SubscriptionSpec {
        url: TargetUrl::new("https://receiver.example:8443/hook?x=%20y&z=\u{e9}").unwrap(),
        description: "Für Béla \u{1f600} \"quoted\" 'n \\ slashed".to_owned(),
        format: BodyFormat::Kazinex,
        max_concurrency: NonZeroU32::new(u32::MAX),
        rate_limit: NonZeroU32::new(u32::MAX),
        retry_schedule: Some(
            RetrySchedule::new(vec![Duration::from_millis(1_500), Duration::from_hours(24)])
                .unwrap(),
        ),
        ordering: Ordering::ByEdition,
        ..spec_for_projects(
            &["edition.*", "output.generated", "*"],
            &["pr_1", "p\"r,{2}"],
        )
    }
}

async fn a_subscription_is_given_back_as_it_was_registered(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let no_retries = SubscriptionSpec {
        retry_schedule: Some(RetrySchedule::new(Vec::new()).unwrap()),
        ..spec(&["*"])
    };
    for spec in [rich(), spec(&["*"]), no_retries] {
        let before = SystemClock.now() - Duration::from_secs(5);
        let created = subscribe_in(&db.store, &here, spec.clone()).await;
        assert_eq!(created.spec, spec);
        assert_eq!(created.status, SubscriptionStatus::Active);
        assert_eq!(
            (created.version, created.created_at),
            (1, created.updated_at)
        );
        assert!(created.created_at > before);
        let found = db
            .replica
            .subscription(&Reach::all(&here), created.id)
            .await
            .unwrap();
        assert_eq!(found, Some(created));
    }
}

async fn an_id_is_registered_once(db: &TestDatabase) {
    let new = registration(&WorkspaceId::default(), spec(&["*"]));
    register(&*db.store, &new).await.unwrap();
    let again = register(&*db.replica, &new).await;
    assert!(matches!(again, Err(StoreError::AlreadyExists)), "{again:?}");
    // Nor is it by another tenant.
    let theirs = forge_dispatch::store::NewSubscription {
        id: new.id,
        ..registration(&workspace("ws_2"), spec(&["*"]))
    };
    let again = register(&*db.store, &theirs).await;
    assert!(matches!(again, Err(StoreError::AlreadyExists)), "{again:?}");
    let theirs = db
        .store
        .subscription(&Reach::all(&theirs.workspace), theirs.id)
        .await
        .unwrap();
    assert_eq!(theirs, None);
}

async fn a_change_takes_effect_and_grows_the_version(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let created = subscribe(&db.store, &["*"]).await;
    let reason = "too slow, \u{e9}t\u{e9}".to_owned();
    let status = SubscriptionStatus::Disabled { reason };
    let updated = db
        .replica
        .update_subscription(&Reach::all(&here), created.id, 1, &rich(), &status, &act())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (updated.version, &updated.spec, &updated.status),
        (2, &rich(), &status)
    );
    assert_eq!(updated.created_at, created.created_at);
    assert!(updated.updated_at >= created.updated_at);
    assert_eq!(
        db.store
            .subscription(&Reach::all(&here), created.id)
            .await
            .unwrap(),
        Some(updated)
    );

    let back = db
        .store
        .update_subscription(
            &Reach::all(&here),
            created.id,
            2,
            &created.spec,
            &SubscriptionStatus::Active,
            &act(),
        )
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (back.version, back.spec, back.status),
        (3, created.spec, SubscriptionStatus::Active)
    );
}

async fn a_change_from_an_old_version_is_refused(db: &TestDatabase) {
    let created = subscribe(&db.store, &["*"]).await;
    let changed = disable(&db.store, &created).await;
    for version in [created.version, changed.version + 1] {
        let late = db
            .replica
            .update_subscription(
                &Reach::all(&created.workspace),
                created.id,
                version,
                &rich(),
                &created.status,
                &act(),
            )
            .await;
        assert!(matches!(late, Err(StoreError::Stale)), "{late:?}");
    }
    let now = db
        .store
        .subscription(&Reach::all(&created.workspace), created.id)
        .await
        .unwrap();
    assert_eq!(now, Some(changed));
}

async fn two_changes_at_once_cannot_both_win(db: &TestDatabase) {
    let created = subscribe(&db.store, &["*"]).await;
    let (here, id, status) = (Reach::all(&created.workspace), created.id, &created.status);
    let (spec, mine, theirs) = (rich(), act(), act());
    let (a, b) = tokio::join!(
        db.store
            .update_subscription(&here, id, 1, &spec, status, &mine),
        db.replica
            .update_subscription(&here, id, 1, &spec, status, &theirs),
    );
    assert!(
        matches!(
            (&a, &b),
            (Ok(Some(_)), Err(StoreError::Stale)) | (Err(StoreError::Stale), Ok(Some(_)))
        ),
        "{a:?} {b:?}"
    );
}

async fn a_deleted_subscription_is_gone(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let created = subscribe(&db.store, &["*"]).await;
    assert!(
        db.store
            .delete_subscription(&Reach::all(&here), created.id, None, &act())
            .await
            .unwrap()
    );
    assert!(
        !db.replica
            .delete_subscription(&Reach::all(&here), created.id, None, &act())
            .await
            .unwrap()
    );
    assert_eq!(
        db.replica
            .subscription(&Reach::all(&here), created.id)
            .await
            .unwrap(),
        None
    );
    let changed = db
        .store
        .update_subscription(
            &Reach::all(&here),
            created.id,
            created.version,
            &rich(),
            &created.status,
            &act(),
        )
        .await
        .unwrap();
    assert_eq!(changed, None);
    let page = PageRequest {
        limit: 10,
        after: None,
    };
    assert!(
        db.store
            .subscriptions(&Reach::all(&here), page)
            .await
            .unwrap()
            .items
            .is_empty()
    );

    let unknown: SubscriptionId = Entropy::system().id(SystemClock.now());
    assert!(
        !db.store
            .delete_subscription(&Reach::all(&here), unknown, None, &act())
            .await
            .unwrap()
    );
    assert_eq!(
        db.store
            .subscription(&Reach::all(&here), unknown)
            .await
            .unwrap(),
        None
    );
}

async fn lists_are_newest_first_and_paged(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let mut expected = Vec::new();
    for number in 0..7 {
        let created = subscribe(&db.store, &["*"]).await;
        match number {
            2 => assert!(
                db.store
                    .delete_subscription(&Reach::all(&here), created.id, None, &act())
                    .await
                    .unwrap()
            ),
            4 => expected.push(disable(&db.store, &created).await),
            _ => expected.push(created),
        }
    }
    expected.sort_by_key(|subscription| std::cmp::Reverse(subscription.id));

    for limit in [1, 2, 3, 5, 6, 100] {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = db
                .replica
                .subscriptions(&Reach::all(&here), PageRequest { limit, after })
                .await
                .unwrap();
            assert!(page.items.len() <= limit);
            found.extend(page.items);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{limit} a page");
    }
}

async fn another_workspace_sees_and_changes_nothing(db: &TestDatabase) {
    let stranger = workspace("ws_2");
    let created = subscribe(&db.store, &["*"]).await;
    let page = PageRequest {
        limit: 10,
        after: None,
    };
    assert_eq!(
        db.store
            .subscription(&Reach::all(&stranger), created.id)
            .await
            .unwrap(),
        None
    );
    assert!(
        db.store
            .subscriptions(&Reach::all(&stranger), page)
            .await
            .unwrap()
            .items
            .is_empty()
    );
    let changed = db
        .store
        .update_subscription(
            &Reach::all(&stranger),
            created.id,
            1,
            &rich(),
            &created.status,
            &act(),
        )
        .await
        .unwrap();
    assert_eq!(changed, None);
    assert!(
        !db.store
            .delete_subscription(&Reach::all(&stranger), created.id, None, &act())
            .await
            .unwrap()
    );
    let now = db
        .store
        .subscription(&Reach::all(&created.workspace), created.id)
        .await
        .unwrap();
    assert_eq!(now, Some(created));
}

/// What the next delivery would be signed with.
async fn signature(store: &Arc<dyn Store>) -> String {
    let born = accept_leased(store, &events(1), for_long(owner())).await;
    let keys = born[0].target.signing_keys(SystemClock.now());
    webhook_signature(&keys, "evt_1", 1, b"body")
}

fn signature_of(secrets: &[&SigningSecret]) -> String {
    let keys: Vec<SigningKey> = secrets
        .iter()
        .map(|secret| SigningKey::new(secret))
        .collect();
    webhook_signature(&keys, "evt_1", 1, b"body")
}

async fn a_new_secret_signs_at_once_and_the_old_one_for_the_overlap(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let new = registration(&here, spec(&["*"]));
    let created = register(&*db.store, &new).await.unwrap();
    assert_eq!(signature(&db.store).await, signature_of(&[&new.secret]));

    let second = rotation(HOUR);
    let rotated = db
        .replica
        .rotate_secret(&Reach::all(&here), created.id, None, &second, &act())
        .await;
    let rotated = rotated.unwrap().unwrap();
    assert_eq!((rotated.version, &rotated.spec), (2, &created.spec));
    assert!(rotated.updated_at >= created.updated_at);
    let found = db
        .store
        .subscription(&Reach::all(&here), created.id)
        .await
        .unwrap();
    assert_eq!(found, Some(rotated));
    let both = signature_of(&[&second.secret, &new.secret]);
    assert_eq!(signature(&db.store).await, both, "newest first");

    // A shorter overlap ends what an earlier rotation promised; none ends it at once.
    let third = rotation(Duration::ZERO);
    let rotated = db
        .store
        .rotate_secret(&Reach::all(&here), created.id, None, &third, &act())
        .await;
    assert_eq!(rotated.unwrap().unwrap().version, 3);
    assert_eq!(signature(&db.replica).await, signature_of(&[&third.secret]));
    assert_eq!(db.count("subscription_secret").await, 1, "no longer needed");
    assert!(!db.holds(third.secret.expose().as_bytes()).await, "sealed");
}

async fn a_rotation_elsewhere_is_none(db: &TestDatabase) {
    let created = subscribe(&db.store, &["*"]).await;
    let theirs = db
        .store
        .rotate_secret(
            &Reach::all(&workspace("ws_2")),
            created.id,
            None,
            &rotation(HOUR),
            &act(),
        )
        .await
        .unwrap();
    assert_eq!(theirs, None);
    let unknown: SubscriptionId = Entropy::system().id(SystemClock.now());
    let nowhere = db
        .store
        .rotate_secret(
            &Reach::all(&created.workspace),
            unknown,
            None,
            &rotation(HOUR),
            &act(),
        )
        .await
        .unwrap();
    assert_eq!(nowhere, None);
    assert_eq!(db.count("subscription_secret").await, 1);
    let now = db
        .store
        .subscription(&Reach::all(&created.workspace), created.id)
        .await;
    assert_eq!(now.unwrap(), Some(created));
}
