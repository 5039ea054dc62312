//! Any history against a model: an edition's deliveries are a queue of which the first may be sent.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use forge_dispatch::domain::delivery::{Lane, Verdict};
use forge_dispatch::domain::ids::{DeliveryId, OwnerId, SubscriptionId};
use forge_dispatch::domain::replay::{Refusal, Was};
use forge_dispatch::domain::selection::Selection;
use forge_dispatch::store::{LeasedDelivery, Leasing, SettleOutcome};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRng, TestRunner};
use tokio::runtime::Handle;

use super::super::bulk_replay::{begin, finish, put_into_queue};
use super::super::fixture::{HOUR, Permits, claim_all, owner, settle};
use super::{check, here, of, ordered};
use crate::harness::databases::TestDatabase;
use crate::harness::events::act;

on_both_databases!(any_history_keeps_each_edition_in_order);

const EDITIONS: [&str; 3] = ["ed_1", "ed_2", "ed_3"];

/// Something that happens.
#[derive(Clone, Debug)]
enum Act {
    /// Events of these editions come, born leased if there is room.
    Accept { editions: Vec<usize>, room: bool },
    /// All that is due is leased, for long or for no time.
    Claim { lasts: bool },
    /// One of the leases ends so.
    Settle { which: usize, ending: Ending },
    /// One of those that were settled is replayed.
    Replay { which: usize },
    /// One that waits its turn is to be sent now.
    Hurry { edition: usize },
    /// All that failed is replayed, and that is taken back.
    Withdraw,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    Succeeded,
    Failed,
    Again,
    Later,
    Released,
}

fn history() -> impl Strategy<Value = Vec<Act>> {
    let editions = prop::collection::vec(0..EDITIONS.len(), 1..5);
    let ending = prop_oneof![
        4 => Just(Ending::Succeeded),
        2 => Just(Ending::Failed),
        2 => Just(Ending::Again),
        1 => Just(Ending::Later),
        1 => Just(Ending::Released),
    ];
    let act = prop_oneof![
        3 => (editions, any::<bool>()).prop_map(|(editions, room)| Act::Accept { editions, room }),
        3 => prop::bool::weighted(0.8).prop_map(|lasts| Act::Claim { lasts }),
        6 => (any::<usize>(), ending).prop_map(|(which, ending)| Act::Settle { which, ending }),
        2 => any::<usize>().prop_map(|which| Act::Replay { which }),
        1 => (0..EDITIONS.len()).prop_map(|edition| Act::Hurry { edition }),
        1 => Just(Act::Withdraw),
    ];
    prop::collection::vec(act, 1..40)
}

/// A delivery at its gate.
#[derive(Debug)]
struct Waiting {
    id: DeliveryId,
    was: Option<Was>,
    /// The lease that it is under.
    lease: Option<(OwnerId, i32)>,
    /// Whether a claim may have it, once nobody is before it.
    due: bool,
}

struct Lease {
    delivery: LeasedDelivery,
    owner: OwnerId,
}

#[derive(Debug)]
struct Settled {
    id: DeliveryId,
    edition: String,
    was: Was,
}

struct Model<'a> {
    db: &'a TestDatabase,
    subscription: SubscriptionId,
    gates: BTreeMap<String, VecDeque<Waiting>>,
    leases: Vec<Lease>,
    settled: Vec<Settled>,
}

