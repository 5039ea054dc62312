//! The states of a delivery and the steps between them (product.md §4, docs/DELIVERY.md).
//!
//! `pending → in_flight → succeeded | pending (with a due time) | failed | cancelled`, and by a replay
//! `failed → pending`

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Where a delivery stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// Waits for its due time, or for a free permit.
    Pending,
    /// Leased by a process that is sending it.
    InFlight,
    /// Answered with a 2xx. Final; a replay sends it once more and changes nothing in that.
    Succeeded,
    /// The schedule is spent, or the receiver answered `410`, or its event could not be read any more.
    /// Final, unless it is replayed.
    Failed,
    /// The subscription was deleted. Final.
    Cancelled,
}

/// What can happen to a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A process takes it to send it, or takes it over after a lease ran out.
    Lease,
    /// The receiver took it.
    Succeed,
    /// The attempt failed and the schedule has another.
    Retry,
    /// The attempt failed and there is none left.
    Fail,
    /// The process gave it back unsent.
    Release,
    /// The subscription is gone.
    Cancel,
    /// Somebody wants it sent again, or sooner.
    Replay,
}

/// A step that a delivery in this state cannot take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {from} delivery cannot {step:?}")]
pub struct IllegalStep {
    /// The state it is in.
    pub from: DeliveryState,
    /// The step asked for.
    pub step: Step,
}

impl DeliveryState {
    /// All states, for parsers and tests.
    pub const ALL: [Self; 5] = [
        Self::Pending,
        Self::InFlight,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name in the database, the API and the docs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::InFlight => "in_flight",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more happens by itself.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The state after a step, if the step is one that this state has.
    pub fn after(self, step: Step) -> Result<Self, IllegalStep> {
        match (self, step) {
            (Self::Pending | Self::InFlight, Step::Lease) => Ok(Self::InFlight),
            (Self::InFlight, Step::Succeed) | (Self::Succeeded, Step::Replay) => {
                Ok(Self::Succeeded)
            }
            (Self::InFlight, Step::Fail) => Ok(Self::Failed),
            (Self::InFlight, Step::Retry | Step::Release)
            | (Self::Pending | Self::Failed, Step::Replay) => Ok(Self::Pending),
            (Self::Pending | Self::InFlight, Step::Cancel) => Ok(Self::Cancelled),
            (from, step) => Err(IllegalStep { from, step }),
        }
    }
}

impl fmt::Display for DeliveryState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DeliveryState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| {
                "must be `pending`, `in_flight`, `succeeded`, `failed` or `cancelled`".to_owned()
            })
    }
}

/// Which queue a delivery stands in; each has its own share of the permits, so that none starves
/// another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Not tried yet.
    Fresh,
    /// Tried and failed.
    Retry,
    /// Replayed: sent because somebody says so.
    Replay,
}

impl Lane {
    /// All lanes.
    pub const ALL: [Self; 3] = [Self::Fresh, Self::Retry, Self::Replay];

    /// All lanes, the one whose turn comes behind this one first.
    pub fn behind(self) -> [Self; 3] {
        match self {
            Self::Fresh => [Self::Retry, Self::Replay, Self::Fresh],
            Self::Retry => [Self::Replay, Self::Fresh, Self::Retry],
            Self::Replay => [Self::Fresh, Self::Retry, Self::Replay],
        }
    }

    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Retry => "retry",
            Self::Replay => "replay",
        }
    }
}

/// Leases in a row without an outcome after which a delivery is suspect (queue.md §4): one more, and it
/// is not sent as usual any more.
pub const MAX_LOST_LEASES: u32 = 5;

/// What a delivery is sent for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Sending {
    /// To be taken.
    #[default]
    Usual,
    /// To find out, besides, whether a receiver is back whose circuit is open.
    Probe,
    /// Because somebody asked for this one, though the circuit is open.
    Asked,
}

