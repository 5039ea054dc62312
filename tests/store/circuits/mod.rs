//! Receivers that fail are left alone.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::domain::circuit::{CircuitRules, CircuitState};
use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::ids::{OwnerId, SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::subscription::{
    Subscription, SubscriptionSpec, SubscriptionStatus, TargetUrl,
};
use forge_dispatch::store::{LeasedDelivery, Settlement, Store};

use super::fixture::{
    HOUR, Permits, accept, accept_leased, claim_all, disable, for_long, owner, set_status, settle,
    settlement, subscribe,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{act, events};

mod changed;
mod crosswise;
mod probes;

on_both_databases!(
    a_receiver_that_fails_is_left_alone_by_every_replica,
    nothing_is_born_leased_to_a_receiver_that_is_left_alone,
    nothing_is_remembered_where_no_rules_were_said,
    nothing_is_remembered_of_a_receiver_that_takes_everything,
    failures_are_forgotten_when_they_are_over,
    a_settle_that_is_repeated_counts_once,
    an_outcome_under_a_lost_lease_tells_nothing,
    successes_of_one_replica_end_a_row_of_failures_at_another,
    nothing_but_failures_for_long_disables,
    gone_leaves_no_circuit_behind,
    another_address_or_enabling_again_closes_it,
    replicas_that_note_failures_at_once_lose_none,
);

fn rules() -> CircuitRules {
    CircuitRules {
        failures_in_row: 3,
        least_attempts: 1_000,
        window: HOUR,
        first_pause: HOUR,
        longest_pause: 3 * HOUR,
        ramp: HOUR,
        ..CircuitRules::default()
    }
}

/// Lets both handles judge by these rules.
fn judge(db: &TestDatabase, rules: &CircuitRules) {
    db.store.judge_receivers(rules.clone());
    db.replica.judge_receivers(rules.clone());
}

const RETRY: Verdict = Verdict::Retry { delay: HOUR };

/// Settles them all so, in one batch.
async fn settle_all(
    store: &Arc<dyn Store>,
    owner: OwnerId,
    deliveries: &[LeasedDelivery],
    verdict: &Verdict,
) {
    let batch: Vec<Settlement> = deliveries
        .iter()
        .map(|delivery| settlement(delivery, verdict.clone()))
        .collect();
    store.settle(owner, &batch).await.unwrap();
}

/// A subscription whose circuit is open, with so many fresh deliveries waiting.
async fn open_with(db: &TestDatabase, rules: &CircuitRules, waiting: usize) -> Subscription {
    judge(db, rules);
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(3), for_long(me)).await;
    settle_all(&db.store, me, &born, &RETRY).await;
    accept(&db.store, &events(waiting)).await;
    subscription
}

async fn reread(store: &Arc<dyn Store>, id: SubscriptionId) -> Subscription {
    let reach = Reach::all(&WorkspaceId::default());
    store.subscription(&reach, id).await.unwrap().unwrap()
}

async fn circuit(store: &Arc<dyn Store>, id: SubscriptionId) -> CircuitState {
    reread(store, id).await.circuit
}

fn is_open(circuit: CircuitState) -> bool {
    circuit.open_until().is_some()
}

async fn a_receiver_that_fails_is_left_alone_by_every_replica(db: &TestDatabase) {
    judge(db, &rules());
    let failing = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(3), for_long(me)).await;
    settle_all(&db.store, me, &born[..2], &RETRY).await;
    assert_eq!(
        circuit(&db.replica, failing.id).await,
        CircuitState::Watched
    );
    settle_all(&db.store, me, &born[2..], &RETRY).await;

    assert!(is_open(circuit(&db.replica, failing.id).await));
    assert!(
        is_open(db.store.circuit(failing.id)),
        "who settled knows at once"
    );
    let healthy = subscribe(&db.store, &["*"]).await;
    accept(&db.store, &events(2)).await;
    for store in [&db.store, &db.replica] {
        let due = store.due(Duration::ZERO).await.unwrap();
        let work: Vec<_> = due.work.iter().map(|(target, _)| target.id()).collect();
        assert_eq!(work, [healthy.id]);
        let next_in = due.next_in.expect("the probe's time, or the retries'");
        assert!(next_in <= HOUR && next_in > HOUR / 2, "{next_in:?}");
        assert!(is_open(store.circuit(failing.id)), "who looked knows");
        assert_eq!(store.open_circuits(), 1);
        assert!(claim_all(store, failing.id, for_long(me)).await.is_empty());
    }
    assert_eq!(
        claim_all(&db.store, healthy.id, for_long(me)).await.len(),
        2
    );
    let version = reread(&db.store, failing.id).await.version;
    assert_eq!(
        version, failing.version,
        "an admin's change is not hindered"
    );
}

