//! What a batch of outcomes tells of a receiver.

use crate::domain::attempt::{Attempt, ErrorClass};
use crate::domain::delivery::Sending;

/// How a receiver met one delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Met {
    /// It took it.
    Taken,
    /// It did not.
    Refused,
    /// Nobody knows: the attempt ended on our side.
    Unknown,
    /// It was not sent.
    Unsent,
}

impl Met {
    fn of(attempt: Option<&Attempt>) -> Self {
        match attempt.map(|attempt| attempt.error) {
            None => Self::Unsent,
            Some(None) => Self::Taken,
            // Our own faults are no receiver's failures.
            Some(Some(ErrorClass::Lost | ErrorClass::Internal)) => Self::Unknown,
            Some(Some(_)) => Self::Refused,
        }
    }
}

/// What a batch of outcomes tells of one receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub(super) successes: u32,
    pub(super) failures: u32,
    /// Failures behind the last success.
    pub(super) failures_at_end: u32,
    pub(super) probe: Option<Met>,
}

impl Tally {
    /// Counts one more, in the order in which they ended.
    pub fn add(&mut self, attempt: Option<&Attempt>, sending: Sending) {
        let met = Met::of(attempt);
        match sending {
            Sending::Probe => self.probe = Some(met),
            // What somebody asked for shows as well that the receiver is back. That it is not was known.
            Sending::Asked if met == Met::Taken => self.probe = Some(met),
            Sending::Usual | Sending::Asked => {}
        }
        match met {
            Met::Taken => {
                self.successes += 1;
                self.failures_at_end = 0;
            }
            Met::Refused => {
                self.failures += 1;
                self.failures_at_end += 1;
            }
            Met::Unknown | Met::Unsent => {}
        }
    }

    /// Whether it matters where nothing is remembered of the receiver.
    pub fn is_noteworthy(&self) -> bool {
        self.failures > 0 || self.probe.is_some()
    }

    pub(super) fn attempts(&self) -> u32 {
        self.successes.saturating_add(self.failures)
    }
}
