//! Replay of one delivery: what it does to a delivery in each state (docs/DELIVERY.md).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::audit::Audited;
use super::delivery::DeliveryState;
use super::ids::{DeliveryId, ReplayId, WorkspaceId};

/// What a delivery was when it was replayed. It says what its next attempt is, beside its schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Was {
    /// It had failed for good: it is pending again, with a fresh schedule.
    Failed,
    /// It had succeeded: one more attempt, and it stays so whatever comes of that.
    Succeeded,
    /// It waits for its time: sent now, and back to its time if that fails.
    Pending,
    /// It was never made, since its subscription did not ask for the event when that came.
    Unmade,
}

impl Was {
    /// All of them, for parsers and tests.
    pub const ALL: [Self; 4] = [Self::Failed, Self::Succeeded, Self::Pending, Self::Unmade];

    /// The name in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Succeeded => "succeeded",
            Self::Pending => "pending",
            Self::Unmade => "unmade",
        }
    }

    /// What a delivery in this state is replayed as, if it can be.
    pub fn of(state: DeliveryState) -> Result<Self, Refusal> {
        match state {
            DeliveryState::Failed => Ok(Self::Failed),
            DeliveryState::Succeeded => Ok(Self::Succeeded),
            DeliveryState::Pending => Ok(Self::Pending),
            DeliveryState::InFlight => Err(Refusal::InFlight),
            DeliveryState::Cancelled => Err(Refusal::Cancelled),
        }
    }
}

impl fmt::Display for Was {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Was {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|was| was.as_str() == text)
            .ok_or_else(|| format!("nothing is replayed as `{text}`"))
    }
}

/// A delivery that is being replayed: its next attempt is the replay's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replaying {
    /// What it was before.
    pub was: Was,
    /// The replay of many that it is one of; `None` is one alone.
    pub bulk: Option<ReplayId>,
}

/// Why a delivery is not replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// It is being sent at this moment.
    InFlight,
    /// It was cancelled with its subscription.
    Cancelled,
    /// Its subscription is disabled.
    SubscriptionDisabled,
    /// Its subscription was deleted.
    SubscriptionDeleted,
    /// Another replay has it in hand.
    AlreadyReplaying,
    /// It keeps its edition's order, and others are before it.
    WaitsItsTurn,
    /// Its event is no longer kept.
    EventRemoved,
    /// It was selected when it was counted, and not when its turn came: it was settled meanwhile, or is
    /// no longer kept. Only in a replay of many.
    NoLongerSelected,
}

impl Refusal {
    /// What a delivery that is replayed alone can meet, for documents.
    pub const OF_ONE: [Self; 7] = [
        Self::InFlight,
        Self::Cancelled,
        Self::SubscriptionDisabled,
        Self::SubscriptionDeleted,
        Self::AlreadyReplaying,
        Self::WaitsItsTurn,
        Self::EventRemoved,
    ];

    /// The name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InFlight => "in_flight",
            Self::Cancelled => "cancelled",
            Self::SubscriptionDisabled => "subscription_disabled",
            Self::SubscriptionDeleted => "subscription_deleted",
            Self::AlreadyReplaying => "already_replaying",
            Self::WaitsItsTurn => "waits_its_turn",
            Self::EventRemoved => "event_removed",
            Self::NoLongerSelected => "no_longer_selected",
        }
    }

    /// It in words.
    pub fn told(self) -> &'static str {
        match self {
            Self::InFlight => "The delivery is being sent at this moment.",
            Self::Cancelled => "The delivery was cancelled with its subscription.",
            Self::SubscriptionDisabled => "The subscription is disabled.",
            Self::SubscriptionDeleted => "The subscription was deleted.",
            Self::AlreadyReplaying => "The delivery is being replayed already.",
            Self::WaitsItsTurn => "The delivery waits for an earlier one of its edition.",
            Self::EventRemoved => "The event is no longer kept.",
            Self::NoLongerSelected => "The delivery was settled or removed before its turn came.",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A delivery that was replayed alone, for the audit log.
#[derive(Clone, Debug)]
pub struct ReplayedDelivery<'a> {
    /// The tenant.
    pub workspace: &'a WorkspaceId,
    /// Which delivery.
    pub id: DeliveryId,
    /// What it was before.
    pub was: Was,
}

impl Audited for ReplayedDelivery<'_> {
    fn workspace(&self) -> &WorkspaceId {
        self.workspace
    }

    fn object(&self) -> String {
        self.id.to_string()
    }

    fn state(&self) -> Value {
        json!({"was": self.was.as_str()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delivery::Step;

    #[test]
    fn what_can_be_replayed_is_what_the_state_machine_has_the_step_for() {
        for state in DeliveryState::ALL {
            assert_eq!(
                Was::of(state).is_ok(),
                state.after(Step::Replay).is_ok(),
                "{state}"
            );
        }
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for was in Was::ALL {
            assert_eq!(was.as_str().parse(), Ok(was));
        }
        for refusal in Refusal::OF_ONE
            .into_iter()
            .chain([Refusal::NoLongerSelected])
        {
            let json = Value::from(refusal.as_str());
            assert_eq!(serde_json::from_value::<Refusal>(json).unwrap(), refusal);
        }
    }
}
