//! Short names for what the scenarios do.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::attempt::{Attempt, ErrorClass, Trigger};
use forge_dispatch::domain::delivery::{DeliveryState, Lane, Verdict};
use forge_dispatch::domain::ids::{DeliveryId, OwnerId, SubscriptionId, WorkspaceId};
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::secret::SigningSecret;
use forge_dispatch::domain::subscription::{Subscription, SubscriptionSpec, SubscriptionStatus};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::intake::{Intake, NoDispatch, Permit};
use forge_dispatch::store::targets::Target;
use forge_dispatch::store::{
    Accepted, Claim, DeliveryFilter, DeliveryRecord, LeasedDelivery, Leasing, PageRequest,
    Rotation, SettleOutcome, Settlement, Store,
};

use crate::harness::events::{act, register, registration, spec};

pub(super) const HOUR: Duration = Duration::from_hours(1);

pub(super) fn owner() -> OwnerId {
    Entropy::system().id(SystemClock.now())
}

/// A lease that does not end while the test runs.
pub(super) fn for_long(owner: OwnerId) -> Leasing {
    Leasing { owner, lease: HOUR }
}

/// A lease that is over when it begins.
pub(super) fn for_no_time(owner: OwnerId) -> Leasing {
    Leasing {
        owner,
        lease: Duration::ZERO,
    }
}

/// A dispatcher with so many permits free.
#[derive(Default)]
pub(super) struct Permits {
    free: AtomicUsize,
    /// How often it was asked, and for events of how many bytes.
    pub(super) asked: Mutex<Vec<(SubscriptionId, usize)>>,
    guards: Arc<()>,
}

impl Permits {
    pub(super) fn of(free: usize) -> Self {
        Self {
            free: AtomicUsize::new(free),
            ..Self::default()
        }
    }

    /// How many are held at the moment.
    pub(super) fn held(&self) -> usize {
        Arc::strong_count(&self.guards) - 1
    }
}

impl Intake for Permits {
    fn admit(&self, target: &Target, bytes: usize) -> Option<Permit> {
        self.asked.lock().unwrap().push((target.id(), bytes));
        self.free
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| {
                free.checked_sub(1)
            })
            .ok()
            .map(|_| Permit::new(Arc::clone(&self.guards)))
    }

    fn hand_over(&self, _leased: Vec<(LeasedDelivery, Permit)>) {}

    fn left_waiting(&self, _of: &[SubscriptionId]) {}

    fn something_is_due(&self) {}
}

/// Registers a subscription in workspace `default`.
pub(super) async fn subscribe(store: &Arc<dyn Store>, event_types: &[&str]) -> Subscription {
    subscribe_in(store, &WorkspaceId::default(), spec(event_types)).await
}

pub(super) async fn subscribe_in(
    store: &Arc<dyn Store>,
    workspace: &WorkspaceId,
    spec: SubscriptionSpec,
) -> Subscription {
    register(&**store, &registration(workspace, spec))
        .await
        .unwrap()
}

pub(super) async fn disable(store: &Arc<dyn Store>, subscription: &Subscription) -> Subscription {
    let status = SubscriptionStatus::Disabled {
        reason: "asked for".to_owned(),
    };
    set_status(store, subscription, status).await
}

pub(super) async fn set_status(
    store: &Arc<dyn Store>,
    subscription: &Subscription,
    status: SubscriptionStatus,
) -> Subscription {
    store
        .update_subscription(
            &Reach::all(&subscription.workspace),
            subscription.id,
            subscription.version,
            &subscription.spec,
            &status,
            &act(),
        )
        .await
        .unwrap()
        .unwrap()
}

/// A new secret, and how long the old one signs beside it.
pub(super) fn rotation(overlap: Duration) -> Rotation {
    let entropy = Entropy::system();
    Rotation {
        secret_id: entropy.id(SystemClock.now()),
        secret: SigningSecret::generate(entropy.bytes()),
        overlap,
    }
}

/// Accepts events for nobody in particular: every delivery waits.
pub(super) async fn accept(store: &Arc<dyn Store>, events: &[Arc<Payload>]) -> Accepted {
    store
        .accept(events, for_long(owner()), &NoDispatch)
        .await
        .unwrap()
}

