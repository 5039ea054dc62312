//! Random acts against a small model of what a store is: after each act both say the same.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::domain::delivery::{DeliveryState, Lane, Step, Verdict};
use forge_dispatch::domain::ids::{DeliveryId, EventId, OwnerId, SubscriptionId, WorkspaceId};
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::replay::{Refusal, Was};
use forge_dispatch::domain::subscription::{Subscription, SubscriptionStatus};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::{
    AcceptOutcome, Claim, LeasedDelivery, Leasing, SettleOutcome, Settlement, Store,
};

use super::fixture::{
    HOUR, Permits, claim_of, deliveries, disable, owner, set_status, settlement, subscribe,
};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{self, event};

on_both_databases!(
    the_store_is_what_the_model_says_1,
    the_store_is_what_the_model_says_2,
    the_store_is_what_the_model_says_3,
    the_store_is_what_the_model_says_4,
);

const ACTS: usize = 150;

async fn the_store_is_what_the_model_says_1(db: &TestDatabase) {
    run(db, 1).await;
}

async fn the_store_is_what_the_model_says_2(db: &TestDatabase) {
    run(db, 2).await;
}

async fn the_store_is_what_the_model_says_3(db: &TestDatabase) {
    run(db, 3).await;
}

async fn the_store_is_what_the_model_says_4(db: &TestDatabase) {
    run(db, 4).await;
}

async fn run(db: &TestDatabase, seed: u64) {
    let mut model = Model::new(db, seed).await;
    for number in 0..ACTS {
        let act = model.act().await;
        model
            .check(&format!("seed {seed}, act {number}: {act}"))
            .await;
    }
    assert!(
        model.acts_seen.len() >= 8,
        "the acts are mixed: {:?}",
        model.acts_seen
    );
    let finals = model
        .known
        .values()
        .filter(|known| known.state.is_final())
        .count();
    assert!(finals > 10, "something was settled: {finals}");
}

/// A delivery as it should be.
#[derive(Clone, Debug)]
struct Known {
    state: DeliveryState,
    lane: Lane,
    /// Whether a claim may have it, were its subscription active.
    due: bool,
    owner: Option<OwnerId>,
    epoch: i32,
    attempts: u32,
    base: u32,
    /// What it was, where it is being replayed, and whether it was due then.
    replaying: Option<(Was, bool)>,
    lost_leases: u32,
}

impl Known {
    /// In history, and in the queue for one more attempt.
    fn is_repeated(&self) -> bool {
        matches!(self.replaying, Some((Was::Succeeded, _)))
    }

    /// What an outcome makes of it, under a lease that holds.
    fn settle(&mut self, verdict: &Verdict) {
        let was_due = self.replaying.is_some_and(|(_, due)| due);
        let is_repeated = self.is_repeated();
        if !is_repeated {
            self.step(verdict.step());
        }
        self.owner = None;
        self.due = !self.state.is_final() || is_repeated;
        if *verdict == Verdict::Released {
            return;
        }
        self.replaying = None;
        self.lost_leases = 0;
        self.lane = Lane::Retry;
        match verdict {
            Verdict::Retry { delay } => self.due = delay.is_zero(),
            Verdict::Resumed { not_before } => {
                if self.attempts == self.base {
                    self.lane = Lane::Fresh;
                }
                self.base += 1;
                self.due = was_due && not_before.is_zero();
            }
            _ => self.due = false,
        }
        self.attempts += 1;
    }

    fn step(&mut self, step: Step) {
        self.state = self.state.after(step).unwrap();
    }
}

/// A lease that was given out once, and what was settled under it.
struct Lease {
    delivery: LeasedDelivery,
    owner: OwnerId,
    settled: Option<(Settlement, SettleOutcome)>,
}

type Key = (EventId, SubscriptionId);

struct Model<'a> {
    db: &'a TestDatabase,
    random: Entropy,
    owners: [OwnerId; 3],
    subscriptions: Vec<Subscription>,
    deleted: HashSet<SubscriptionId>,
    known: HashMap<Key, Known>,
    leases: Vec<Lease>,
    last_batch: Vec<Arc<Payload>>,
    acts_seen: HashSet<&'static str>,
}

impl<'a> Model<'a> {
    async fn new(db: &'a TestDatabase, seed: u64) -> Self {
        let mut subscriptions = Vec::new();
        for filter in ["*", "edition.*", "output.archived", "*"] {
            subscriptions.push(subscribe(&db.store, &[filter]).await);
        }
        Self {
            db,
            random: Entropy::seeded(seed),
            owners: [owner(), owner(), owner()],
            subscriptions,
            deleted: HashSet::new(),
            known: HashMap::new(),
            leases: Vec::new(),
            last_batch: Vec::new(),
            acts_seen: HashSet::new(),
        }
    }