async fn any_history_keeps_each_edition_in_order(db: &TestDatabase) {
    let config = ProptestConfig {
        cases: 12,
        max_shrink_iters: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    // The same histories each time: what is sought is a fault, not luck.
    let random = TestRng::deterministic_rng(config.rng_algorithm);
    let mut runner = TestRunner::new_with_rng(config, random);
    let outcome = tokio::task::block_in_place(|| {
        runner.run(&history(), |acts| {
            Handle::current().block_on(live(db, acts));
            Ok::<(), TestCaseError>(())
        })
    });
    outcome.unwrap();
}

async fn live(db: &TestDatabase, acts: Vec<Act>) {
    let mut model = Model {
        db,
        subscription: ordered(db).await.id,
        gates: BTreeMap::new(),
        leases: Vec::new(),
        settled: Vec::new(),
    };
    for act in acts {
        let what = format!("{act:?}");
        model.act(act).await;
        check(db, &what).await;
    }
    model.go().await;
}

impl Model<'_> {
    async fn act(&mut self, act: Act) {
        match act {
            Act::Accept { editions, room } => self.accept(&editions, room).await,
            Act::Claim { lasts } => self.claim(if lasts { HOUR } else { Duration::ZERO }).await,
            Act::Settle { which, ending } => self.settle(which, ending).await,
            Act::Replay { which } => self.replay(which).await,
            Act::Hurry { edition } => self.hurry(EDITIONS[edition]).await,
            Act::Withdraw => self.withdraw().await,
        }
    }

    async fn accept(&mut self, editions: &[usize], room: bool) {
        let batch: Vec<_> = editions
            .iter()
            .flat_map(|edition| of(EDITIONS[*edition], 1))
            .collect();
        let me = owner();
        let leasing = Leasing {
            owner: me,
            lease: HOUR,
        };
        let permits = Permits::of(if room { usize::MAX } else { 0 });
        let born = self.db.store.accept(&batch, leasing, &permits).await;
        let born = born.unwrap();
        let mut heads = 0;
        let mut leased = born.leased.into_iter().map(|(leased, _)| leased).peekable();
        let all = super::super::fixture::deliveries(&self.db.store, &here().workspace).await;
        for payload in &batch {
            let event = payload.event();
            let made = all
                .iter()
                .find(|one| one.event_id == event.id && one.subscription_id == self.subscription);
            let id = made.expect("it has a delivery").id;
            let edition = event.edition.as_ref().unwrap().to_string();
            let gate = self.gates.entry(edition).or_default();
            let is_head = gate.is_empty();
            heads += usize::from(is_head);
            let lease = leased.next_if(|leased| leased.id == id).map(|delivery| {
                let lease = (me, delivery.epoch);
                self.leases.push(Lease {
                    delivery,
                    owner: me,
                });
                lease
            });
            assert_eq!(lease.is_some(), room && is_head, "a head is born leased");
            gate.push_back(Waiting {
                id,
                was: None,
                lease,
                due: lease.is_none(),
            });
        }
        // (Other subscriptions, of histories before this one, are gone or take theirs as well.)
        assert!(leased.next().is_none(), "nobody else is");
        assert_eq!(born.pending, if room { 0 } else { heads });
    }

    /// What may be sent now: the heads that wait for nothing.
    fn due(&self) -> Vec<DeliveryId> {
        let heads = self.gates.values().filter_map(VecDeque::front);
        let mut due: Vec<_> = heads.filter(|head| head.due).map(|head| head.id).collect();
        due.sort_unstable();
        due
    }

    async fn claim(&mut self, lease: Duration) {
        let me = owner();
        let expected = self.due();
        let leasing = Leasing { owner: me, lease };
        // In one go over all lanes: a lease of no time is over at once, and is not to be taken twice.
        let mut claimed = claim_all(&self.db.replica, self.subscription, leasing).await;
        claimed.sort_unstable_by_key(|one| one.id);
        let ids: Vec<_> = claimed.iter().map(|one| one.id).collect();
        assert_eq!(ids, expected, "the heads that are due, and nobody else");
        for delivery in claimed {
            let edition = delivery.gate.as_ref().unwrap().to_string();
            let head = self.gates.get_mut(&edition).unwrap().front_mut().unwrap();
            head.lease = Some((me, delivery.epoch));
            head.due = lease.is_zero();
            self.leases.push(Lease {
                delivery,
                owner: me,
            });
        }
    }

    async fn settle(&mut self, which: usize, ending: Ending) {
        if self.leases.is_empty() {
            return;
        }
        let lease = self.leases.swap_remove(which % self.leases.len());
        let edition = lease.delivery.gate.as_ref().unwrap().to_string();
        let gate = self.gates.get_mut(&edition).unwrap();
        let holds = gate.front().is_some_and(|head| {
            head.id == lease.delivery.id && head.lease == Some((lease.owner, lease.delivery.epoch))
        });
        let is_repeat = lease.delivery.replaying.map(|it| it.was) == Some(Was::Succeeded);
        let verdict = match ending {
            Ending::Released => Verdict::Released,
            Ending::Succeeded => Verdict::Succeeded,
            _ if is_repeat => Verdict::Repeated,
            Ending::Failed => Verdict::Failed,
            Ending::Again => Verdict::Retry {
                delay: Duration::ZERO,
            },
            Ending::Later => Verdict::Retry { delay: HOUR },
        };
        let ends = verdict.state().is_final();
        let outcome = settle(&self.db.store, lease.owner, &lease.delivery, verdict).await;
        if !holds {
            assert_eq!(outcome, SettleOutcome::LeaseLost);
            return;
        }
        if !ends {
            assert_eq!(outcome, SettleOutcome::Settled);
            let head = gate.front_mut().unwrap();
            head.lease = None;
            head.due = ending != Ending::Later;
            if ending != Ending::Released {
                head.was = None;
            }
            return;
        }
        let head = gate.pop_front().unwrap();
        let was = match (is_repeat, ending) {
            (false, Ending::Failed) => Was::Failed,
            _ => Was::Succeeded,
        };
        self.settled.push(Settled {
            id: head.id,
            edition,
            was,
        });
        let expected = match gate.front() {
            None => SettleOutcome::Settled,
            Some(next) if next.was.is_some() => SettleOutcome::MadeWay(Lane::Replay),
            Some(_) => SettleOutcome::MadeWay(Lane::Fresh),
        };
        assert_eq!(outcome, expected);
    }

    async fn replay(&mut self, which: usize) {
        if self.settled.is_empty() {
            return;
        }
        let one = self.settled.swap_remove(which % self.settled.len());
        let answer = self.db.store.replay_delivery(&here(), one.id, &act()).await;
        assert_eq!(answer.unwrap(), Some(Ok(one.was)));
        self.gates
            .entry(one.edition)
            .or_default()
            .push_back(Waiting {
                id: one.id,
                was: Some(one.was),
                lease: None,
                due: true,
            });
    }

    async fn hurry(&mut self, edition: &str) {
        let Some(waiting) = self.gates.get(edition).and_then(|gate| gate.get(1)) else {
            return;
        };
        let answer = self
            .db
            .store
            .replay_delivery(&here(), waiting.id, &act())
            .await;
        let refusal = match waiting.was {
            None => Refusal::WaitsItsTurn,
            Some(_) => Refusal::AlreadyReplaying,
        };
        assert_eq!(answer.unwrap(), Some(Err(refusal)));
    }

    async fn withdraw(&mut self) {
        let selection = Selection {
            subscription_id: Some(self.subscription),
            ..Selection::default()
        };
        let many = begin(self.db, selection).await;
        put_into_queue(self.db, &many).await;
        check(self.db, "all that failed is replayed").await;
        let cancelled = self
            .db
            .replica
            .cancel_replay(&here(), many.id, &act())
            .await;
        cancelled.unwrap().unwrap();
        finish(self.db, &many).await;
    }

    /// Ends this history: the next one is not to meet it.
    async fn go(self) {
        let store = &self.db.store;
        store
            .delete_subscription(&here(), self.subscription, None, &act())
            .await
            .unwrap();
    }
}
