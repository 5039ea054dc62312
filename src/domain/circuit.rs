//! The circuit breaker of a subscription (product.md §4, isolation): when its receiver is left alone,
//! how it is asked whether it is back, and how it gets what waited.
//!
//! ```text
//! closed ─▶ watched ─▶ open ─▶ recovering ─▶ watched ─▶ closed
//!                       ▲ ╰─ a probe fails ╯    │
//!                       ╰───────────────────────╯ it fails again
//! ```

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::retry::RetrySchedule;

mod state;
mod tally;

pub use state::{CircuitName, CircuitState, Probe};
pub use tally::Tally;

use tally::Met;

/// When a circuit opens, and how it closes again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CircuitRules {
    /// So many failures without a success between them open it.
    pub failures_in_row: u32,
    /// So many failures of a hundred attempts in a window open it.
    pub failure_percent: u32,
    /// Of fewer attempts than these no share is reckoned.
    pub least_attempts: u32,
    /// How long attempts are counted together.
    pub window: Duration,
    /// How long it stays open before the first probe.
    pub first_pause: Duration,
    /// Each probe that fails doubles the pause, up to this.
    pub longest_pause: Duration,
    /// How long the rate grows, once a probe was taken, before there is no limit any more.
    pub ramp: Duration,
    /// Nothing but failures for so long, and as many in a row as open a circuit, disable the subscription.
    pub disable_after: Duration,
    /// How long a delivery is tried where its subscription says nothing of its own: what failed first can
    /// be of an event that came so much earlier.
    pub tried_for: Duration,
}

impl Default for CircuitRules {
    fn default() -> Self {
        Self {
            failures_in_row: 10,
            failure_percent: 50,
            least_attempts: 20,
            window: Duration::from_mins(1),
            first_pause: Duration::from_secs(30),
            longest_pause: Duration::from_mins(15),
            ramp: Duration::from_secs(10),
            disable_after: Duration::from_hours(5 * 24),
            tried_for: RetrySchedule::default().longest(),
        }
    }
}

/// What became of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// It opened: deliveries wait.
    Opened,
    /// A probe failed: they wait for longer.
    StillOpen,
    /// A probe was taken: they are sent again.
    Recovering,
    /// There is no limit any more.
    Closed,
    /// Nothing but failures for so long that the subscription is to be disabled.
    GivenUp,
}

impl Transition {
    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::StillOpen => "still_open",
            Self::Recovering => "recovering",
            Self::Closed => "closed",
            Self::GivenUp => "given_up",
        }
    }
}

/// Attempts that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Since when.
    pub began: DateTime<Utc>,
    /// How many.
    pub attempts: u32,
    /// How many of them failed.
    pub failures: u32,
}

/// What is remembered of a subscription's receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Circuit {
    /// Whether deliveries are sent.
    pub state: CircuitState,
    /// Failures since the last success.
    pub failures_in_row: u32,
    /// What the share of failures is reckoned of.
    pub window: Window,
    /// Since when there were failures only.
    pub failing_since: Option<DateTime<Utc>>,
}

impl Circuit {
    /// Nothing is known.
    pub fn new(now: DateTime<Utc>) -> Self {
        Self {
            state: CircuitState::Closed,
            failures_in_row: 0,
            window: Window::from(now),
            failing_since: None,
        }
    }

    /// Notes what a batch of outcomes told, and says what became of the circuit by that.
    pub fn record(
        &mut self,
        tally: &Tally,
        rules: &CircuitRules,
        now: DateTime<Utc>,
    ) -> Option<Transition> {
        self.count(tally, rules, now);
        let transition = self.step(tally, rules, now);
        if matches!(self.state, CircuitState::Closed | CircuitState::Watched) {
            self.state = if self.is_pristine() {
                CircuitState::Closed
            } else {
                CircuitState::Watched
            };
        }
        transition
    }