async fn nothing_is_born_leased_to_a_receiver_that_is_left_alone(db: &TestDatabase) {
    open_with(db, &rules(), 0).await;
    for store in [&db.store, &db.replica] {
        let permits = Permits::of(10);
        let accepted = store
            .accept(&events(2), for_long(owner()), &permits)
            .await
            .unwrap();
        assert_eq!((accepted.leased.len(), accepted.pending), (0, 2));
        assert!(permits.asked.lock().unwrap().is_empty());
    }
}

async fn nothing_is_remembered_where_no_rules_were_said(db: &TestDatabase) {
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(20), for_long(me)).await;
    settle_all(&db.store, me, &born, &RETRY).await;
    assert_eq!(
        circuit(&db.store, subscription.id).await,
        CircuitState::Closed
    );
    assert_eq!(db.count("circuit").await, 0);
}

async fn nothing_is_remembered_of_a_receiver_that_takes_everything(db: &TestDatabase) {
    judge(db, &rules());
    subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(4), for_long(me)).await;
    settle_all(&db.store, me, &born[..3], &Verdict::Succeeded).await;
    settle_all(&db.store, me, &born[3..], &Verdict::Released).await;
    assert_eq!(db.count("circuit").await, 0);
}

async fn failures_are_forgotten_when_they_are_over(db: &TestDatabase) {
    let rules = CircuitRules {
        window: Duration::ZERO,
        ..rules()
    };
    judge(db, &rules);
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(2), for_long(me)).await;
    settle(&db.store, me, &born[0], RETRY).await;
    assert_eq!(
        circuit(&db.store, subscription.id).await,
        CircuitState::Watched
    );
    settle(&db.store, me, &born[1], Verdict::Succeeded).await;
    assert_eq!(
        circuit(&db.replica, subscription.id).await,
        CircuitState::Closed
    );
    assert_eq!(db.store.circuit(subscription.id), CircuitState::Closed);
    assert_eq!(db.count("circuit").await, 0);
}

async fn a_settle_that_is_repeated_counts_once(db: &TestDatabase) {
    judge(db, &rules());
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(3), for_long(me)).await;
    for store in [&db.store, &db.replica, &db.store] {
        settle_all(store, me, &born[..2], &RETRY).await;
    }
    // Twice in a batch, and together with one that is new.
    let twice = [&born[..2], &born[1..2]].concat();
    settle_all(&db.store, me, &twice, &RETRY).await;
    assert_eq!(
        circuit(&db.store, subscription.id).await,
        CircuitState::Watched
    );
    settle_all(&db.store, me, &born, &RETRY).await;
    assert!(
        is_open(circuit(&db.store, subscription.id).await),
        "three failures by now"
    );
}

async fn an_outcome_under_a_lost_lease_tells_nothing(db: &TestDatabase) {
    judge(db, &rules());
    subscribe(&db.store, &["*"]).await;
    let born = accept_leased(&db.store, &events(5), for_long(owner())).await;
    settle_all(&db.store, owner(), &born, &RETRY).await;
    settle_all(&db.store, owner(), &born, &Verdict::Gone).await;
    assert_eq!(db.count("circuit").await, 0);
}

async fn successes_of_one_replica_end_a_row_of_failures_at_another(db: &TestDatabase) {
    judge(db, &rules());
    let subscription = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(5), for_long(me)).await;
    settle_all(&db.store, me, &born[..2], &RETRY).await;
    // It learns that something is remembered when it looks what is due.
    db.replica.due(Duration::ZERO).await.unwrap();
    settle_all(&db.replica, me, &born[2..3], &Verdict::Succeeded).await;
    settle_all(&db.store, me, &born[3..], &RETRY).await;
    assert_eq!(
        circuit(&db.store, subscription.id).await,
        CircuitState::Watched
    );
}

