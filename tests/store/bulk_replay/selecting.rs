//! Which deliveries a replay is of.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::delivery::{DeliveryState, Verdict};
use forge_dispatch::domain::ids::{DeliveryId, EditionId, EventId, ProjectId, WorkspaceId};
use forge_dispatch::domain::replay::Was;
use forge_dispatch::domain::selection::{ReplayState, Selection};
use forge_dispatch::store::replays::{STEP, count, count_for};

use super::super::fixture::{
    HOUR, accept, accept_leased, for_long, owner, record, settle, subscribe, subscribe_in,
};
use super::{
    all_as_they_are, begin, claim, finish, here, ids, later, now, put_into_queue, selected, settled,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, event, events, reach, spec_for_projects};

on_both_databases!(
    each_condition_selects_what_it_says,
    a_count_goes_by_state_and_may_be_ended_early,
    those_of_an_event_are_replayed_whatever_their_state,
    an_event_is_made_for_one_that_is_named_and_asks_for_such,
    what_was_never_delivered_is_made,
    what_came_long_before_or_after_costs_no_looks,
);

async fn each_condition_selects_what_it_says(db: &TestDatabase) {
    let first = subscribe(&db.store, &["edition.*"]).await.id;
    let old = SystemClock.now() - HOUR;
    let archived = event()
        .project("pr_1")
        .data(r#"{"edition_id":"ed_1"}"#)
        .build_at(old);
    let moved = event().event_type("edition.moved").build();
    let failed = settled(db, &[archived, Arc::clone(&moved)], &Verdict::Failed).await;
    let [early, late] = if failed[0].payload.event().id == moved.event().id {
        [failed[1].id, failed[0].id]
    } else {
        [failed[0].id, failed[1].id]
    };
    let succeeded = settled(db, &events(1), &Verdict::Succeeded).await[0].id;
    let waiting = settled(db, &events(1), &Verdict::Retry { delay: HOUR }).await[0].id;
    let flying = accept_leased(&db.store, &events(1), for_long(owner())).await[0].id;
    let second = subscribe(&db.store, &["output.*"]).await.id;
    let output = [event().event_type("output.lost").build()];
    let other = settled(db, &output, &Verdict::Failed).await[0].id;

    let takes = async |selection: Selection| {
        let found = selected(db, &here(), &selection).await;
        found.into_iter().collect::<BTreeSet<_>>()
    };
    let any = Selection::default;
    let set = |ids: &[DeliveryId]| ids.iter().copied().collect::<BTreeSet<_>>();
    assert_eq!(takes(any()).await, set(&[early, late, other]));
    let by = |states: &[DeliveryState]| Selection {
        states: states.to_vec(),
        ..any()
    };
    assert_eq!(
        takes(by(&[DeliveryState::Succeeded])).await,
        set(&[succeeded])
    );
    assert_eq!(takes(by(&[DeliveryState::Pending])).await, set(&[waiting]));
    assert_eq!(takes(by(&[DeliveryState::InFlight])).await, set(&[flying]));
    assert_eq!(takes(by(&[])).await, set(&[]));
    assert_eq!(
        takes(by(&DeliveryState::ALL)).await,
        set(&[early, late, other, succeeded, waiting, flying])
    );
    for (subscription, expected) in [(first, set(&[early, late])), (second, set(&[other]))] {
        let only = Selection {
            subscription_id: Some(subscription),
            ..any()
        };
        assert_eq!(takes(only).await, expected);
    }
    let types = Selection {
        types: vec![
            "edition.moved".parse().unwrap(),
            "output.*".parse().unwrap(),
        ],
        ..any()
    };
    assert_eq!(takes(types).await, set(&[late, other]));
    let edition = Selection {
        edition_id: Some(EditionId::new("ed_1").unwrap()),
        ..any()
    };
    assert_eq!(takes(edition).await, set(&[early]));
    let project = Selection {
        project_id: Some(ProjectId::new("pr_1").unwrap()),
        ..any()
    };
    assert_eq!(takes(project).await, set(&[early]));
    let middle = old + Duration::from_mins(10);
    let from = Selection {
        from: Some(middle),
        ..any()
    };
    assert_eq!(takes(from).await, set(&[late, other]));
    let to = Selection {
        to: Some(middle),
        ..any()
    };
    assert_eq!(takes(to).await, set(&[early]));
}

async fn a_count_goes_by_state_and_may_be_ended_early(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await.id;
    settled(db, &events(3), &Verdict::Failed).await;
    settled(db, &events(2), &Verdict::Succeeded).await;
    let selection = Selection {
        states: DeliveryState::ALL.to_vec(),
        ..Selection::default()
    };
    let counted = async |looks| {
        count(&*db.store, &here(), &selection, later(), looks)
            .await
            .unwrap()
    };
    let all = counted(10).await;
    assert_eq!(
        all.by_state,
        BTreeMap::from([("failed", 3), ("succeeded", 2)])
    );
    assert!(all.is_exact);
    assert_eq!(all.total(), 5);
    assert!(!counted(0).await.is_exact);

    // Or when it has taken too long: time to look once at the deliveries, and not at the events.
    let missed = Selection::missed(subscription, SystemClock.now() - HOUR);
    for (secs, is_exact) in [(2, false), (3, true)] {
        let clock = Hurried::default();
        let patience = (&clock as &dyn Clock, Duration::from_secs(secs));
        let counted = count_for(&*db.store, &here(), &missed, later(), patience).await;
        let counted = counted.unwrap();
        assert_eq!((counted.total(), counted.is_exact), (3, is_exact));
    }
}

/// A second passes whenever it is looked at.
#[derive(Debug, Default)]
struct Hurried(AtomicU64);

impl Clock for Hurried {
    fn now(&self) -> DateTime<Utc> {
        SystemClock.now()
    }

    fn monotonic(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

async fn those_of_an_event_are_replayed_whatever_their_state(db: &TestDatabase) {
    let first = subscribe(&db.store, &["*"]).await.id;
    let second = subscribe(&db.store, &["*"]).await.id;
    let sent = events(1);
    let both = settled(db, &sent, &Verdict::Succeeded).await;
    settled(db, &events(1), &Verdict::Failed).await;
    let event = sent[0].event().id;
    let of_it = Selection::of_event(event, None);
    assert_eq!(selected(db, &here(), &of_it).await.len(), 2);
    let replay = begin(db, Selection::of_event(event, Some(second))).await;
    put_into_queue(db, &replay).await;
    assert_eq!(now(db, &replay).await.queued, 1);
    let me = owner();
    assert!(claim(db, first, me).await.is_empty());
    let leased = claim(db, second, me).await;
    assert_eq!(leased.len(), 1);
    assert!(ids(&both).contains(&leased[0].id));
    assert_eq!(leased[0].payload.event().id, event, "the same webhook-id");
    settle(&db.store, me, &leased[0], Verdict::Succeeded).await;
    let done = finish(db, &replay).await;
    assert_eq!((done.state, done.done), (ReplayState::Done, 1));
}

async fn an_event_is_made_for_one_that_is_named_and_asks_for_such(db: &TestDatabase) {
    let sent = events(1);
    accept(&db.store, &sent).await;
    let event = sent[0].event().id;
    let late = subscribe(&db.store, &["*"]).await.id;
    let other = subscribe(&db.store, &["edition.other"]).await.id;
    let counted = async |subscription| {
        let selection = Selection::of_event(event, subscription);
        let count = count(&*db.store, &here(), &selection, later(), 10).await;
        count.unwrap().by_state
    };
    assert_eq!(counted(None).await, BTreeMap::new());
    assert_eq!(counted(Some(other)).await, BTreeMap::new());
    assert_eq!(counted(Some(late)).await, BTreeMap::from([("unmade", 1)]));
    // Whoever sees the subscription need not see the event.
    let own = spec_for_projects(&["*"], &["pr_own"]);
    let narrow = subscribe_in(&db.store, &here().workspace, own).await.id;
    let elsewhere = reach(&here().workspace, &["pr_own"]);
    let of_it = Selection::of_event(event, Some(narrow));
    let unseen = count(&*db.store, &elsewhere, &of_it, later(), 10).await;
    assert_eq!(unseen.unwrap().total(), 0);
    let of_it = Selection::of_event(event, Some(late));

    let replay = begin(db, of_it).await;
    put_into_queue(db, &replay).await;
    let me = owner();
    let leased = claim(db, late, me).await;
    assert_eq!(leased.len(), 1);
    assert_eq!(leased[0].payload.event().id, event);
    settle(&db.store, me, &leased[0], Verdict::Succeeded).await;
    let done = finish(db, &replay).await;
    assert_eq!(
        (done.state, done.total, done.done),
        (ReplayState::Done, 1, 1)
    );
    assert_eq!(
        counted(Some(late)).await,
        BTreeMap::from([("succeeded", 1)]),
        "it is there, and made once"
    );
}

async fn what_came_long_before_or_after_costs_no_looks(db: &TestDatabase) {
    let old = SystemClock.now() - 2 * HOUR;
    let batch: Vec<_> = (0..STEP + 200).map(|_| event().build_at(old)).collect();
    accept(&db.store, &batch).await;
    accept(&db.store, &events(2)).await;
    let subscription = subscribe(&db.store, &["*"]).await.id;
    let missed = Selection::missed(subscription, old + HOUR + HOUR / 2);
    // One look at deliveries, and one at events.
    let counted = count(&*db.store, &here(), &missed, later(), 2)
        .await
        .unwrap();
    assert_eq!(counted.by_state, BTreeMap::from([("unmade", 2)]));
    assert!(counted.is_exact);
    let replay = begin(db, missed).await;
    put_into_queue(db, &replay).await;
    let put = now(db, &replay).await;
    assert_eq!((put.total, put.queued), (2, 2));

    let long_before = Selection {
        subscription_id: Some(subscription),
        to: Some(old - 2 * HOUR),
        backfill: true,
        ..Selection::default()
    };
    let counted = count(&*db.store, &here(), &long_before, later(), 2)
        .await
        .unwrap();
    assert_eq!((counted.total(), counted.is_exact), (0, true));
}

async fn what_was_never_delivered_is_made(db: &TestDatabase) {
    let earlier = [
        event().project("pr_1").build(),
        event().project("pr_1").event_type("output.lost").build(),
        event().project("pr_2").build(),
        event().build(),
    ];
    let leased = accept_leased(&db.store, &earlier, for_long(owner())).await;
    assert!(leased.is_empty(), "there was nobody to send it to");
    let spec = spec_for_projects(&["edition.*"], &["pr_1", "pr_2"]);
    let subscription = subscribe_in(&db.store, &WorkspaceId::default(), spec)
        .await
        .id;
    // One has come since.
    let since = [event().project("pr_1").build()];
    let born = settled(db, &since, &Verdict::Succeeded).await;
    let backfill = |project: Option<&str>| Selection {
        subscription_id: Some(subscription),
        states: Vec::new(),
        project_id: project.map(|id| ProjectId::new(id).unwrap()),
        backfill: true,
        ..Selection::default()
    };
    let wanted = backfill(None);
    let counted = count(&*db.store, &here(), &wanted, later(), 10)
        .await
        .unwrap();
    assert_eq!(counted.by_state, BTreeMap::from([("unmade", 2)]));
    let replay = begin(db, backfill(Some("pr_2"))).await;
    put_into_queue(db, &replay).await;
    let put = now(db, &replay).await;
    assert_eq!((put.total, put.queued), (1, 1));

    let all = begin(db, wanted).await;
    put_into_queue(db, &all).await;
    assert_eq!(now(db, &all).await.queued, 1, "the other is there by now");
    let me = owner();
    let made = claim(db, subscription, me).await;
    let events: BTreeSet<EventId> = made.iter().map(|it| it.payload.event().id).collect();
    let expected = [&earlier[0], &earlier[2]].map(|payload| payload.event().id);
    assert_eq!(events, expected.into_iter().collect());
    for delivery in &made {
        assert_eq!(delivery.replaying.unwrap().was, Was::Unmade);
        assert_eq!(
            (delivery.epoch, delivery.attempts, delivery.base),
            (1, 0, 0)
        );
        assert_eq!(
            record(&db.store, delivery.id).await.state,
            DeliveryState::InFlight
        );
    }
    settle(&db.store, me, &made[0], Verdict::Retry { delay: HOUR }).await;
    settle(&db.store, me, &made[1], Verdict::Succeeded).await;
    assert_eq!(
        record(&db.store, made[0].id).await.state,
        DeliveryState::Pending
    );
    assert_eq!(finish(db, &all).await.state, ReplayState::Done);
    assert!(!ids(&made).contains(&born[0].id));
    // What is made and not sent is not there when it is cancelled.
    let late = [event().project("pr_1").build()];
    let spec = spec_for_projects(&["output.*"], &["pr_1"]);
    let other = subscribe_in(&db.store, &WorkspaceId::default(), spec)
        .await
        .id;
    accept(&db.store, &late).await;
    let before = all_as_they_are(db).await;
    let replay = begin(
        db,
        Selection {
            subscription_id: Some(other),
            states: Vec::new(),
            backfill: true,
            ..Selection::default()
        },
    )
    .await;
    put_into_queue(db, &replay).await;
    assert_eq!(now(db, &replay).await.queued, 1);
    db.store
        .cancel_replay(&here(), replay.id, &act())
        .await
        .unwrap();
    assert_eq!(all_as_they_are(db).await, before);
}
