//! From a leased delivery to a settled one.
//!
//! ```text
//! accept (born leased) ─▶ hand_over ─┐
//!                                    ├─▶ lines ─▶ attempt ─▶ outcome ─▶ settle (batched) ─▶ store
//! scheduler (due, claim) ────────────┘
//! ```
//!
//! - [`lines`]: leased deliveries in memory, and whose turn it is.
//! - [`permits`]: how slots, rooms and bytes are shared; what keeps memory and neighbours bounded.
//! - [`scheduler`]: finds due work and claims it, as much as there is room for.
//! - `tips`: work that is known of without a look. `turns`: whose is claimed next.
//! - `presence`: how many processes share limits.
//! - [`attempt`]: signs and sends one delivery.
//! - [`outcome`]: what an answer means; pure.
//! - [`settle`]: writes outcomes in batches.
//! - `traced`: the span of an attempt.
//! - `test_send`: a `ping` to one subscription, out of turn.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config;
use crate::domain::delivery::{Lane, Sending, Verdict};
use crate::domain::ids::SubscriptionId;
use crate::domain::retry::RetrySchedule;
use crate::egress::client::WebhookClient;
use crate::entropy::Entropy;
use crate::health::Health;
use crate::shutdown::Shutdown;
use crate::store::intake::{Intake, Permit};
use crate::store::targets::Target;
use crate::store::{LeasedDelivery, Leasing, Settlement, Store};
use crate::telemetry::Tracer;
use crate::wake::Wake;
pub use test_send::Tester;

pub mod attempt;
pub mod lines;
pub mod outcome;
mod permits;
mod presence;
pub mod scheduler;
pub mod settle;
mod test_send;
mod tips;
mod traced;
mod turns;

use lines::{Flight, Lines};
use tips::Tips;

/// What the dispatcher is built of.
pub struct Parts {
    /// Where deliveries come from and outcomes go.
    pub store: Arc<dyn Store>,
    /// What sends.
    pub client: Arc<WebhookClient>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub entropy: Entropy,
    /// Where trouble is told.
    pub health: Arc<Health>,
    /// Under whose name leases are taken.
    pub leasing: Leasing,
    /// Limits.
    pub settings: config::Dispatch,
    /// For subscriptions without a schedule of their own.
    pub schedule: RetrySchedule,
    /// How long one attempt may take.
    pub attempt_timeout: Duration,
    /// Tells of attempts.
    pub tracer: Tracer,
}

/// The dispatcher. Clones share it; the one that was built first is [`run`](Self::run).
#[derive(Clone)]
pub struct Dispatcher {
    parts: Arc<Parts>,
    lines: Arc<Lines>,
    attempts: TaskTracker,
    settlements: mpsc::Sender<Settlement>,
    /// Rung when there may be work of which nothing more is known.
    wake: Arc<Wake>,
    tips: Arc<Tips>,
    shutdown: Shutdown,
}