/// What becomes of a leased delivery, decided from one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Final: the receiver took it.
    Succeeded,
    /// Again, this long after the settle.
    Retry {
        /// From the database's clock at the settle.
        delay: Duration,
    },
    /// Final: the schedule is spent.
    Failed,
    /// Final, and the subscription is to be disabled: the receiver answered `410 Gone`.
    Gone,
    /// Not sent; due again at once, nothing spent.
    Released,
    /// A replay ahead of its time failed: it waits for that time again, and no step of its schedule
    /// is spent.
    Resumed {
        /// Not sooner than this long after the settle: what the receiver asked for.
        not_before: Duration,
    },
    /// A replay of what had succeeded was not taken: final, and succeeded as before.
    Repeated,
}

impl Verdict {
    /// The step of the state machine that this is.
    pub fn step(&self) -> Step {
        match self {
            Self::Succeeded | Self::Repeated => Step::Succeed,
            Self::Retry { .. } | Self::Resumed { .. } => Step::Retry,
            Self::Failed | Self::Gone => Step::Fail,
            Self::Released => Step::Release,
        }
    }

    /// The state that a leased delivery is in afterwards.
    pub fn state(&self) -> DeliveryState {
        match self {
            Self::Succeeded | Self::Repeated => DeliveryState::Succeeded,
            Self::Retry { .. } | Self::Resumed { .. } | Self::Released => DeliveryState::Pending,
            Self::Failed | Self::Gone => DeliveryState::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEPS: [Step; 6] = [
        Step::Lease,
        Step::Succeed,
        Step::Retry,
        Step::Fail,
        Step::Release,
        Step::Cancel,
    ];

    #[test]
    fn a_final_state_takes_no_step() {
        for state in DeliveryState::ALL
            .into_iter()
            .filter(|state| state.is_final())
        {
            for step in STEPS {
                assert_eq!(state.after(step), Err(IllegalStep { from: state, step }));
            }
        }
    }

    #[test]
    fn a_replay_revives_what_failed_and_nothing_that_was_cancelled() {
        let replayed = |state: DeliveryState| state.after(Step::Replay).ok();
        assert_eq!(
            replayed(DeliveryState::Failed),
            Some(DeliveryState::Pending)
        );
        assert_eq!(
            replayed(DeliveryState::Succeeded),
            Some(DeliveryState::Succeeded)
        );
        assert_eq!(replayed(DeliveryState::Cancelled), None);
        assert_eq!(replayed(DeliveryState::InFlight), None);
    }

    #[test]
    fn every_lane_comes_round() {
        for lane in Lane::ALL {
            let turns = lane.behind();
            assert_eq!(turns[2], lane, "the last one served is asked last");
            assert!(Lane::ALL.iter().all(|lane| turns.contains(lane)));
        }
    }

    #[test]
    fn only_a_leased_delivery_gets_an_outcome() {
        for step in [Step::Succeed, Step::Retry, Step::Fail, Step::Release] {
            assert!(DeliveryState::Pending.after(step).is_err());
            assert!(DeliveryState::InFlight.after(step).is_ok());
        }
    }

    #[test]
    fn an_expired_lease_is_taken_over() {
        assert_eq!(
            DeliveryState::InFlight.after(Step::Lease),
            Ok(DeliveryState::InFlight)
        );
    }

    #[test]
    fn a_verdict_and_the_state_machine_agree() {
        let verdicts = [
            Verdict::Succeeded,
            Verdict::Retry {
                delay: Duration::ZERO,
            },
            Verdict::Failed,
            Verdict::Gone,
            Verdict::Released,
            Verdict::Resumed {
                not_before: Duration::ZERO,
            },
            Verdict::Repeated,
        ];
        for verdict in verdicts {
            assert_eq!(
                DeliveryState::InFlight.after(verdict.step()),
                Ok(verdict.state())
            );
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for state in DeliveryState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
        assert!("lost".parse::<DeliveryState>().is_err());
    }
}
