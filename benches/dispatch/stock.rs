//! Rows that are there before the program starts.

use std::sync::Arc;

use anyhow::Context;
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::attempt::{Attempt, ErrorClass, Trigger};
use forge_dispatch::domain::delivery::Verdict;
use forge_dispatch::domain::payload::Payload;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::intake::{Intake, NoDispatch, Permit};
use forge_dispatch::store::targets::Target;
use forge_dispatch::store::{LeasedDelivery, Leasing, Settlement, Store};
use std::time::Duration;

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
    for batch in batches(count, data_bytes) {
        let leasing = leasing();
        let accepted = store.accept(&batch?, leasing, &Everything).await?;
        let settlements: Vec<Settlement> = accepted
            .leased
            .iter()
            .map(|(delivery, _)| refused(delivery))
            .collect();
        store.settle(leasing.owner, &settlements).await?;
    }
    Ok(())
}

fn leasing() -> Leasing {
    Leasing {
        owner: Entropy::system().id(SystemClock.now()),
        lease: Duration::from_secs(60),
    }
}

fn refused(delivery: &LeasedDelivery) -> Settlement {
    let attempt = Attempt {
        at: SystemClock.now(),
        duration: Duration::from_millis(2),
        trigger: Trigger::Schedule,
        status: Some(503),
        error: Some(ErrorClass::HttpStatus),
        response_headers: vec![("content-length".to_owned(), "0".to_owned())],
        response_excerpt: String::new(),
    };
    let verdict = Verdict::Retry {
        delay: Duration::ZERO,
    };
    Settlement::of(delivery, verdict, Some(attempt))
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

    fn left_waiting(&self) {}
}
