//! Taking events in.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::delivery::{DeliveryState, Lane, Verdict};
use forge_dispatch::domain::ids::{EventId, WorkspaceId};
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::subscription::SubscriptionStatus;
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::{AcceptOutcome, MAX_FAN_OUT_ROWS};

use super::fixture::{
    HOUR, Permits, accept, accept_leased, claim_all, deliveries, disable, for_long, owner, record,
    set_status, settle, subscribe, subscribe_in,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, event, events, spec, spec_for_projects, workspace};

on_both_databases!(
    an_event_goes_to_each_active_subscription_that_wants_it,
    a_change_of_a_subscription_is_seen_by_the_next_accept_whoever_made_it,
    an_event_known_by_source_and_id_is_kept_once,
    the_same_id_from_another_source_is_another_event,
    a_big_fan_out_is_taken_in_parts,
    what_is_not_admitted_again_waits_for_anybody,
    deliveries_are_born_leased_as_far_as_there_are_permits,
    the_intake_is_asked_for_new_events_only,
    coming_again_with_the_same_ids_adopts_what_was_committed,
    coming_again_adopts_neither_what_is_settled_nor_what_is_anothers,
    coming_again_with_old_and_new_events_takes_both,
    permits_come_back_when_the_accept_fails,
    feed_positions_grow_and_leave_no_event_out,
    concurrent_accepts_give_distinct_positions_in_commit_order,
    an_event_without_subscribers_is_kept_all_the_same,
    an_empty_batch_is_fine,
);

async fn an_event_goes_to_each_active_subscription_that_wants_it(db: &TestDatabase) {
    let (ours, theirs) = (WorkspaceId::default(), workspace("ws_2"));
    let all = subscribe(&db.store, &["*"]).await;
    let approvals = subscribe(&db.store, &["edition.approved"]).await;
    let below = subscribe(&db.store, &["nothing.at_all", "edition.*"]).await;
    let project = subscribe_in(
        &db.store,
        &ours,
        spec_for_projects(&["*"], &["pr_1", "pr_2"]),
    )
    .await;
    let elsewhere = subscribe_in(&db.store, &theirs, spec(&["*"])).await;
    let disabled = subscribe(&db.store, &["*"]).await;
    disable(&db.store, &disabled).await;
    let deleted = subscribe(&db.store, &["*"]).await;
    assert!(
        db.store
            .delete_subscription(&Reach::all(&ours), deleted.id, None, &act())
            .await
            .unwrap()
    );

    let approved = r#"{"edition_id":"e","approved_by":{"id":"u","name":"N"},"timestamp":"2026-05-01T09:00:00Z"}"#;
    let batch = [
        event()
            .event_type("edition.approved")
            .data(approved)
            .project("pr_2")
            .build(),
        event().event_type("output.archived").build(),
        event()
            .event_type("edition.archived")
            .project("pr_3")
            .build(),
        event()
            .event_type("edition.archived")
            .workspace("ws_2")
            .project("pr_1")
            .build(),
        event().event_type("delivery.failed").build(),
    ];
    let accepted = accept(&db.store, &batch).await;
    assert_eq!(accepted.outcomes, [AcceptOutcome::Stored; 5]);

    let mut went: HashMap<EventId, HashSet<_>> = HashMap::new();
    for workspace in [&ours, &theirs] {
        for record in deliveries(&db.store, workspace).await {
            assert_eq!(record.state, DeliveryState::Pending);
            assert!(
                went.entry(record.event_id)
                    .or_default()
                    .insert(record.subscription_id)
            );
        }
    }
    let expected = [
        vec![all.id, approvals.id, below.id, project.id],
        vec![all.id],
        vec![all.id, below.id],
        vec![elsewhere.id],
        vec![],
    ];
    assert_eq!(
        accepted.pending,
        expected.iter().map(Vec::len).sum::<usize>()
    );
    for (number, (payload, wanted)) in batch.iter().zip(expected).enumerate() {
        let went = went.remove(&payload.event().id).unwrap_or_default();
        assert_eq!(went, wanted.into_iter().collect(), "event {number}");
    }
}

