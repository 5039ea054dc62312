//! From when on a claim looks for what is due.
//!
//! What is claimed or settled leaves its entry in the index of what is due, until a vacuum takes it away,
//! which is once a minute at best. A claim that began at the beginning of time would walk over all of them
//! (200,000 behind a busy minute: 3.5 ms, where the claim itself takes a tenth of that). A look, which
//! comes once a second, walks there anyway, and says what it found first; until the next one, claims begin
//! there.
//!
//! What comes to have an earlier time than that is found by the next look and claimed after it: what is
//! written by a transaction that lasts longer than [`LATEST`], and what is given a time in the past.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::PostgresStore;
use super::rows::lane_number;
use crate::domain::delivery::Lane;
use crate::store::targets::Targets;

/// How far back claims begin at the latest: what is committed between a look and a claim may have been
/// written before that look.
pub(super) const LATEST: Duration = Duration::from_secs(5);

/// What the last look found.
#[derive(Debug, Default)]
pub(super) struct Floors {
    /// Of which generation the subscriptions were. One that came back since was not looked at.
    generation: i64,
    /// Nothing was due that is older than this, but for `first`.
    before: DateTime<Utc>,
    /// The first due of a subscription and lane, where there was one.
    first: HashMap<(Uuid, i16), DateTime<Utc>>,
}

impl Floors {
    pub(super) fn new(targets: &Targets, before: DateTime<Utc>) -> Self {
        Self {
            generation: targets.generation(),
            before,
            first: HashMap::new(),
        }
    }

    /// Notes the first due of a subscription and lane.
    pub(super) fn found(&mut self, subscription: Uuid, lane: i16, first: DateTime<Utc>) {
        self.first.insert((subscription, lane), first);
    }

    /// From when on to look.
    pub(super) fn of(&self, targets: &Targets, subscription: Uuid, lane: Lane) -> DateTime<Utc> {
        if self.generation != targets.generation() {
            return DateTime::UNIX_EPOCH;
        }
        let first = self.first.get(&(subscription, lane_number(lane)));
        first.map_or(self.before, |first| self.before.min(*first))
    }
}

impl PostgresStore {
    pub(super) fn held_floors(&self) -> Arc<Floors> {
        Arc::clone(&self.floors.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn hold_floors(&self, found: Floors) {
        let mut kept = self.floors.write().unwrap_or_else(PoisonError::into_inner);
        *kept = Arc::new(found);
    }
}
