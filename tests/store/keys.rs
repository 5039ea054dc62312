//! Secrets at rest, and the master key.

use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::secret::SigningSecret;
use forge_dispatch::domain::signature::{SigningKey, webhook_signature};
use forge_dispatch::domain::subscription::BodyFormat;
use forge_dispatch::store::StoreError;

use super::fixture::{accept, claim_all, for_long, owner};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, events, register, registration, spec};

on_both_databases!(
    secrets_are_sealed_at_rest,
    keys_sign_after_the_store_was_opened_anew,
    another_master_key_is_refused_and_changes_nothing,
    a_deleted_subscription_leaves_no_secret,
);

async fn secrets_are_sealed_at_rest(db: &TestDatabase) {
    let mut new = registration(&WorkspaceId::default(), spec(&["*"]));
    "what is found in plain text".clone_into(&mut new.spec.description);
    register(&*db.store, &new).await.unwrap();
    let mut brought = registration(&WorkspaceId::default(), spec(&["*"]));
    brought.secret =
        SigningSecret::bring("brought along by an admin", BodyFormat::Kazinex).unwrap();
    register(&*db.store, &brought).await.unwrap();

    assert!(
        db.holds(new.spec.description.as_bytes()).await,
        "the search finds what is there"
    );
    for secret in [&new.secret, &brought.secret] {
        let text = secret.expose().trim_start_matches("whsec_");
        assert!(!db.holds(text.as_bytes()).await);
        assert!(!db.holds(&secret.v1_key()).await);
    }
}

async fn keys_sign_after_the_store_was_opened_anew(db: &TestDatabase) {
    let new = registration(&WorkspaceId::default(), spec(&["*"]));
    register(&*db.store, &new).await.unwrap();
    accept(&db.store, &events(1)).await;
    db.store.close().await;

    let store = db.open().await;
    store.migrate().await.unwrap();
    let claimed = claim_all(&store, new.id, for_long(owner())).await;
    let target = &claimed[0].target;
    let keys = target.signing_keys(target.subscription.created_at);
    let (id, body) = ("evt_1", b"body");
    assert_eq!(
        webhook_signature(&keys, id, 1, body),
        webhook_signature(&[SigningKey::new(&new.secret)], id, 1, body)
    );
    store.close().await;
}

async fn another_master_key_is_refused_and_changes_nothing(db: &TestDatabase) {
    let other = db.open_with_key(8).await;
    for _ in 0..2 {
        let refused = other.migrate().await;
        assert!(
            matches!(refused, Err(StoreError::MasterKey(_))),
            "{refused:?}"
        );
    }
    other.close().await;
    let right = db.open().await;
    right.migrate().await.unwrap();
    right.close().await;
}

async fn a_deleted_subscription_leaves_no_secret(db: &TestDatabase) {
    let new = registration(&WorkspaceId::default(), spec(&["*"]));
    register(&*db.store, &new).await.unwrap();
    db.store
        .delete_subscription(&Reach::all(&new.workspace), new.id, None, &act())
        .await
        .unwrap();
    assert_eq!(db.count("subscription_secret").await, 0);
}
