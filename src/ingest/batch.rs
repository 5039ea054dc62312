//! A batch on its way into the store.

use std::collections::VecDeque;
use std::ops::Range;

use super::sink::{Outcome, Sink};
use crate::store::{Result, StoreError};

/// A batch on its way into the store. It can be stopped by an error and gone on with: what was
/// committed is not offered again, and the rest is offered as it was, so that a commit whose answer was
/// lost counts once.
#[derive(Debug)]
pub(super) struct Batch<T> {
    items: Vec<T>,
    /// Of the first items: they are settled from the front.
    outcomes: Vec<Outcome>,
    /// What is to be offered in one transaction each, adjoining, from the end of `outcomes` on.
    offers: VecDeque<Range<usize>>,
}

impl<T> Batch<T> {
    pub(super) fn new(items: Vec<T>) -> Self {
        let whole = 0..items.len();
        Self {
            outcomes: Vec::with_capacity(items.len()),
            offers: VecDeque::from([whole]),
            items,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// One outcome for each item, once [`Batch::commit`] succeeded.
    pub(super) fn into_outcomes(self) -> Vec<Outcome> {
        self.outcomes
    }

    /// Offers what is not settled yet. After an error it may be called again.
    ///
    /// What comes of a commit is told after it. A future that is dropped between the two leaves, of
    /// events, deliveries that nobody sends until their lease runs out, so it should be run to its end.
    pub(super) async fn commit<S: Sink<Item = T>>(&mut self, sink: &S) -> Result<()> {
        while let Some(offer) = self.offers.front().cloned() {
            if offer.is_empty() {
                self.offers.pop_front();
                continue;
            }
            match sink.keep(&self.items[offer.clone()]).await {
                Ok(outcomes) => self.kept(&offer, outcomes)?,
                Err(error) if error.is_rejected() => self.rejected(&offer, &error),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn kept(&mut self, offer: &Range<usize>, outcomes: Vec<Outcome>) -> Result<()> {
        // None taken would be offered again for ever.
        if outcomes.is_empty() || outcomes.len() > offer.len() {
            return Err(StoreError::corrupt(format_args!(
                "{} outcomes for {} items",
                outcomes.len(),
                offer.len()
            )));
        }
        let rest = offer.start + outcomes.len()..offer.end;
        if let Some(front) = self.offers.front_mut() {
            *front = rest;
        }
        self.outcomes.extend(outcomes);
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