async fn a_change_of_a_subscription_is_seen_by_the_next_accept_whoever_made_it(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let fan_out = async || accept(&db.store, &events(1)).await.pending;
    assert_eq!(fan_out().await, 0);

    let there = subscribe(&db.replica, &["*"]).await;
    assert_eq!(fan_out().await, 1, "created through the other handle");
    subscribe(&db.store, &["*"]).await;
    assert_eq!(fan_out().await, 2, "created through this one");

    let there = db
        .replica
        .update_subscription(
            &Reach::all(&here),
            there.id,
            there.version,
            &spec(&["output.*"]),
            &there.status,
            &act(),
        )
        .await
        .unwrap()
        .unwrap();
    assert_eq!(fan_out().await, 1, "it no longer wants such events");
    let there = db
        .replica
        .update_subscription(
            &Reach::all(&here),
            there.id,
            there.version,
            &spec(&["*"]),
            &there.status,
            &act(),
        )
        .await
        .unwrap()
        .unwrap();
    assert_eq!(fan_out().await, 2);
    let there = disable(&db.replica, &there).await;
    assert_eq!(fan_out().await, 1, "disabled");
    let there = set_status(&db.replica, &there, SubscriptionStatus::Active).await;
    assert_eq!(fan_out().await, 2, "active again");
    assert!(
        db.replica
            .delete_subscription(&Reach::all(&here), there.id, None, &act())
            .await
            .unwrap()
    );
    assert_eq!(fan_out().await, 1, "deleted");
}

async fn an_event_known_by_source_and_id_is_kept_once(db: &TestDatabase) {
    use AcceptOutcome::{Duplicate, Stored};
    subscribe(&db.store, &["*"]).await;
    let (a, b) = (event().id("a"), event().id("b"));

    let first = accept(&db.store, &[a.build(), a.build(), b.build(), a.build()]).await;
    assert_eq!(first.outcomes, [Stored, Duplicate, Stored, Duplicate]);
    assert_eq!(first.pending, 2);

    let second = accept(
        &db.replica,
        &[b.build(), event().id("c").build(), a.build()],
    )
    .await;
    assert_eq!(second.outcomes, [Duplicate, Stored, Duplicate]);
    assert_eq!(second.pending, 1);
    assert_eq!(
        deliveries(&db.store, &WorkspaceId::default()).await.len(),
        3
    );
    assert_eq!(db.feed(&WorkspaceId::default()).await.len(), 3);
}

async fn the_same_id_from_another_source_is_another_event(db: &TestDatabase) {
    let same = || event().id("1");
    let batch = [
        same().source("/a").build(),
        same().source("/b").build(),
        // The two strings are told apart, not run together.
        event().source("/a1").id("x").build(),
        event().source("/a").id("1x").build(),
    ];
    let accepted = accept(&db.store, &batch).await;
    assert_eq!(accepted.outcomes, [AcceptOutcome::Stored; 4]);
}

async fn a_big_fan_out_is_taken_in_parts(db: &TestDatabase) {
    const SUBSCRIPTIONS: usize = 40;
    let per_accept = MAX_FAN_OUT_ROWS / SUBSCRIPTIONS;
    for _ in 0..SUBSCRIPTIONS {
        subscribe(&db.store, &["*"]).await;
    }
    let batch = events(2 * per_accept + 1);
    let mut rest = &batch[..];
    let mut sizes = Vec::new();
    while !rest.is_empty() {
        let accepted = accept(&db.store, rest).await;
        assert!(accepted.pending <= MAX_FAN_OUT_ROWS);
        assert_eq!(accepted.pending, accepted.outcomes.len() * SUBSCRIPTIONS);
        sizes.push(accepted.outcomes.len());
        rest = &rest[accepted.outcomes.len()..];
    }
    assert_eq!(sizes, [per_accept, per_accept, 1]);
    let depth = db.store.queue_depth().await.unwrap();
    assert_eq!(
        depth.pending,
        u64::try_from(batch.len() * SUBSCRIPTIONS).unwrap()
    );
}

async fn deliveries_are_born_leased_as_far_as_there_are_permits(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let (me, intake) = (owner(), Permits::of(3));
    let batch = events(5);
    let before = SystemClock.monotonic();
    let accepted = db
        .store
        .accept(&batch, for_long(me), &intake)
        .await
        .unwrap();

    assert_eq!((accepted.leased.len(), accepted.pending), (3, 2));
    assert_eq!(intake.held(), 3);
    for (delivery, _permit) in &accepted.leased {
        assert_eq!(
            (delivery.epoch, delivery.attempts, delivery.lost_leases),
            (1, 0, 0)
        );
        assert_eq!(delivery.lane, Lane::Fresh);
        assert_eq!(delivery.target.id(), subscription.id);
        assert_eq!(delivery.target.keys.len(), 1);
        let payload = batch
            .iter()
            .find(|payload| payload.event().id == delivery.payload.event().id)
            .unwrap();
        assert!(
            Arc::ptr_eq(payload, &delivery.payload),
            "the batch's own payload"
        );
        assert!(delivery.leased_until >= before + HOUR);
        assert!(delivery.leased_until <= SystemClock.monotonic() + HOUR);
        assert_eq!(
            record(&db.store, delivery.id).await.state,
            DeliveryState::InFlight
        );
    }
    let depth = db.replica.queue_depth().await.unwrap();
    assert_eq!((depth.pending, depth.in_flight), (2, 3));

    let waiting = claim_all(&db.replica, subscription.id, for_long(owner())).await;
    assert_eq!(waiting.len(), 2, "the others are anybody's");
    assert!(waiting.iter().all(|delivery| delivery.epoch == 1));

    drop(accepted);
    assert_eq!(intake.held(), 0);
}

