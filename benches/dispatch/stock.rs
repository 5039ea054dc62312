//! Rows that are there before the program starts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::attempt::{Attempt, ErrorClass, Trigger};
use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::ids::SubscriptionId;
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::intake::{Intake, NoDispatch, Permit};
use forge_dispatch::store::targets::Target;
use forge_dispatch::store::{LeasedDelivery, Leasing, Settlement, Store};

use crate::envelope::envelope;

/// A run that no program's own has.
const RUN: u32 = 0;

/// Events of one transaction.
const BATCH: usize = 1_000;

/// Accepts events that nobody sends: all their deliveries are due.
pub(crate) async fn due(store: &dyn Store, count: usize, data_bytes: usize) -> anyhow::Result<()> {
    for batch in batches(count, data_bytes) {
        store.accept(&batch?, leasing(), &NoDispatch).await?;
    }
    Ok(())
}

/// Accepts events whose deliveries all failed once and are due again.
pub(crate) async fn retries(
    store: &dyn Store,
    count: usize,
    data_bytes: usize,
) -> anyhow::Result<()> {
    let delay = Duration::ZERO;
    sent(store, count, data_bytes, &Verdict::Retry { delay }, 503).await
}

/// Accepts events whose deliveries all failed for good.
pub(crate) async fn failed(
    store: &dyn Store,
    count: usize,
    data_bytes: usize,
) -> anyhow::Result<()> {
    sent(store, count, data_bytes, &Verdict::Failed, 500).await
}

/// Accepts events whose deliveries all succeeded.
pub(crate) async fn history(
    store: &dyn Store,
    count: usize,
    data_bytes: usize,
) -> anyhow::Result<()> {
    sent(store, count, data_bytes, &Verdict::Succeeded, 200).await
}

/// As if everything had been sent once, with this outcome.
async fn sent(
    store: &dyn Store,
    count: usize,
    data_bytes: usize,
    verdict: &Verdict,
    status: u16,
) -> anyhow::Result<()> {
    for batch in batches(count, data_bytes) {
        let leasing = leasing();
        let accepted = store.accept(&batch?, leasing, &Everything).await?;
        let settlements: Vec<Settlement> = accepted
            .leased
            .iter()
            .map(|(delivery, _)| Settlement::of(delivery, verdict.clone(), Some(attempt(status))))
            .collect();
        store.settle(leasing.owner, &settlements).await?;
    }
    Ok(())
}

/// What such an attempt met.
fn attempt(status: u16) -> Attempt {
    Attempt {
        at: SystemClock.now(),
        duration: Duration::from_millis(2),
        trigger: Trigger::Schedule,
        status: Some(status),
        error: (status != 200).then_some(ErrorClass::HttpStatus),
        response_headers: vec![("content-length".to_owned(), "0".to_owned())],
        response_excerpt: String::new(),
    }
}

fn leasing() -> Leasing {
    Leasing {
        owner: Entropy::system().id(SystemClock.now()),
        lease: Duration::from_mins(1),
    }
}

fn batches(
    count: usize,
    data_bytes: usize,
) -> impl Iterator<Item = anyhow::Result<Vec<Arc<Payload>>>> {
    (0..count).step_by(BATCH).map(move |first| {
        (first..count.min(first + BATCH))
            .map(|number| {
                let now = SystemClock.now();
                let text = envelope(RUN, number, data_bytes);
                let id = Entropy::system().id(now);
                let payload = Payload::decode(&text, id, now).context("an event")?;
                Ok(Arc::new(payload))
            })
            .collect()
    })
}

/// Admits everything and sends nothing.
struct Everything;

impl Intake for Everything {
    fn admit(&self, _target: &Target, _bytes: usize) -> Option<Permit> {
        Some(Permit::new(()))
    }

    fn hand_over(&self, _leased: Vec<(LeasedDelivery, Permit)>) {}

    fn left_waiting(&self, _of: &[SubscriptionId]) {}

    fn something_is_due(&self) {}
}