/// A part of the dispatcher panicked.
#[derive(Debug, thiserror::Error)]
#[error("dispatch broke: {0}")]
pub struct Broken(#[source] pub JoinError);

/// The end of the settlements' channel, to be given to [`Dispatcher::run`].
pub struct Settlements(mpsc::Receiver<Settlement>);

impl Dispatcher {
    /// Builds it; nothing runs yet, and what is accepted meanwhile waits in the queue.
    pub fn new(parts: Parts, shutdown: Shutdown) -> (Self, Settlements) {
        // Past this mark attempts wait for the settler with their slots in hand, and so nothing
        // new is sent: the way in which a slow database pushes back. One batch is held while another
        // is written, and an outcome may hold 32 KiB of its receiver's answer.
        let high_water = parts.settings.settle_batch;
        let (settlements, receiver) = mpsc::channel(high_water);
        let lines = Arc::new(Lines::new(&parts.settings));
        // Until it runs nothing is leased to it: a process that is told to stop before that would
        // send what it was given, with nobody there to write that it was sent.
        lines.suspend();
        attempt::begin_at_zero();
        let dispatcher = Self {
            lines,
            parts: Arc::new(parts),
            attempts: TaskTracker::new(),
            settlements,
            wake: Arc::new(Wake::default()),
            tips: Arc::new(Tips::default()),
            shutdown,
        };
        (dispatcher, Settlements(receiver))
    }

    /// Runs until the soft token, then drains: no new claims, attempts in flight end, outcomes are
    /// written. The hard token drops what is left; its leases run out and another run takes it over.
    ///
    /// An error means that a part of it broke: nothing may go on then, since what is sent would not
    /// be written.
    pub async fn run(self, settlements: Settlements) -> Result<(), Broken> {
        self.lines.resume();
        let finish = CancellationToken::new();
        let settler = settle::Settler {
            parts: Arc::clone(&self.parts),
            lines: Arc::clone(&self.lines),
            wake: Arc::clone(&self.wake),
            tips: Arc::clone(&self.tips),
        };
        let hard = self.shutdown.hard.clone();
        let mut settler = tokio::spawn(settler.run(settlements.0, finish.clone(), hard));
        let listening = async {
            self.parts.store.listen(Arc::clone(&self.wake)).await;
            // A closed store: the scheduler finds out by itself.
            std::future::pending::<()>().await;
        };
        let outcome = tokio::select! {
            () = scheduler::run(&self) => Ok(()),
            () = listening => Ok(()),
            ended = &mut settler => ended.map_err(Broken),
        };
        self.lines.close();
        outcome?;
        self.attempts.close();
        tracing::info!(in_flight = self.attempts.len(), "draining");
        let drained = async {
            self.attempts.wait().await;
            finish.cancel();
            (&mut settler).await.map_err(Broken)
        };
        tokio::select! {
            // The hard token first: after it the settler is gone and must not be waited for.
            biased;
            () = self.shutdown.hard.cancelled() => {
                tracing::warn!(left = self.attempts.len(), "dropped; will be sent again");
                Ok(())
            }
            drained = drained => drained,
        }
    }

    /// Takes leased deliveries into their lines and sends what may be sent now.
    fn start(&self, leased: impl IntoIterator<Item = (LeasedDelivery, Permit)>) {
        self.lines.push(leased);
        self.launch();
    }

    /// Starts all that may be sent now.
    fn launch(&self) {
        while let Some(flight) = self.lines.next() {
            let dispatcher = self.clone();
            self.attempts.spawn(async move {
                tokio::select! {
                    () = dispatcher.fly(flight) => {}
                    () = dispatcher.shutdown.hard.cancelled() => {}
                }
            });
        }
    }

    /// Sends one delivery after another, for as long as there are any that may be sent.
    async fn fly(&self, flight: Flight) {
        let mut next = Some(flight);
        while let Some(flight) = next {
            let settlement = self.attempt(&flight).await;
            // Only a settler that is gone refuses; then the lease runs out.
            drop(self.settlements.send(settlement).await);
            next = self.lines.finish(flight);
            // What ended may have made way for more than one.
            self.launch();
        }
    }

    async fn attempt(&self, flight: &Flight) -> Settlement {
        let delivery = &flight.delivery;
        if flight.since.elapsed() > LONGEST_WAIT {
            self.lines.shorten(delivery);
        } else if !self.shutdown.soft.is_cancelled() && self.may_be_sent(delivery) {
            return attempt::run(&self.parts, delivery).await;
        }
        Settlement::of(delivery, Verdict::Released, None)
    }
}

impl Dispatcher {
    /// Whether its subscription is still what it was when it was leased, and its receiver not left alone
    /// since. Otherwise it waits in the queue, and no attempt is spent; a claim, which reads the same
    /// memory or newer, leases it again for what the subscription is then.
    fn may_be_sent(&self, delivery: &LeasedDelivery) -> bool {
        let leased_for = &delivery.target.subscription;
        let Some(held) = self.parts.store.held(leased_for.id) else {
            return false;
        };
        // Of a receiver that is just back, what was leased before it went away has taken none of the
        // tokens by which its rate grows.
        let recovering_since = held.subscription.circuit.recovering_since();
        let is_left_alone = held.subscription.circuit.open_until().is_some()
            || recovering_since.is_some()
                && leased_for.circuit.recovering_since() != recovering_since;
        held.subscription.version == leased_for.version
            && (!is_left_alone || delivery.sending != Sending::Usual)
    }
}

/// How long a delivery waits for its turn in memory before it is given back: behind a receiver that
/// is slow, deliveries wait in the queue, where any replica can have them.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

#[async_trait]
impl Intake for Dispatcher {
    async fn relief(&self) {
        self.lines.relief().await;
    }

    fn admit(&self, target: &Target, bytes: usize) -> Option<Permit> {
        self.lines.admit(target, bytes).map(Permit::new)
    }

    fn hand_over(&self, leased: Vec<(LeasedDelivery, Permit)>) {
        self.start(leased);
    }

    fn left_waiting(&self, of: &[SubscriptionId]) {
        // A look or a claim may have been too early to see them: what comes next must not overtake.
        self.lines.fell_behind(of);
        self.tips.tell(of.iter().map(|id| (*id, Lane::Fresh)));
    }

    fn something_is_due(&self) {
        self.wake.ring();
    }
}
