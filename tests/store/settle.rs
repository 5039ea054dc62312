//! Writing outcomes.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::attempt::{Attempt, ErrorClass, Trigger};
use forge_dispatch::domain::delivery::{DeliveryState, Sending, Verdict};
use forge_dispatch::domain::ids::{DeliveryId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::subscription::SubscriptionStatus;
use forge_dispatch::store::{
    AttemptRecord, LeasedDelivery, PageRequest, SettleOutcome, Settlement, Store,
};

use super::fixture::{
    HOUR, accept, accept_leased, claim_all, deliveries, for_long, for_no_time, owner, record,
    refused, settle, settlement, subscribe, taken,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::events;

on_both_databases!(
    each_verdict_leaves_the_state_it_names,
    attempts_are_kept_as_they_were,
    a_stale_epoch_changes_nothing_and_is_recorded_as_lost,
    another_owner_changes_nothing_and_is_recorded_as_lost,
    a_settled_delivery_is_not_settled_by_another_lease,
    settling_again_says_the_same_and_changes_nothing,
    settling_again_with_more_takes_the_rest,
    a_settlement_given_twice_in_a_batch_counts_once,
    a_large_batch_is_answered_in_its_order,
    gone_disables_the_subscription_and_keeps_what_waits,
    gone_under_a_lost_lease_disables_nothing,
    a_release_that_is_repeated_spends_nothing,
    an_outcome_after_a_release_is_that_of_a_lost_lease,
    settling_in_another_workspace_is_settling_nothing,
    an_unknown_delivery_is_a_lost_lease,
);

pub(super) async fn attempts_of(store: &Arc<dyn Store>, id: DeliveryId) -> Vec<AttemptRecord> {
    let page = PageRequest {
        limit: 100,
        after: None,
    };
    store
        .attempts(&Reach::all(&WorkspaceId::default()), id, page)
        .await
        .unwrap()
        .items
}

async fn each_verdict_leaves_the_state_it_names(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    let verdicts = [
        (Verdict::Succeeded, 1),
        (Verdict::Retry { delay: HOUR }, 1),
        (Verdict::Failed, 1),
        (Verdict::Released, 0),
        (Verdict::Gone, 1),
    ];
    let me = owner();
    let born = accept_leased(&db.store, &events(verdicts.len()), for_long(me)).await;
    let batch: Vec<_> = born
        .iter()
        .zip(&verdicts)
        .map(|(delivery, (verdict, _))| settlement(delivery, verdict.clone()))
        .collect();
    let outcomes = db.store.settle(me, &batch).await.unwrap();
    assert_eq!(outcomes, [SettleOutcome::Settled; 5]);

    for (delivery, (verdict, attempts)) in born.iter().zip(verdicts) {
        let record = record(&db.replica, delivery.id).await;
        assert_eq!(record.state, verdict.state(), "{verdict:?}");
        assert_eq!(record.attempts, attempts, "{verdict:?}");
        assert_eq!(record.event_id, delivery.payload.event().id);
        assert_eq!(record.subscription_id, delivery.target.id());
        assert_eq!(
            record.due_at.is_some(),
            record.state == DeliveryState::Pending
        );
        assert_eq!(record.settled_at.is_some(), record.state.is_final());
        let kept = attempts_of(&db.store, delivery.id).await;
        assert_eq!(kept.len(), usize::try_from(attempts).unwrap());
        assert!(kept.iter().all(|kept| kept.epoch == 1 && !kept.lease_lost));
        if let Verdict::Retry { delay } = verdict {
            let due_in = record.due_at.unwrap() - SystemClock.now();
            assert!(due_in.to_std().unwrap() <= delay && due_in.num_minutes() > 50);
        }
    }
    let depth = db.store.queue_depth().await.unwrap();
    assert_eq!(
        (depth.pending, depth.in_flight),
        (2, 0),
        "the settled ones left the queue"
    );
}

async fn attempts_are_kept_as_they_were(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let mut delivery = accept_leased(&db.store, &events(1), for_long(me))
        .await
        .remove(0);
    let id = delivery.id;
    let long = "é\u{1f600}\"\\\n".repeat(1_600);
    let mut expected = Vec::new();
    for (number, error) in ErrorClass::ALL.into_iter().enumerate() {
        let attempt = Attempt {
            at: SystemClock.now(),
            duration: Duration::from_millis(u64::try_from(number).unwrap() * 1_001),
            trigger: [Trigger::Schedule, Trigger::Replay, Trigger::Test][number % 3],
            status: (error == ErrorClass::HttpStatus).then_some(599),
            error: Some(error),
            response_headers: vec![
                ("set-cookie".to_owned(), "a=\"1\"; \u{fffd}".to_owned()),
                ("set-cookie".to_owned(), String::new()),
                (
                    "a".to_owned(),
                    "later in the alphabet, earlier in the list".to_owned(),
                ),
            ],
            response_excerpt: long.clone(),
        };
        let settlement = Settlement {
            attempt: Some(attempt.clone()),
            ..settlement(
                &delivery,
                Verdict::Retry {
                    delay: Duration::ZERO,
                },
            )
        };
        assert_eq!(
            db.store.settle(me, &[settlement]).await.unwrap(),
            [SettleOutcome::Settled]
        );
        expected.push(AttemptRecord {
            epoch: delivery.epoch,
            attempt,
            lease_lost: false,
        });
        delivery = claim_all(&db.store, subscription.id, for_long(me))
            .await
            .remove(0);
    }
    assert_eq!(attempts_of(&db.replica, id).await, expected);
}

/// A delivery whose lease ran out and was taken over: the first lease, and the second.
async fn taken_over(
    db: &TestDatabase,
) -> [(LeasedDelivery, forge_dispatch::domain::ids::OwnerId); 2] {
    let subscription = subscribe(&db.store, &["*"]).await;
    let (first, second) = (owner(), owner());
    let mut lost = accept_leased(&db.store, &events(1), for_no_time(first)).await;
    let mut held = claim_all(&db.replica, subscription.id, for_long(second)).await;
    [(lost.remove(0), first), (held.remove(0), second)]
}

async fn a_stale_epoch_changes_nothing_and_is_recorded_as_lost(db: &TestDatabase) {
    let [(lost, first), (held, second)] = taken_over(db).await;
    for verdict in [Verdict::Succeeded, Verdict::Failed, Verdict::Released] {
        let before = record(&db.store, lost.id).await;
        assert_eq!(
            settle(&db.store, first, &lost, verdict).await,
            SettleOutcome::LeaseLost
        );
        assert_eq!(record(&db.store, lost.id).await, before);
    }
    let kept = attempts_of(&db.store, lost.id).await;
    assert_eq!(kept.len(), 1);
    assert_eq!((kept[0].epoch, kept[0].lease_lost), (1, true));
    assert!(kept[0].attempt.succeeded(), "what the first try met");

    assert_eq!(
        settle(&db.replica, second, &held, Verdict::Succeeded).await,
        SettleOutcome::Settled
    );
    let kept = attempts_of(&db.store, lost.id).await;
    assert_eq!(
        kept.iter()
            .map(|kept| (kept.epoch, kept.lease_lost))
            .collect::<Vec<_>>(),
        [(1, true), (2, false)]
    );
    assert_eq!(
        record(&db.store, lost.id).await.attempts,
        1,
        "the lost one does not count"
    );
}

async fn another_owner_changes_nothing_and_is_recorded_as_lost(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    let (me, stranger) = (owner(), owner());
    let born = accept_leased(&db.store, &events(1), for_long(me)).await;
    let outcome = settle(&db.store, stranger, &born[0], Verdict::Succeeded).await;
    assert_eq!(outcome, SettleOutcome::LeaseLost);
    assert_eq!(
        record(&db.store, born[0].id).await.state,
        DeliveryState::InFlight
    );
    let kept = attempts_of(&db.store, born[0].id).await;
    assert_eq!((kept.len(), kept[0].lease_lost), (1, true));
}

async fn a_settled_delivery_is_not_settled_by_another_lease(db: &TestDatabase) {
    let [(lost, first), (held, second)] = taken_over(db).await;
    settle(&db.store, second, &held, Verdict::Failed).await;
    let before = record(&db.store, lost.id).await;
    assert_eq!(
        settle(&db.store, first, &lost, Verdict::Succeeded).await,
        SettleOutcome::LeaseLost
    );
    assert_eq!(record(&db.store, lost.id).await, before);
    assert_eq!(before.state, DeliveryState::Failed);
    assert_eq!(attempts_of(&db.store, lost.id).await.len(), 2);
}

async fn settling_again_says_the_same_and_changes_nothing(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let lost = accept_leased(&db.store, &events(1), for_no_time(me))
        .await
        .remove(0);
    let held = claim_all(&db.store, subscription.id, for_long(me))
        .await
        .remove(0);
    let born = accept_leased(&db.store, &events(4), for_long(me)).await;
    let batch = [
        settlement(&born[0], Verdict::Succeeded),
        settlement(&born[1], Verdict::Failed),
        settlement(&born[2], Verdict::Retry { delay: HOUR }),
        settlement(&born[3], Verdict::Released),
        settlement(&lost, Verdict::Failed),
    ];
    let first = db.store.settle(me, &batch).await.unwrap();
    assert_eq!(first[4], SettleOutcome::LeaseLost);
    assert_eq!(first[..4], [SettleOutcome::Settled; 4]);
    let before = deliveries(&db.store, &WorkspaceId::default()).await;

    assert_eq!(db.replica.settle(me, &batch).await.unwrap(), first);
    assert_eq!(deliveries(&db.store, &WorkspaceId::default()).await, before);
    for delivery in &born[..3] {
        assert_eq!(attempts_of(&db.store, delivery.id).await.len(), 1);
    }
    assert_eq!(
        record(&db.store, held.id).await.state,
        DeliveryState::InFlight
    );

    // Also when a retry was claimed and is on its way again meanwhile.
    let delay = Duration::ZERO;
    let retried = settlement(&held, Verdict::Retry { delay });
    db.store
        .settle(me, std::slice::from_ref(&retried))
        .await
        .unwrap();
    let on_its_way = claim_all(&db.store, subscription.id, for_long(owner())).await;
    assert!(on_its_way.iter().any(|delivery| delivery.id == held.id));
    assert_eq!(
        db.store.settle(me, &[retried]).await.unwrap(),
        [SettleOutcome::Settled]
    );
    let now = record(&db.store, held.id).await;
    assert_eq!((now.state, now.attempts), (DeliveryState::InFlight, 1));
}

async fn settling_again_with_more_takes_the_rest(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(3), for_long(me)).await;
    let batch: Vec<_> = born
        .iter()
        .map(|delivery| settlement(delivery, Verdict::Succeeded))
        .collect();
    db.store.settle(me, &batch[..1]).await.unwrap();
    assert_eq!(
        db.store.settle(me, &batch).await.unwrap(),
        [SettleOutcome::Settled; 3]
    );
    for delivery in &born {
        assert_eq!(
            record(&db.store, delivery.id).await.state,
            DeliveryState::Succeeded
        );
    }
}

async fn a_settlement_given_twice_in_a_batch_counts_once(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(2), for_long(me)).await;
    let batch = [
        settlement(&born[0], Verdict::Succeeded),
        settlement(&born[0], Verdict::Succeeded),
        settlement(&born[1], Verdict::Retry { delay: HOUR }),
        settlement(&born[1], Verdict::Retry { delay: HOUR }),
    ];
    assert_eq!(
        db.store.settle(me, &batch).await.unwrap(),
        [SettleOutcome::Settled; 4]
    );
    for delivery in &born {
        assert_eq!(record(&db.store, delivery.id).await.attempts, 1);
        assert_eq!(attempts_of(&db.store, delivery.id).await.len(), 1);
    }
}

