//! From a leased delivery to a settled one.
//!
//! ```text
//! accept (born leased) ─▶ hand_over ─┐
//!                                    ├─▶ attempt ─▶ outcome ─▶ settle (batched) ─▶ store
//! scheduler (due, claim) ────────────┘
//! ```
//!
//! - [`permits`]: the right to have a delivery in flight; what keeps memory and neighbours bounded.
//! - [`scheduler`]: finds due work and claims it, as much as there are permits.
//! - [`attempt`]: signs and sends one delivery.
//! - [`outcome`]: what an answer means; pure.
//! - [`settle`]: writes outcomes in batches.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config;
use crate::domain::delivery::{Lane, Verdict};
use crate::domain::retry::RetrySchedule;
use crate::egress::client::WebhookClient;
use crate::entropy::Entropy;
use crate::health::Health;
use crate::shutdown::Shutdown;
use crate::store::intake::{Intake, Permit};
use crate::store::targets::Target;
use crate::store::{LeasedDelivery, Leasing, Settlement, Store};
use crate::wake::Wake;

pub mod attempt;
pub mod outcome;
pub mod permits;
pub mod scheduler;
pub mod settle;

use permits::Ledger;

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
}

/// The dispatcher. Clones share it; the one that was built first is [`run`](Self::run).
#[derive(Clone)]
pub struct Dispatcher {
    parts: Arc<Parts>,
    ledger: Arc<Ledger>,
    attempts: TaskTracker,
    settlements: mpsc::Sender<Settlement>,
    wake: Arc<Wake>,
    shutdown: Shutdown,
}

/// A part of the dispatcher panicked.
#[derive(Debug, thiserror::Error)]
#[error("dispatch broke: {0}")]
pub struct Broken(#[source] pub JoinError);

/// The end of the settlements' channel, to be given to [`Dispatcher::run`].
pub struct Settlements(mpsc::Receiver<Settlement>);

impl Dispatcher {
    /// Builds it; nothing runs yet, but deliveries can be handed over already.
    pub fn new(parts: Parts, shutdown: Shutdown) -> (Self, Settlements) {
        // Past this mark attempts wait for the settler with their permits in hand, and so nothing
        // new is sent: the way in which a slow database pushes back.
        let high_water = parts.settings.settle_batch * 4;
        let (settlements, receiver) = mpsc::channel(high_water);
        let dispatcher = Self {
            ledger: Arc::new(Ledger::new(&parts.settings)),
            parts: Arc::new(parts),
            attempts: TaskTracker::new(),
            settlements,
            wake: Arc::new(Wake::default()),
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
        let finish = CancellationToken::new();
        let mut settler = tokio::spawn(settle::run(
            Arc::clone(&self.parts),
            Arc::clone(&self.ledger),
            Arc::clone(&self.wake),
            settlements.0,
            finish.clone(),
            self.shutdown.hard.clone(),
        ));
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
        self.ledger.close();
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

    /// Sends leased deliveries of one subscription, one after another, under one permit.
    fn start(&self, run: Vec<LeasedDelivery>, permit: Permit) {
        let parts = Arc::clone(&self.parts);
        let settlements = self.settlements.clone();
        let Shutdown { soft, hard } = self.shutdown.clone();
        self.attempts.spawn(async move {
            let sending = async {
                let mut left = RUN_BUDGET;
                for delivery in &run {
                    let settlement = if left.is_zero() || soft.is_cancelled() {
                        Settlement::of(delivery, Verdict::Released, None)
                    } else {
                        attempt::run(&parts, delivery).await
                    };
                    left = left.saturating_sub(spent(&settlement));
                    // Only a settler that is gone refuses; then the lease runs out.
                    drop(settlements.send(settlement).await);
                }
            };
            tokio::select! {
                () = sending => {}
                () = hard.cancelled() => {}
            }
            drop(permit);
        });
    }
}

/// How long a run goes on before it gives back what is left of it: behind a receiver that is slow,
/// deliveries wait for a permit of their own in the queue, not for each other in memory.
const RUN_BUDGET: Duration = Duration::from_millis(250);

/// What a settlement takes off its run's budget: the attempt's time, or all of it where nothing
/// more is to be sent.
fn spent(settlement: &Settlement) -> Duration {
    match &settlement.attempt {
        Some(attempt) if settlement.verdict != Verdict::Gone => attempt.duration,
        _ => RUN_BUDGET,
    }
}

impl Intake for Dispatcher {
    fn admit(&self, target: &Target, bytes: usize) -> Option<Permit> {
        self.ledger
            .admit(target, Lane::Fresh, bytes)
            .map(Permit::new)
    }

    fn hand_over(&self, leased: Vec<(LeasedDelivery, Permit)>) {
        for (delivery, permit) in leased {
            self.start(vec![delivery], permit);
        }
    }

    fn left_waiting(&self) {
        self.wake.ring();
    }
}
