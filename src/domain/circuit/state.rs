//! Where a circuit stands.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};

/// Deliveries a second with which a receiver begins that is back; it doubles every second.
const FIRST_RATE: f64 = 10.0;

/// Whether a subscription's deliveries are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CircuitState {
    /// They are, and nothing speaks against it: there is nothing to be remembered.
    #[default]
    Closed,
    /// They are; failures of late are remembered.
    Watched,
    /// They wait; of them one is sent at a time, as a probe.
    Open {
        /// Since when.
        since: DateTime<Utc>,
        /// When the next probe is sent.
        until: DateTime<Utc>,
        /// How long it was from the last failure to that.
        pause: Duration,
        /// Whether one is on its way.
        probe: Probe,
    },
    /// A probe was taken: they are sent at a rate that grows.
    Recovering {
        /// Since when.
        since: DateTime<Utc>,
        /// When the limit ends.
        until: DateTime<Utc>,
        /// The pause that led to it; the next one is twice as long.
        pause: Duration,
    },
}

/// Where the one delivery is that tries whether a receiver is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Not chosen yet.
    Waiting,
    /// Leased. Where nothing is heard of it, another is sent when its time has come.
    Sent,
}

/// The states as clients know them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CircuitName {
    /// Deliveries are sent.
    Closed,
    /// Deliveries wait.
    Open,
    /// Deliveries are sent at a rate that grows.
    Recovering,
}

impl CircuitName {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::Recovering];

    /// The name in the API, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::Recovering => "recovering",
        }
    }
}

impl fmt::Display for CircuitName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CircuitName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|name| name.as_str() == text)
            .ok_or_else(|| format!("no circuit is `{text}`"))
    }
}

impl CircuitState {
    /// What clients know it as. One that has recovered is closed, whether or not that was noted yet.
    pub fn name(&self, now: DateTime<Utc>) -> CircuitName {
        match self {
            Self::Open { .. } => CircuitName::Open,
            Self::Recovering { until, .. } if now < *until => CircuitName::Recovering,
            Self::Closed | Self::Watched | Self::Recovering { .. } => CircuitName::Closed,
        }
    }

    /// Since when it is as it is, and until when; `None` where it is closed.
    pub fn times(&self, now: DateTime<Utc>) -> Option<(DateTime<Utc>, DateTime<Utc>)> {
        match self {
            Self::Open { since, until, .. } | Self::Recovering { since, until, .. } => {
                (self.name(now) != CircuitName::Closed).then_some((*since, *until))
            }
            Self::Closed | Self::Watched => None,
        }
    }

    /// When the next probe is sent, where deliveries wait for one.
    pub fn open_until(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Open { until, .. } => Some(*until),
            _ => None,
        }
    }

    /// Since when its rate grows, where it does.
    pub fn recovering_since(&self) -> Option<DateTime<Utc>> {
        match self {
            Self::Recovering { since, .. } => Some(*since),
            _ => None,
        }
    }

    /// Deliveries a second, so long after a probe was taken; `None` is no limit.
    pub fn rate_after(&self, elapsed: Duration) -> Option<f64> {
        let Self::Recovering { since, until, .. } = self else {
            return None;
        };
        let ramp = (*until - *since).to_std().unwrap_or_default();
        (elapsed < ramp).then(|| FIRST_RATE * elapsed.as_secs_f64().exp2())
    }
}