async fn the_intake_is_asked_for_new_events_only(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["edition.*"]).await;
    let known = event().id("known");
    accept(&db.store, &[known.build()]).await;

    let fresh = event().data(r#""some more text""#).build();
    let batch = [
        known.build(),
        fresh.clone(),
        event().event_type("output.x").build(),
    ];
    let intake = Permits::of(10);
    db.store
        .accept(&batch, for_long(owner()), &intake)
        .await
        .unwrap();
    let asked = intake.asked.lock().unwrap().clone();
    assert_eq!(asked, [(subscription.id, fresh.event().envelope.len())]);
}

async fn coming_again_with_the_same_ids_adopts_what_was_committed(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    subscribe(&db.store, &["*"]).await;
    let (me, batch) = (owner(), events(3));
    let first = accept_leased(&db.store, &batch, for_long(me)).await;

    // The answer was lost; its permits with it.
    let intake = Permits::of(100);
    let again = db
        .store
        .accept(&batch, for_long(me), &intake)
        .await
        .unwrap();
    assert_eq!(again.outcomes, [AcceptOutcome::Stored; 3]);
    assert_eq!(intake.held(), 6);
    let ids = |deliveries: Vec<_>| -> HashSet<_> { deliveries.into_iter().collect() };
    assert_eq!(
        ids(again
            .leased
            .iter()
            .map(|(delivery, _)| delivery.id)
            .collect()),
        ids(first.iter().map(|delivery| delivery.id).collect())
    );
    for (delivery, _permit) in &again.leased {
        assert_eq!(delivery.epoch, 1);
        assert!(delivery.leased_until <= SystemClock.monotonic() + HOUR);
        let outcome = settle(&db.store, me, delivery, Verdict::Succeeded).await;
        assert_eq!(outcome, forge_dispatch::store::SettleOutcome::Settled);
    }
    assert_eq!(db.feed(&WorkspaceId::default()).await.len(), 3);
    assert_eq!(
        deliveries(&db.store, &WorkspaceId::default()).await.len(),
        6
    );

    let unadmitted = db
        .store
        .accept(&batch, for_long(me), &NoDispatch)
        .await
        .unwrap();
    assert_eq!(unadmitted.outcomes, [AcceptOutcome::Stored; 3]);
    assert!(unadmitted.leased.is_empty());
}

async fn what_is_not_admitted_again_waits_for_anybody(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let (me, batch) = (owner(), events(3));
    accept_leased(&db.store, &batch, for_long(me)).await;
    let again = db
        .store
        .accept(&batch, for_long(me), &Permits::of(1))
        .await
        .unwrap();
    assert_eq!(again.outcomes, [AcceptOutcome::Stored; 3]);
    assert_eq!((again.leased.len(), again.pending), (1, 2));
    let claimed = claim_all(&db.replica, subscription.id, for_long(owner())).await;
    assert_eq!(
        claimed.len(),
        2,
        "nobody waits for a lease that nobody serves"
    );
    for delivery in &claimed {
        assert_ne!(delivery.id, again.leased[0].0.id);
        assert_eq!(
            (delivery.epoch, delivery.attempts, delivery.lost_leases),
            (2, 0, 0)
        );
    }
}

async fn coming_again_adopts_neither_what_is_settled_nor_what_is_anothers(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let (me, batch) = (owner(), events(4));
    let first = accept_leased(&db.store, &batch[..2], for_long(me)).await;
    settle(&db.store, me, &first[0], Verdict::Succeeded).await;
    let delay = Duration::ZERO;
    settle(&db.store, me, &first[1], Verdict::Retry { delay }).await;
    // Never leased, and leased to another process.
    accept(&db.store, &batch[2..3]).await;
    accept_leased(&db.store, &batch[3..], for_long(owner())).await;

    let again = db
        .store
        .accept(&batch, for_long(me), &Permits::of(100))
        .await
        .unwrap();
    assert_eq!(again.outcomes, [AcceptOutcome::Stored; 4]);
    assert!(again.leased.is_empty());
    let waiting = claim_all(&db.store, subscription.id, for_long(owner())).await;
    assert_eq!(
        waiting.len(),
        2,
        "the retry and the one never leased wait as they did"
    );
}