    fn below(&self, end: usize) -> usize {
        usize::from(u16::from_le_bytes(self.random.bytes())) % end
    }

    /// Either process.
    fn store(&self) -> &'a Arc<dyn Store> {
        [&self.db.store, &self.db.replica][self.below(2)]
    }

    fn leasing(&self) -> Leasing {
        Leasing {
            owner: self.owners[self.below(self.owners.len())],
            lease: [Duration::ZERO, HOUR, HOUR][self.below(3)],
        }
    }

    fn is_active(&self, id: SubscriptionId) -> bool {
        self.subscriptions.iter().any(|subscription| {
            subscription.id == id && subscription.status == SubscriptionStatus::Active
        })
    }

    async fn act(&mut self) -> &'static str {
        let act = match self.below(24) {
            0..=4 => self.accept().await,
            5..=8 => self.claim().await,
            9..=14 => self.settle().await,
            15 => self.settle_again().await,
            16 => self.accept_again().await,
            17 => self.disable_or_enable().await,
            18 => self.delete_or_replace().await,
            19..=22 => self.replay().await,
            _ => self.cancel_orphans().await,
        };
        self.acts_seen.insert(act);
        act
    }

    async fn accept(&mut self) -> &'static str {
        let batch: Vec<_> = (0..=self.below(5))
            .map(|_| {
                let event_type =
                    ["edition.archived", "output.archived", "other.thing"][self.below(3)];
                event().event_type(event_type).build()
            })
            .collect();
        let (leasing, intake) = (self.leasing(), Permits::of(self.below(8)));
        let accepted = self.store().accept(&batch, leasing, &intake).await.unwrap();
        assert!(
            accepted
                .outcomes
                .iter()
                .all(|outcome| *outcome == AcceptOutcome::Stored)
        );

        let mut expected = 0;
        for payload in &batch {
            for subscription in &self.subscriptions {
                if subscription.receives(payload.event()) {
                    expected += 1;
                    let waiting = Known {
                        state: DeliveryState::Pending,
                        lane: Lane::Fresh,
                        due: true,
                        owner: None,
                        epoch: 0,
                        attempts: 0,
                        base: 0,
                        replaying: None,
                        lost_leases: 0,
                    };
                    self.known
                        .insert((payload.event().id, subscription.id), waiting);
                }
            }
        }
        assert_eq!(accepted.leased.len() + accepted.pending, expected);
        for (delivery, _permit) in accepted.leased {
            self.leased(delivery, leasing);
        }
        self.last_batch = batch;
        "accept"
    }

    /// Notes a lease that was given out; the store must have been right to give it.
    fn leased(&mut self, delivery: LeasedDelivery, leasing: Leasing) {
        let key = (delivery.payload.event().id, delivery.target.id());
        let known = self.known.get_mut(&key).unwrap();
        assert!(known.due, "{key:?} was leased too early: {known:?}");
        known.lost_leases += u32::from(known.owner.is_some());
        if !known.is_repeated() {
            known.step(Step::Lease);
        }
        known.epoch += 1;
        known.owner = Some(leasing.owner);
        known.due = leasing.lease.is_zero();
        assert_eq!(
            (
                delivery.epoch,
                delivery.attempts,
                delivery.base,
                delivery.lost_leases,
                delivery.lane,
                delivery.replaying.map(|replaying| replaying.was)
            ),
            (
                known.epoch,
                known.attempts,
                known.base,
                known.lost_leases,
                known.lane,
                known.replaying.map(|(was, _)| was)
            )
        );
        self.leases.push(Lease {
            delivery,
            owner: leasing.owner,
            settled: None,
        });
    }

    /// The answer to the last accept was lost, as far as this process knows.
    async fn accept_again(&mut self) -> &'static str {
        let owner = self.owners[self.below(self.owners.len())];
        let leasing = Leasing { owner, lease: HOUR };
        let intake = Permits::of(self.below(4));
        let again = self
            .store()
            .accept(&self.last_batch, leasing, &intake)
            .await
            .unwrap();
        assert!(
            again
                .outcomes
                .iter()
                .all(|outcome| *outcome == AcceptOutcome::Stored)
        );

        // What is still under its first lease, and that of this process.
        let mut held = HashSet::new();
        for (key, known) in &self.known {
            let again = self
                .last_batch
                .iter()
                .any(|payload| payload.event().id == key.0);
            if again && known.owner == Some(owner) && known.epoch == 1 && self.is_active(key.1) {
                held.insert(*key);
            }
        }
        assert_eq!(again.leased.len() + again.pending, held.len());
        for (delivery, _permit) in again.leased {
            let key = (delivery.payload.event().id, delivery.target.id());
            assert!(held.remove(&key), "{key:?} was not ours");
            assert_eq!((delivery.epoch, delivery.lost_leases), (1, 0));
            self.known.get_mut(&key).unwrap().due = false;
        }
        for given_back in held {
            let known = self.known.get_mut(&given_back).unwrap();
            known.step(Step::Release);
            known.owner = None;
            known.due = true;
        }
        "accept again"
    }

    async fn claim(&mut self) -> &'static str {
        let leasing = self.leasing();
        let lane = Lane::ALL[self.below(3)];
        let wants: Vec<_> = self
            .subscriptions
            .iter()
            .map(|subscription| (subscription.id, self.below(4)))
            .collect();
        let claim = Claim {
            lane,
            wants: wants.clone(),
            ..claim_of(wants[0].0, leasing)
        };
        let claimed = self.store().claim(&claim).await.unwrap();
        for (subscription, wanted) in wants {
            let eligible = self
                .known
                .iter()
                .filter(|((_, id), known)| *id == subscription && known.due && known.lane == lane)
                .count();
            let expected = if self.is_active(subscription) {
                wanted.min(eligible)
            } else {
                0
            };
            let got = claimed
                .iter()
                .filter(|delivery| delivery.target.id() == subscription)
                .count();
            assert_eq!(got, expected, "of {eligible} due");
        }
        for delivery in claimed {
            self.leased(delivery, leasing);
        }
        "claim"
    }

    async fn settle(&mut self) -> &'static str {
        let open: Vec<_> = (0..self.leases.len())
            .filter(|index| self.leases[*index].settled.is_none())
            .collect();
        if open.is_empty() {
            return "nothing to settle";
        }
        let lease = open[self.below(open.len())];
        let verdict = match self.below(9) {
            0..=2 => Verdict::Succeeded,
            3..=4 => Verdict::Retry {
                delay: Duration::ZERO,
            },
            5 => Verdict::Retry { delay: HOUR },
            6 => Verdict::Failed,
            7 => Verdict::Released,
            _ if self.below(6) == 0 => Verdict::Gone,
            _ => Verdict::Succeeded,
        };
        let store = self.store();
        let Lease {
            delivery, owner, ..
        } = &self.leases[lease];
        // What a failed attempt comes to depends on what is replayed.
        let verdict = match (delivery.replaying.map(|it| it.was), verdict) {
            (Some(Was::Pending), Verdict::Retry { delay }) => {
                Verdict::Resumed { not_before: delay }
            }
            (Some(Was::Pending), Verdict::Failed) => Verdict::Resumed {
                not_before: Duration::ZERO,
            },
            (Some(Was::Succeeded), Verdict::Retry { .. } | Verdict::Failed) => Verdict::Repeated,
            (_, verdict) => verdict,
        };
        let settlement = settlement(delivery, verdict.clone());
        let key = (delivery.payload.event().id, delivery.target.id());
        let known = self.known.get_mut(&key).unwrap();
        let held = known.owner == Some(*owner) && known.epoch == delivery.epoch;
        let outcomes = store
            .settle(*owner, std::slice::from_ref(&settlement))
            .await
            .unwrap();
        // Given back already (an accept that came again did it) is as good as given back.
        let given_back = verdict == Verdict::Released
            && known.owner.is_none()
            && (known.state == DeliveryState::Pending || known.is_repeated())
            && known.epoch == delivery.epoch;
        let expected = if held || given_back {
            SettleOutcome::Settled
        } else {
            SettleOutcome::LeaseLost
        };
        assert_eq!(outcomes, [expected], "{verdict:?} of {known:?}");
        self.leases[lease].settled = Some((settlement, expected));
        if held {
            known.settle(&verdict);
            if verdict == Verdict::Gone {
                self.reread(key.1).await;
            }
        }
        "settle"
    }

    async fn replay(&mut self) -> &'static str {
        let records = deliveries(self.store(), &WorkspaceId::default()).await;
        if records.is_empty() {
            return "nothing to replay";
        }
        let record = &records[self.below(records.len())];
        let key = (record.event_id, record.subscription_id);
        let is_active = self.is_active(key.1);
        let known = &self.known[&key];
        let expected = if known.owner.is_some() {
            Err(Refusal::InFlight)
        } else if known.replaying.is_some() {
            Err(Refusal::AlreadyReplaying)
        } else if known.state == DeliveryState::Cancelled {
            Err(Refusal::Cancelled)
        } else if self.deleted.contains(&key.1) {
            Err(Refusal::SubscriptionDeleted)
        } else if is_active {
            Was::of(known.state)
        } else {
            Err(Refusal::SubscriptionDisabled)
        };
        let reach = Reach::all(&WorkspaceId::default());
        let answer = self
            .store()
            .replay_delivery(&reach, record.id, &events::act())
            .await
            .unwrap();
        assert_eq!(answer, Some(expected), "{known:?}");
        let known = self.known.get_mut(&key).unwrap();
        if let Ok(was) = expected {
            known.step(Step::Replay);
            known.lane = Lane::Replay;
            known.replaying = Some((was, known.due));
            known.due = true;
            if was != Was::Pending {
                known.base = known.attempts;
                known.lost_leases = 0;
            }
        }
        "replay"
    }

    /// A subscription changed by the store itself.
    async fn reread(&mut self, id: SubscriptionId) {
        let now = self
            .store()
            .subscription(&Reach::all(&WorkspaceId::default()), id)
            .await
            .unwrap();
        let held = self
            .subscriptions
            .iter_mut()
            .find(|subscription| subscription.id == id);
        if let (Some(now), Some(held)) = (now, held) {
            assert_ne!(now.status, SubscriptionStatus::Active);
            *held = now;
        }
    }

    async fn settle_again(&mut self) -> &'static str {
        let done: Vec<_> = self
            .leases
            .iter()
            .filter_map(|lease| Some((lease.owner, lease.settled.as_ref()?)))
            // A release leaves no trace of its own once the delivery went on.
            .filter(|(_, (settlement, _))| settlement.verdict != Verdict::Released)
            .collect();
        if done.is_empty() {
            return "nothing to settle";
        }
        let (owner, (settlement, outcome)) = done[self.below(done.len())];
        let outcomes = self
            .store()
            .settle(owner, std::slice::from_ref(settlement))
            .await
            .unwrap();
        assert_eq!(outcomes, [*outcome], "again {settlement:?}");
        "settle again"
    }

    async fn disable_or_enable(&mut self) -> &'static str {
        let index = self.below(self.subscriptions.len());
        let subscription = &self.subscriptions[index];
        let store = self.store();
        self.subscriptions[index] = if subscription.status == SubscriptionStatus::Active {
            disable(store, subscription).await
        } else {
            set_status(store, subscription, SubscriptionStatus::Active).await
        };
        "disable or enable"
    }

    async fn delete_or_replace(&mut self) -> &'static str {
        let index = self.below(self.subscriptions.len());
        let gone = &self.subscriptions[index];
        let store = self.store();
        assert!(
            store
                .delete_subscription(&Reach::all(&gone.workspace), gone.id, None, &events::act())
                .await
                .unwrap()
        );
        self.deleted.insert(gone.id);
        self.subscriptions[index] = subscribe(store, &["*"]).await;
        "delete and replace"
    }

    async fn cancel_orphans(&mut self) -> &'static str {
        let cancelled = self
            .store()
            .cancel_orphans(Duration::ZERO, 10_000)
            .await
            .unwrap();
        let mut expected = 0;
        for ((_, subscription), known) in &mut self.known {
            let idle = known.owner.is_none() || known.due;
            let is_queued = !known.state.is_final() || known.is_repeated();
            if self.deleted.contains(subscription) && is_queued && idle {
                if !known.is_repeated() {
                    known.step(Step::Cancel);
                }
                known.replaying = None;
                known.owner = None;
                known.due = false;
                expected += 1;
            }
        }
        assert_eq!(cancelled, expected);
        "cancel orphans"
    }

    /// Every event and matching subscription is in the queue or in history, never in both, in the
    /// state and with the number of attempts that the model says.
    async fn check(&self, after: &str) {
        let records = deliveries(self.store(), &WorkspaceId::default()).await;
        let ids: HashSet<DeliveryId> = records.iter().map(|record| record.id).collect();
        assert_eq!(
            ids.len(),
            records.len(),
            "{after}: in the queue and in history"
        );
        assert_eq!(records.len(), self.known.len(), "{after}");
        for record in records {
            let known = &self.known[&(record.event_id, record.subscription_id)];
            assert_eq!(
                (record.state, record.attempts),
                (known.state, known.attempts),
                "{after}: {known:?}"
            );
        }
    }
}