    fn count(&mut self, tally: &Tally, rules: &CircuitRules, now: DateTime<Utc>) {
        if tally.successes > 0 {
            self.failures_in_row = tally.failures_at_end;
            self.failing_since = None;
        } else {
            self.failures_in_row = self.failures_in_row.saturating_add(tally.failures);
        }
        if tally.failures_at_end > 0 {
            self.failing_since.get_or_insert(now);
        }
        if now >= later(self.window.began, rules.window) {
            self.window = Window::from(now);
        }
        self.window.attempts = self.window.attempts.saturating_add(tally.attempts());
        self.window.failures = self.window.failures.saturating_add(tally.failures);
    }

    fn step(
        &mut self,
        tally: &Tally,
        rules: &CircuitRules,
        now: DateTime<Utc>,
    ) -> Option<Transition> {
        let failed = tally.failures > 0;
        // Two failures that lie far apart are not enough: nobody was asked in between.
        let is_hopeless = |since| now >= later(since, rules.disable_after);
        if failed && self.fails_in_row(rules) && self.failing_since.is_some_and(is_hopeless) {
            return Some(Transition::GivenUp);
        }
        match self.state {
            CircuitState::Closed | CircuitState::Watched => {
                let enough = self.window.attempts >= rules.least_attempts;
                let fails = self.fails_in_row(rules) || (enough && self.window.is_bad(rules));
                (failed && fails).then(|| {
                    self.open(now, now, rules.first_pause);
                    Transition::Opened
                })
            }
            // What was under way when it opened changes nothing: only a probe does.
            CircuitState::Open { since, pause, .. } => match tally.probe? {
                Met::Taken => {
                    self.recover(now, pause, rules);
                    Some(Transition::Recovering)
                }
                Met::Refused => {
                    self.open(since, now, longer(pause, rules));
                    Some(Transition::StillOpen)
                }
                Met::Unknown => {
                    self.open(since, now, pause);
                    Some(Transition::StillOpen)
                }
                Met::Unsent => {
                    self.state = CircuitState::Open {
                        since,
                        until: now,
                        pause,
                        probe: Probe::Waiting,
                    };
                    None
                }
            },
            // Here the share counts from the first attempt on: one failure of two opens it again. (One
            // of a hundred must not: after an outage, a receiver that fails now and then would be left
            // alone for ever longer.)
            CircuitState::Recovering { until, pause, .. } => {
                if failed && (self.fails_in_row(rules) || self.window.is_bad(rules)) {
                    self.open(now, now, longer(pause, rules));
                    return Some(Transition::Opened);
                }
                (now >= until).then(|| {
                    self.state = CircuitState::Closed;
                    Transition::Closed
                })
            }
        }
    }

    fn open(&mut self, since: DateTime<Utc>, now: DateTime<Utc>, pause: Duration) {
        self.state = CircuitState::Open {
            since,
            until: later(now, pause),
            pause,
            probe: Probe::Waiting,
        };
    }

    fn recover(&mut self, now: DateTime<Utc>, pause: Duration, rules: &CircuitRules) {
        self.state = CircuitState::Recovering {
            since: now,
            until: later(now, rules.ramp),
            pause,
        };
        self.failures_in_row = 0;
        self.window = Window {
            attempts: 1,
            ..Window::from(now)
        };
    }

    fn fails_in_row(&self, rules: &CircuitRules) -> bool {
        self.failures_in_row >= rules.failures_in_row
    }

    fn is_pristine(&self) -> bool {
        self.failures_in_row == 0 && self.failing_since.is_none() && self.window.failures == 0
    }
}

impl Window {
    fn from(began: DateTime<Utc>) -> Self {
        Self {
            began,
            attempts: 0,
            failures: 0,
        }
    }

    fn is_bad(&self, rules: &CircuitRules) -> bool {
        let share = u64::from(self.attempts) * u64::from(rules.failure_percent);
        u64::from(self.failures) * 100 >= share
    }
}

fn later(time: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    chrono::Duration::from_std(by)
        .ok()
        .and_then(|by| time.checked_add_signed(by))
        .unwrap_or(DateTime::<Utc>::MAX_UTC)
}

fn longer(pause: Duration, rules: &CircuitRules) -> Duration {
    pause.saturating_mul(2).min(rules.longest_pause)
}

#[cfg(test)]
mod tests;