/// Accepts events born leased to `leasing.owner`, all of them.
pub(super) async fn accept_leased(
    store: &Arc<dyn Store>,
    events: &[Arc<Payload>],
    leasing: Leasing,
) -> Vec<LeasedDelivery> {
    let accepted = store
        .accept(events, leasing, &Permits::of(usize::MAX))
        .await
        .unwrap();
    assert_eq!(accepted.pending, 0);
    accepted
        .leased
        .into_iter()
        .map(|(delivery, _permit)| delivery)
        .collect()
}

/// A claim on one subscription's fresh deliveries, without grace or limit.
pub(super) fn claim_of(subscription: SubscriptionId, leasing: Leasing) -> Claim {
    Claim {
        leasing,
        grace: Duration::ZERO,
        lane: Lane::Fresh,
        wants: vec![(subscription, 1_000)],
        max_bytes: usize::MAX,
    }
}

/// Claims what is due of one subscription, in either lane.
pub(super) async fn claim_all(
    store: &Arc<dyn Store>,
    subscription: SubscriptionId,
    leasing: Leasing,
) -> Vec<LeasedDelivery> {
    let mut claimed = Vec::new();
    for lane in Lane::ALL {
        let claim = Claim {
            lane,
            ..claim_of(subscription, leasing)
        };
        claimed.extend(store.claim(&claim).await.unwrap());
    }
    claimed
}

/// What an attempt met that the receiver took.
pub(super) fn taken() -> Attempt {
    Attempt {
        at: SystemClock.now(),
        duration: Duration::from_millis(12),
        trigger: Trigger::Schedule,
        status: Some(204),
        error: None,
        response_headers: vec![("server".to_owned(), "x".to_owned())],
        response_excerpt: String::new(),
    }
}

/// What an attempt met that the receiver refused.
pub(super) fn refused(status: u16) -> Attempt {
    Attempt {
        status: Some(status),
        error: Some(ErrorClass::HttpStatus),
        response_excerpt: "no".to_owned(),
        ..taken()
    }
}

pub(super) fn settlement(delivery: &LeasedDelivery, verdict: Verdict) -> Settlement {
    let attempt = match verdict {
        Verdict::Succeeded => Some(taken()),
        Verdict::Retry { .. } | Verdict::Resumed { .. } | Verdict::Repeated | Verdict::Failed => {
            Some(refused(500))
        }
        Verdict::Gone => Some(refused(410)),
        Verdict::Released => None,
    };
    Settlement::of(delivery, verdict, attempt)
}

pub(super) async fn settle(
    store: &Arc<dyn Store>,
    owner: OwnerId,
    delivery: &LeasedDelivery,
    verdict: Verdict,
) -> SettleOutcome {
    let outcomes = store
        .settle(owner, &[settlement(delivery, verdict)])
        .await
        .unwrap();
    assert_eq!(outcomes.len(), 1);
    outcomes[0]
}

/// One delivery as clients of workspace `default` see it.
pub(super) async fn record(store: &Arc<dyn Store>, id: DeliveryId) -> DeliveryRecord {
    store
        .delivery(&Reach::all(&WorkspaceId::default()), id)
        .await
        .unwrap()
        .expect("the delivery is neither in the queue nor in history")
}

/// All deliveries of a workspace, newest first.
pub(super) async fn deliveries(
    store: &Arc<dyn Store>,
    workspace: &WorkspaceId,
) -> Vec<DeliveryRecord> {
    let everything = PageRequest {
        limit: 100_000,
        after: None,
    };
    let page = store
        .deliveries(
            &Reach::all(workspace),
            &DeliveryFilter::default(),
            everything,
        )
        .await
        .unwrap();
    assert_eq!(page.next, None);
    page.items
}

/// How many of a workspace's deliveries are in a state.
pub(super) async fn count_in(
    store: &Arc<dyn Store>,
    workspace: &WorkspaceId,
    state: DeliveryState,
) -> usize {
    deliveries(store, workspace)
        .await
        .iter()
        .filter(|record| record.state == state)
        .count()
}