async fn a_large_batch_is_answered_in_its_order(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    let (me, stranger) = (owner(), owner());
    let batch = events(777);
    let mut mine = accept_leased(&db.store, &batch[..700], for_long(me)).await;
    let others = accept_leased(&db.store, &batch[700..], for_long(stranger)).await;
    // Mixed: every tenth is another's.
    for (number, other) in others.into_iter().enumerate() {
        mine.insert(number * 10, other);
    }
    let settlements: Vec<_> = mine
        .iter()
        .map(|delivery| settlement(delivery, Verdict::Succeeded))
        .collect();
    let outcomes = db.store.settle(me, &settlements).await.unwrap();
    assert_eq!(outcomes.len(), 777);
    for (number, outcome) in outcomes.iter().enumerate() {
        let lost = number % 10 == 0 && number < 770;
        assert_eq!(
            *outcome == SettleOutcome::LeaseLost,
            lost,
            "number {number}"
        );
    }
    let depth = db.store.queue_depth().await.unwrap();
    assert_eq!((depth.pending, depth.in_flight), (0, 77));
}

async fn gone_disables_the_subscription_and_keeps_what_waits(db: &TestDatabase) {
    let here = WorkspaceId::default();
    let gone = subscribe(&db.store, &["*"]).await;
    let other = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(1), for_long(me)).await;
    accept(&db.store, &events(1)).await;
    let refused_for_good = born
        .iter()
        .find(|delivery| delivery.target.id() == gone.id)
        .unwrap();
    assert_eq!(
        settle(&db.store, me, refused_for_good, Verdict::Gone).await,
        SettleOutcome::Settled
    );

    assert_eq!(
        record(&db.store, refused_for_good.id).await.state,
        DeliveryState::Failed
    );
    let now = db
        .replica
        .subscription(&Reach::all(&here), gone.id)
        .await
        .unwrap()
        .unwrap();
    let reason = "the receiver answered 410 Gone".to_owned();
    assert_eq!(now.status, SubscriptionStatus::Disabled { reason });
    assert_eq!(now.version, gone.version + 1);
    let untouched = db
        .store
        .subscription(&Reach::all(&here), other.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(untouched, other);

    for store in [&db.store, &db.replica] {
        assert!(claim_all(store, gone.id, for_long(me)).await.is_empty());
        assert_eq!(
            accept(store, &events(1)).await.pending,
            1,
            "only the other gets new events"
        );
    }
    // The answer was lost, and the admin was quick: coming again does not disable it again.
    let active = super::fixture::set_status(&db.store, &now, SubscriptionStatus::Active).await;
    settle(&db.store, me, refused_for_good, Verdict::Gone).await;
    let still = db
        .store
        .subscription(&Reach::all(&here), gone.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(still, active);
    assert_eq!(
        claim_all(&db.store, gone.id, for_long(me)).await.len(),
        1,
        "what waited is served"
    );
}

async fn gone_under_a_lost_lease_disables_nothing(db: &TestDatabase) {
    let [(lost, first), _] = taken_over(db).await;
    assert_eq!(
        settle(&db.store, first, &lost, Verdict::Gone).await,
        SettleOutcome::LeaseLost
    );
    let subscription = db
        .store
        .subscription(&Reach::all(&WorkspaceId::default()), lost.target.id())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(subscription.status, SubscriptionStatus::Active);
}

async fn a_release_that_is_repeated_spends_nothing(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(1), for_long(me))
        .await
        .remove(0);
    for _ in 0..2 {
        assert_eq!(
            settle(&db.store, me, &born, Verdict::Released).await,
            SettleOutcome::Settled
        );
    }
    assert!(attempts_of(&db.store, born.id).await.is_empty());
    let claimed = claim_all(&db.store, subscription.id, for_long(me)).await;
    assert_eq!((claimed[0].epoch, claimed[0].attempts), (2, 0));
    settle(&db.store, me, &born, Verdict::Released).await;
    assert_eq!(
        record(&db.store, born.id).await.state,
        DeliveryState::InFlight
    );
}

