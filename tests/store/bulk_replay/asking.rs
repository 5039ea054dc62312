//! Beginning replays, and who sees them.

use chrono::DateTime;

use forge_dispatch::domain::audit::Action;
use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::selection::Selection;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::replays::MAX_UNFINISHED;
use forge_dispatch::store::{AuditFilter, Creation, Idempotency, PageRequest};

use super::super::fixture::{subscribe, subscribe_in};
use super::{begin, begin_in, finish, here, new, now, put_into_queue, settled};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, event, reach, spec_for_projects, workspace};

on_both_databases!(
    a_repeated_call_begins_nothing_new,
    a_workspace_has_a_bounded_number_under_way,
    replays_are_seen_within_reach_only,
    a_restricted_reach_replays_its_own_only,
    the_audit_log_tells_of_beginning_and_cancelling,
);

async fn a_repeated_call_begins_nothing_new(db: &TestDatabase) {
    let once = |fingerprint| Idempotency {
        caller: Entropy::system().id(DateTime::UNIX_EPOCH),
        route: "POST /v1/replays",
        key: "k".to_owned(),
        fingerprint: [fingerprint; 32],
    };
    let first = once(1);
    let call = async |once: &Idempotency| {
        let new = new(Selection::default());
        db.store
            .create_replay(&here(), &new, &act(), Some(once))
            .await
            .unwrap()
            .unwrap()
    };
    let Creation::Created(made) = call(&first).await else {
        panic!("the first call");
    };
    let id = made.id.to_string();
    assert_eq!(call(&first).await, Creation::Repeated { id });
    let other = Idempotency {
        fingerprint: [2; 32],
        ..first.clone()
    };
    assert_eq!(call(&other).await, Creation::Conflicting);
    assert_eq!(db.count("replay").await, 1);
}

async fn a_workspace_has_a_bounded_number_under_way(db: &TestDatabase) {
    let mut last = None;
    for _ in 0..MAX_UNFINISHED {
        last = Some(begin(db, Selection::default()).await);
    }
    let one_more = async |reach: &Reach| {
        let new = new(Selection::default());
        let made = db.store.create_replay(reach, &new, &act(), None).await;
        made.unwrap().is_some()
    };
    assert!(!one_more(&here()).await);
    assert!(one_more(&Reach::all(&workspace("ws_2"))).await);
    let last = last.unwrap();
    db.store
        .cancel_replay(&here(), last.id, &act())
        .await
        .unwrap();
    finish(db, &last).await;
    assert!(one_more(&here()).await);
}

async fn replays_are_seen_within_reach_only(db: &TestDatabase) {
    let default = WorkspaceId::default();
    let own = reach(&default, &["pr_1"]);
    let whole = begin(db, Selection::default()).await;
    let restricted = begin_in(db, &own, Selection::default()).await;
    let listed = async |reach: &Reach| {
        let page = PageRequest {
            limit: 10,
            after: None,
        };
        let page = db.replica.replays(reach, page).await.unwrap();
        assert_eq!(page.next, None);
        page.items.into_iter().map(|it| it.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(&here()).await, [restricted.id, whole.id]);
    assert_eq!(listed(&own).await, [restricted.id]);
    let wider = reach(&default, &["pr_1", "pr_2"]);
    assert_eq!(listed(&wider).await, [restricted.id]);
    for elsewhere in [Reach::all(&workspace("ws_2")), reach(&default, &["pr_2"])] {
        assert!(listed(&elsewhere).await.is_empty());
        let found = db.store.replay(&elsewhere, restricted.id).await;
        assert_eq!(found.unwrap(), None);
        let ended = db
            .store
            .cancel_replay(&elsewhere, restricted.id, &act())
            .await;
        assert_eq!(ended.unwrap(), None);
    }
    let found = db.store.replay(&own, whole.id).await;
    assert_eq!(found.unwrap(), None);
    let page = PageRequest {
        limit: 1,
        after: None,
    };
    let first = db.store.replays(&here(), page).await.unwrap();
    assert_eq!(first.next, Some(restricted.id));
    let rest = PageRequest {
        limit: 1,
        after: first.next,
    };
    let second = db.store.replays(&here(), rest).await.unwrap();
    assert_eq!((second.items[0].id, second.next), (whole.id, None));
    assert_eq!(second.items[0], whole);
}

async fn a_restricted_reach_replays_its_own_only(db: &TestDatabase) {
    let default = WorkspaceId::default();
    subscribe_in(&db.store, &default, spec_for_projects(&["*"], &["pr_1"])).await;
    subscribe(&db.store, &["*"]).await;
    let batch = [
        event().project("pr_1").build(),
        event().project("pr_2").build(),
    ];
    let born = settled(db, &batch, &Verdict::Failed).await;
    assert_eq!(born.len(), 3);
    let own = reach(&default, &["pr_1"]);
    let replay = begin_in(db, &own, Selection::default()).await;
    put_into_queue(db, &replay).await;
    let put = now(db, &replay).await;
    assert_eq!((put.total, put.queued), (1, 1));
}

async fn the_audit_log_tells_of_beginning_and_cancelling(db: &TestDatabase) {
    let replay = begin(db, Selection::default()).await;
    for _ in 0..2 {
        db.store
            .cancel_replay(&here(), replay.id, &act())
            .await
            .unwrap();
    }
    let page = PageRequest {
        limit: 10,
        after: None,
    };
    let filter = AuditFilter::default();
    let workspace = WorkspaceId::default();
    let told = db.store.audit_log(&workspace, &filter, page).await.unwrap();
    let told: Vec<_> = told
        .items
        .iter()
        .map(|it| (it.action, it.object.clone()))
        .collect();
    let id = Some(replay.id.to_string());
    assert_eq!(
        told,
        [
            (Action::ReplayCancelled, id.clone()),
            (Action::ReplayCreated, id)
        ]
    );
}