async fn coming_again_with_old_and_new_events_takes_both(db: &TestDatabase) {
    use AcceptOutcome::{Duplicate, Stored};
    subscribe(&db.store, &["*"]).await;
    let (me, batch) = (owner(), events(4));
    accept_leased(&db.store, &batch[..2], for_long(me)).await;
    let known = event().id("known");
    accept(&db.store, &[known.build()]).await;

    let mut again = batch.clone();
    again.push(known.build());
    let accepted = db
        .store
        .accept(&again, for_long(me), &Permits::of(100))
        .await
        .unwrap();
    assert_eq!(
        accepted.outcomes,
        [Stored, Stored, Stored, Stored, Duplicate]
    );
    assert_eq!(accepted.leased.len(), 4);
}

async fn permits_come_back_when_the_accept_fails(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    let taken = event().build();
    accept(&db.store, std::slice::from_ref(&taken)).await;
    // Another event under an id of ours that is taken: it cannot be written.
    let mut impostor = event().build().event().clone();
    impostor.id = taken.event().id;
    let batch = [event().build(), Arc::new(Payload::new(impostor))];
    let intake = Permits::of(10);
    let failed = db.store.accept(&batch, for_long(owner()), &intake).await;
    assert!(failed.is_err(), "{failed:?}");
    assert_eq!(intake.held(), 0);
    assert_eq!(
        db.feed(&WorkspaceId::default()).await.len(),
        1,
        "nothing of it was kept"
    );
    let retried = accept(&db.store, &batch[..1]).await;
    assert_eq!(retried.outcomes, [AcceptOutcome::Stored]);
}

async fn feed_positions_grow_and_leave_no_event_out(db: &TestDatabase) {
    let (ours, theirs) = (WorkspaceId::default(), workspace("ws_2"));
    let mut expected = [Vec::new(), Vec::new()];
    for _ in 0..3 {
        let mut batch = events(4);
        batch.insert(2, event().workspace("ws_2").build());
        batch.push(batch[0].clone());
        accept(&db.store, &batch).await;
        for payload in &batch[..5] {
            let event = payload.event();
            expected[usize::from(event.workspace == theirs)].push(event.id);
        }
    }
    for (workspace, expected) in [&ours, &theirs].into_iter().zip(expected) {
        let feed = db.feed(workspace).await;
        assert!(feed.is_sorted_by(|a, b| a.0 < b.0));
        let order: Vec<_> = feed.into_iter().map(|(_, event)| event).collect();
        assert_eq!(order, expected);
    }
}

async fn concurrent_accepts_give_distinct_positions_in_commit_order(db: &TestDatabase) {
    const WRITERS: usize = 4;
    const BATCHES: usize = 15;
    let here = WorkspaceId::default();
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let store = if number % 2 == 0 {
                &db.store
            } else {
                &db.replica
            };
            let store = Arc::clone(store);
            tokio::spawn(async move {
                for _ in 0..BATCHES {
                    accept(&store, &events(7)).await;
                }
            })
        })
        .collect();
    // A greedy reader that goes on from where it was must not miss what is committed behind it.
    let (mut seen, mut position) = (Vec::new(), 0);
    let mut read = async || {
        for (at, event) in db.feed(&here).await {
            if at > position {
                position = at;
                seen.push(event);
            }
        }
        seen.len()
    };
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) {
        read().await;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(read().await, WRITERS * BATCHES * 7);
    let all: Vec<_> = db
        .feed(&here)
        .await
        .into_iter()
        .map(|(_, event)| event)
        .collect();
    assert_eq!(seen, all);
}

async fn an_event_without_subscribers_is_kept_all_the_same(db: &TestDatabase) {
    let lonely = event().id("lonely");
    let accepted = accept(&db.store, &[lonely.build()]).await;
    assert_eq!((accepted.outcomes.len(), accepted.pending), (1, 0));
    assert_eq!(db.feed(&WorkspaceId::default()).await.len(), 1);
    let again = accept(&db.store, &[lonely.build()]).await;
    assert_eq!(again.outcomes, [AcceptOutcome::Duplicate]);
}

async fn an_empty_batch_is_fine(db: &TestDatabase) {
    let accepted = accept(&db.store, &[]).await;
    assert!(accepted.outcomes.is_empty() && accepted.leased.is_empty());
    assert!(db.store.settle(owner(), &[]).await.unwrap().is_empty());
}