async fn an_outcome_after_a_release_is_that_of_a_lost_lease(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(1), for_long(me))
        .await
        .remove(0);
    settle(&db.store, me, &born, Verdict::Released).await;
    assert_eq!(
        settle(&db.store, me, &born, Verdict::Succeeded).await,
        SettleOutcome::LeaseLost
    );
    assert_eq!(
        record(&db.store, born.id).await.state,
        DeliveryState::Pending
    );
    let kept = attempts_of(&db.store, born.id).await;
    assert_eq!((kept.len(), kept[0].lease_lost), (1, true));
}

async fn settling_in_another_workspace_is_settling_nothing(db: &TestDatabase) {
    subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(1), for_long(me)).await;
    let elsewhere = Settlement {
        workspace: crate::harness::events::workspace("ws_2"),
        attempt: Some(taken()),
        ..settlement(&born[0], Verdict::Released)
    };
    assert_eq!(
        db.store.settle(me, &[elsewhere]).await.unwrap(),
        [SettleOutcome::LeaseLost]
    );
    assert_eq!(
        record(&db.store, born[0].id).await.state,
        DeliveryState::InFlight
    );
}

async fn an_unknown_delivery_is_a_lost_lease(db: &TestDatabase) {
    let unknown = Settlement {
        delivery: forge_dispatch::entropy::Entropy::system().id(SystemClock.now()),
        event: forge_dispatch::entropy::Entropy::system().id(SystemClock.now()),
        subscription: forge_dispatch::entropy::Entropy::system().id(SystemClock.now()),
        version: 1,
        event_type: Some("edition.submitted".parse().unwrap()),
        workspace: WorkspaceId::default(),
        epoch: 1,
        attempts_before: 0,
        gate: None,
        sending: Sending::Usual,
        replaying: None,
        verdict: Verdict::Failed,
        attempt: Some(refused(500)),
    };
    let outcomes = db
        .store
        .settle(owner(), std::slice::from_ref(&unknown))
        .await
        .unwrap();
    assert_eq!(outcomes, [SettleOutcome::LeaseLost]);
    assert_eq!(attempts_of(&db.store, unknown.delivery).await.len(), 1);
    assert_eq!(
        db.store
            .delivery(&Reach::all(&WorkspaceId::default()), unknown.delivery)
            .await
            .unwrap(),
        None
    );
}