async fn nothing_but_failures_for_long_disables(db: &TestDatabase) {
    let rules = CircuitRules {
        failures_in_row: 1,
        disable_after: Duration::ZERO,
        ..rules()
    };
    judge(db, &rules);
    let subscription = subscribe(&db.store, &["*"]).await;
    let other = subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(2), for_long(me)).await;
    let (of_it, of_other): (Vec<_>, Vec<_>) = born
        .into_iter()
        .partition(|delivery| delivery.target.id() == subscription.id);
    settle(&db.store, me, &of_it[0], RETRY).await;
    settle(&db.store, me, &of_other[0], Verdict::Succeeded).await;
    let now = reread(&db.replica, subscription.id).await;
    let reason = now.status.reason().expect("it is disabled");
    assert!(
        reason.starts_with("nothing but failures since 20"),
        "{reason}"
    );
    assert_eq!(now.version, subscription.version + 1);
    assert_eq!(
        reread(&db.store, other.id).await.status,
        SubscriptionStatus::Active
    );
    // What was under way by then changes nothing any more.
    settle(&db.store, me, &of_it[1], RETRY).await;
    assert_eq!(reread(&db.store, subscription.id).await, now);
    assert_eq!(db.count("circuit").await, 0);
}

async fn gone_leaves_no_circuit_behind(db: &TestDatabase) {
    judge(db, &rules());
    subscribe(&db.store, &["*"]).await;
    let me = owner();
    let born = accept_leased(&db.store, &events(3), for_long(me)).await;
    settle(&db.store, me, &born[0], RETRY).await;
    let batch = [
        settlement(&born[1], RETRY),
        settlement(&born[2], Verdict::Gone),
    ];
    db.store.settle(me, &batch).await.unwrap();
    assert_eq!(db.count("circuit").await, 0);
}

async fn another_address_or_enabling_again_closes_it(db: &TestDatabase) {
    let subscription = open_with(db, &rules(), 2).await;
    let mut spec = subscription.spec.clone();
    let update = async |spec: &SubscriptionSpec| {
        let found = reread(&db.store, subscription.id).await;
        let (reach, status) = (Reach::all(&found.workspace), SubscriptionStatus::Active);
        let updated = db
            .replica
            .update_subscription(&reach, found.id, found.version, spec, &status, &act())
            .await;
        updated.unwrap().unwrap().circuit
    };
    "the same receiver".clone_into(&mut spec.description);
    assert!(is_open(update(&spec).await));
    spec.url = TargetUrl::new("https://another.example/").unwrap();
    assert_eq!(update(&spec).await, CircuitState::Closed);
    let me = owner();
    let claimed = claim_all(&db.store, subscription.id, for_long(me)).await;
    assert_eq!(claimed.len(), 2);

    settle_all(&db.store, me, &claimed, &RETRY).await;
    let born = accept_leased(&db.store, &events(1), for_long(me)).await;
    settle_all(&db.store, me, &born, &RETRY).await;
    let open = reread(&db.store, subscription.id).await;
    assert!(is_open(open.circuit));
    let disabled = disable(&db.store, &open).await;
    assert_eq!(disabled.circuit, CircuitState::Closed);
    let enabled = set_status(&db.store, &disabled, SubscriptionStatus::Active).await;
    assert_eq!(enabled.circuit, CircuitState::Closed);
    assert_eq!(db.count("circuit").await, 0);
}

async fn replicas_that_note_failures_at_once_lose_none(db: &TestDatabase) {
    const EACH: usize = 40;
    let rules = CircuitRules {
        failures_in_row: u32::try_from(2 * EACH).unwrap(),
        ..rules()
    };
    judge(db, &rules);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(subscribe(&db.store, &["*"]).await.id);
    }
    let me = owner();
    let born = accept_leased(&db.store, &events(2 * EACH), for_long(me)).await;
    let last = born.last().unwrap().clone();
    let (first, second) = born[..born.len() - 1].split_at(born.len() / 2);
    let work = [(&db.store, first), (&db.replica, second)].map(|(store, part)| {
        let (store, part) = (Arc::clone(store), part.to_vec());
        tokio::spawn(async move {
            for batch in part.chunks(10) {
                settle_all(&store, me, batch, &RETRY).await;
            }
        })
    });
    for each in work {
        each.await.unwrap();
    }
    let open = async || {
        let mut open = 0;
        for id in &ids {
            open += usize::from(is_open(circuit(&db.store, *id).await));
        }
        open
    };
    assert_eq!(
        open().await,
        3,
        "one failure of the fourth is still to come"
    );
    settle(&db.replica, me, &last, RETRY).await;
    assert_eq!(open().await, 4);
}
