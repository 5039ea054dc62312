//! Small scenes: one subscription, an event or a few, handed in without a broker.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::delivery::DeliveryState;
use forge_dispatch::domain::headers::CustomHeaders;
use forge_dispatch::domain::ids::{SubscriptionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::secret::SigningSecret;
use forge_dispatch::domain::subscription::{BodyFormat, Ordering, SubscriptionSpec, TargetUrl};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::ingest::{Acceptor, Decoder, accept_all};
use forge_dispatch::store::intake::NoDispatch;
use forge_dispatch::store::{
    AttemptRecord, DeliveryFilter, DeliveryRecord, Leasing, NewSubscription, PageRequest, Store,
};
use forge_dispatch::telemetry::Tracer;

use super::events::register;
use super::eventually;

/// How long anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A subscription to everything in the default workspace.
pub(crate) async fn subscribe(store: &dyn Store, url: &str) -> SubscriptionId {
    subscribe_as(store, url, None).await
}

/// The same, with a limit of its own.
pub(crate) async fn subscribe_as(
    store: &dyn Store,
    url: &str,
    max_concurrency: Option<u32>,
) -> SubscriptionId {
    let entropy = Entropy::system();
    let now = SystemClock.now();
    let new = NewSubscription {
        id: entropy.id(now),
        workspace: WorkspaceId::default(),
        spec: SubscriptionSpec {
            url: TargetUrl::new(url).expect("a good URL"),
            description: String::new(),
            event_types: vec!["*".parse().expect("a filter")],
            project_ids: None,
            format: BodyFormat::Standard,
            headers: CustomHeaders::default(),
            max_concurrency: max_concurrency.and_then(NonZeroU32::new),
            rate_limit: None,
            retry_schedule: None,
            ordering: Ordering::default(),
        },
        secret_id: entropy.id(now),
        secret: SigningSecret::generate(entropy.bytes()),
    };
    register(store, &new)
        .await
        .expect("the subscription is made")
        .id
}

/// An event with this id, of an undocumented type.
pub(crate) fn event(id: &str) -> Vec<u8> {
    serde_json::json!({
        "specversion": "1.0", "id": id, "source": "/test", "type": "edition.archived",
        "data": {"edition_id": "ed_1", "id": id},
    })
    .to_string()
    .into_bytes()
}

/// An event whose data has about so many bytes.
pub(crate) fn sized_event(id: usize, bytes: usize) -> Vec<u8> {
    serde_json::json!({
        "specversion": "1.0", "id": id.to_string(), "source": "/test/large",
        "type": "edition.archived", "data": {"filler": "x".repeat(bytes)},
    })
    .to_string()
    .into_bytes()
}

/// Events with these ids.
pub(crate) fn events(ids: impl IntoIterator<Item = usize>) -> Vec<Vec<u8>> {
    ids.into_iter().map(|id| event(&id.to_string())).collect()
}

/// Takes events in as a process that does not send: their deliveries wait.
pub(crate) async fn leave_waiting(store: &Arc<dyn Store>, envelopes: &[Vec<u8>]) {
    let entropy = Entropy::system();
    let acceptor = Acceptor {
        decoder: Decoder::new(Arc::new(SystemClock), entropy.clone()),
        store: Arc::clone(store),
        intake: Arc::new(NoDispatch),
        leasing: Leasing {
            owner: entropy.id(SystemClock.now()),
            lease: Duration::ZERO,
        },
        tracer: Tracer::default(),
    };
    let events = envelopes
        .iter()
        .map(|envelope| acceptor.decoder.decode(envelope).expect("an event"))
        .collect();
    accept_all(&acceptor, events, PATIENCE)
        .await
        .expect("the events are kept");
}

/// All deliveries of a subscription, newest first.
pub(crate) async fn deliveries(
    store: &dyn Store,
    subscription: SubscriptionId,
) -> Vec<DeliveryRecord> {
    let filter = DeliveryFilter {
        subscription: Some(subscription),
        ..DeliveryFilter::default()
    };
    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = PageRequest { limit: 500, after };
        let page = store
            .deliveries(&everything(), &filter, page)
            .await
            .expect("the log is read");
        all.extend(page.items);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

fn everything() -> Reach {
    Reach::all(&WorkspaceId::default())
}

/// The attempts of a delivery, oldest first.
pub(crate) async fn attempts(store: &dyn Store, delivery: &DeliveryRecord) -> Vec<AttemptRecord> {
    let page = PageRequest {
        limit: 500,
        after: None,
    };
    store
        .attempts(&everything(), delivery.id, page)
        .await
        .expect("the attempts are read")
        .items
}

/// Waits until all deliveries of the subscription, so many of them, are in this state.
pub(crate) async fn all_become(
    store: &dyn Store,
    subscription: SubscriptionId,
    count: usize,
    state: DeliveryState,
) -> Vec<DeliveryRecord> {
    let what = format!("{count} deliveries are {state}");
    eventually(PATIENCE, &what, async || {
        let all = deliveries(store, subscription).await;
        all.len() == count && all.iter().all(|delivery| delivery.state == state)
    })
    .await;
    deliveries(store, subscription).await
}
