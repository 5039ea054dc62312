//! `[retention]`: how long things are kept.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::duration::days;

const DAY: Duration = Duration::from_hours(24);

/// `[retention]`. No time at all (`0s`) keeps for ever.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// Events, from their acceptance on, with their places in the feed, their deliveries (from when they
    /// were settled on) and attempts. What is still to be delivered stays.
    #[serde(with = "days")]
    pub events: Duration,
    /// What receivers answered to attempts: headers and excerpt.
    #[serde(with = "days")]
    pub answers: Duration,
    /// The audit log.
    #[serde(with = "days")]
    pub audit: Duration,
    /// What an event is recognised by when it comes again.
    #[serde(with = "days")]
    pub event_keys: Duration,
    /// Replays of many, from their end on: what they were and came to. What they sent is with the events.
    #[serde(with = "days")]
    pub replays: Duration,
    /// Statistics by the minute.
    #[serde(with = "days")]
    pub rollup_minutes: Duration,
    /// Statistics by the hour.
    #[serde(with = "days")]
    pub rollup_hours: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            events: 30 * DAY,
            answers: 7 * DAY,
            audit: 400 * DAY,
            event_keys: 90 * DAY,
            replays: 30 * DAY,
            rollup_minutes: 2 * DAY,
            rollup_hours: 400 * DAY,
        }
    }
}
