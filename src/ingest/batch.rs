//! Events into the store, a batch at a time.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use metrics::{counter, histogram};

use crate::domain::payload::Payload;
use crate::reconnect::Reconnect;
use crate::store::intake::Intake;
use crate::store::{AcceptOutcome, Accepted, Leasing, Result, Store, StoreError};
use crate::telemetry::metric;

/// Where events are committed, and who is told of the deliveries that come of them.
#[derive(Clone)]
pub struct Acceptor {
    /// Keeps them.
    pub store: Arc<dyn Store>,
    /// Takes what is born leased. [`crate::store::intake::NoDispatch`] in a process that does not
    /// send.
    pub intake: Arc<dyn Intake>,
    /// Who leases, and for how long.
    pub leasing: Leasing,
}

/// What became of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Kept now, with its deliveries.
    Stored,
    /// It was known already: nothing changed.
    Duplicate,
    /// The database refuses it, for this reason, and always will.
    Refused(String),
}

/// Commits events and says what became of each, in the order given. All that can be kept is kept,
/// whatever else is refused. An unavailable database is asked again for as long as `patience`
/// lasts; what was committed until then stays.
pub async fn accept_all(
    acceptor: &Acceptor,
    events: Vec<Arc<Payload>>,
    patience: Duration,
) -> Result<Vec<Outcome>> {
    let mut batch = Batch::new(events);
    let mut reconnect = Reconnect::default();
    let patience = tokio::time::Instant::now() + patience;
    loop {
        match batch.commit(acceptor).await {
            Ok(()) => return Ok(batch.into_outcomes()),
            Err(error) if error.is_unavailable() => {
                // Only the pause is cut short, never a transaction.
                let pause = tokio::time::timeout_at(patience, reconnect.pause());
                if pause.await.is_err() {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// A batch on its way into the store. It can be stopped by an error and gone on with: what was
/// committed is not offered again, and the rest is offered under the same ids, so that a commit
/// whose answer was lost counts once.
#[derive(Debug)]
pub(super) struct Batch {
    events: Vec<Arc<Payload>>,
    /// Of the first events: they are settled from the front.
    outcomes: Vec<Outcome>,
    /// What is to be offered in one transaction each, adjoining, from the end of `outcomes` on.
    offers: VecDeque<Range<usize>>,
}

impl Batch {
    pub(super) fn new(events: Vec<Arc<Payload>>) -> Self {
        let whole = 0..events.len();
        Self {
            outcomes: Vec::with_capacity(events.len()),
            offers: VecDeque::from([whole]),
            events,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// One outcome for each event, once [`Batch::commit`] succeeded.
    pub(super) fn into_outcomes(self) -> Vec<Outcome> {
        self.outcomes
    }

    /// Offers what is not settled yet. After an error it may be called again.
    ///
    /// What is handed over was committed before. A future that is dropped between the two leaves
    /// deliveries that nobody sends until their lease runs out, so it should be run to its end.
    pub(super) async fn commit(&mut self, acceptor: &Acceptor) -> Result<()> {
        while let Some(offer) = self.offers.front().cloned() {
            if offer.is_empty() {
                self.offers.pop_front();
                continue;
            }
            acceptor.intake.relief().await;
            let events = &self.events[offer.clone()];
            let answer = acceptor
                .store
                .accept(events, acceptor.leasing, &*acceptor.intake)
                .await;
            match answer {
                Ok(accepted) => self.accepted(&offer, accepted, acceptor)?,
                Err(error) if error.is_rejected() => self.rejected(&offer, &error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn accepted(
        &mut self,
        offer: &Range<usize>,
        accepted: Accepted,
        acceptor: &Acceptor,
    ) -> Result<()> {
        let Accepted {
            outcomes,
            leased,
            pending,
        } = accepted;
        // First of all: these are committed and leased, and each moment counts against the lease.
        acceptor.intake.hand_over(leased);
        if pending > 0 {
            acceptor.intake.left_waiting();
            acceptor.store.announce();
        }
        // None taken would be offered again for ever.
        if outcomes.is_empty() || outcomes.len() > offer.len() {
            return Err(StoreError::corrupt(format_args!(
                "{} outcomes for {} events",
                outcomes.len(),
                offer.len()
            )));
        }
        count(&outcomes);
        // A batch that would make too many rows is taken in part.
        let rest = offer.start + outcomes.len()..offer.end;
        if let Some(front) = self.offers.front_mut() {
            *front = rest;
        }
        self.outcomes
            .extend(outcomes.into_iter().map(Outcome::from));
        Ok(())
    }

    /// Halves what was refused, until the culprit stands alone: everything else is taken, in the
    /// order given, in about `2 log n` transactions for one culprit.
    fn rejected(&mut self, offer: &Range<usize>, error: &StoreError) {
        self.offers.pop_front();
        if offer.len() == 1 {
            self.outcomes.push(Outcome::Refused(error.to_string()));
            return;
        }
        let middle = offer.start + offer.len() / 2;
        self.offers.push_front(middle..offer.end);
        self.offers.push_front(offer.start..middle);
    }
}

impl From<AcceptOutcome> for Outcome {
    fn from(outcome: AcceptOutcome) -> Self {
        match outcome {
            AcceptOutcome::Stored => Self::Stored,
            AcceptOutcome::Duplicate => Self::Duplicate,
        }
    }
}

fn count(outcomes: &[AcceptOutcome]) {
    let stored = outcomes
        .iter()
        .filter(|outcome| **outcome == AcceptOutcome::Stored)
        .count();
    let (stored, taken) = (stored as u64, outcomes.len() as u64);
    counter!(metric::EVENTS, "outcome" => "accepted").increment(stored);
    counter!(metric::EVENTS, "outcome" => "duplicate").increment(taken - stored);
    #[expect(clippy::cast_precision_loss, reason = "a batch has hundreds of events")]
    histogram!(metric::ACCEPT_BATCH).record(taken as f64);
}
