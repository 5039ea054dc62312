//! `[dispatch.circuit]`: when receivers are left alone.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration;
use crate::domain::circuit::CircuitRules;
use crate::domain::retry::RetrySchedule;

/// `[dispatch.circuit]`: product.md §4, isolation.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Circuit {
    /// So many failures without a success between them open it.
    pub failures_in_row: u32,
    /// So many failures of a hundred attempts in a window open it.
    pub failure_percent: u32,
    /// Of fewer attempts than these no share is reckoned.
    pub least_attempts: u32,
    /// How long attempts are counted together.
    #[serde(with = "duration")]
    pub window: Duration,
    /// How long it stays open before the first probe.
    #[serde(with = "duration")]
    pub first_pause: Duration,
    /// Each probe that fails doubles the pause, up to this.
    #[serde(with = "duration")]
    pub longest_pause: Duration,
    /// How long the rate grows when a receiver is back.
    #[serde(with = "duration")]
    pub ramp: Duration,
    /// Nothing but failures for so long, and as many in a row as open it, disable the subscription.
    #[serde(with = "duration")]
    pub disable_after: Duration,
}

impl Default for Circuit {
    fn default() -> Self {
        let rules = CircuitRules::default();
        Self {
            failures_in_row: rules.failures_in_row,
            failure_percent: rules.failure_percent,
            least_attempts: rules.least_attempts,
            window: rules.window,
            first_pause: rules.first_pause,
            longest_pause: rules.longest_pause,
            ramp: rules.ramp,
            disable_after: rules.disable_after,
        }
    }
}

impl Circuit {
    /// What settles judge receivers by, where deliveries are retried by this schedule.
    pub fn rules(&self, schedule: &RetrySchedule) -> CircuitRules {
        CircuitRules {
            failures_in_row: self.failures_in_row,
            failure_percent: self.failure_percent,
            least_attempts: self.least_attempts,
            window: self.window,
            first_pause: self.first_pause,
            longest_pause: self.longest_pause,
            ramp: self.ramp,
            disable_after: self.disable_after,
            tried_for: schedule.longest(),
        }
    }
}
