//! What a replay does to a delivery that was found, the same in both databases.

use super::Requeued;
use crate::domain::delivery::DeliveryState;
use crate::domain::replay::{Refusal, Was};

/// Where a delivery that is to be replayed was found, under a lock that is held to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Place {
    /// In the queue.
    Queue { leased: bool, replaying: bool },
    /// There, behind others of its edition.
    Blocked { replaying: bool },
    /// In history, and nowhere else.
    History {
        state: DeliveryState,
        event_is_kept: bool,
    },
}

/// Whether a subscription takes replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Taker {
    Active,
    Disabled,
    Deleted,
}

impl Taker {
    /// By the status that is kept.
    pub(in crate::store) fn of(status: Option<&str>) -> Self {
        match status {
            Some("active") => Self::Active,
            Some("disabled") => Self::Disabled,
            _ => Self::Deleted,
        }
    }

    /// Why it does not, if it does not.
    pub(in crate::store) fn takes(self) -> std::result::Result<(), Refusal> {
        match self {
            Self::Active => Ok(()),
            Self::Disabled => Err(Refusal::SubscriptionDisabled),
            Self::Deleted => Err(Refusal::SubscriptionDeleted),
        }
    }
}

/// What a replay does to a delivery that was found there.
pub(in crate::store) fn judge(place: Place, taker: Taker) -> Requeued {
    let was = match place {
        Place::Queue { leased: true, .. } => Err(Refusal::InFlight),
        Place::Queue {
            replaying: true, ..
        }
        | Place::Blocked { replaying: true } => Err(Refusal::AlreadyReplaying),
        Place::Queue { .. } | Place::Blocked { .. } => Ok(Was::Pending),
        Place::History { state, .. } => Was::of(state),
    }?;
    taker.takes()?;
    match place {
        Place::History {
            event_is_kept: false,
            ..
        } => Err(Refusal::EventRemoved),
        Place::Blocked { .. } => Err(Refusal::WaitsItsTurn),
        _ => Ok(was),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_place_has_its_answer() {
        let waiting = Place::Queue {
            leased: false,
            replaying: false,
        };
        let settled = |state| Place::History {
            state,
            event_is_kept: true,
        };
        let forgotten = Place::History {
            state: DeliveryState::Failed,
            event_is_kept: false,
        };
        for (place, answer) in [
            (waiting, Ok(Was::Pending)),
            (settled(DeliveryState::Failed), Ok(Was::Failed)),
            (settled(DeliveryState::Succeeded), Ok(Was::Succeeded)),
            (settled(DeliveryState::Cancelled), Err(Refusal::Cancelled)),
            (forgotten, Err(Refusal::EventRemoved)),
            (
                Place::Blocked { replaying: false },
                Err(Refusal::WaitsItsTurn),
            ),
            (
                Place::Blocked { replaying: true },
                Err(Refusal::AlreadyReplaying),
            ),
            (
                Place::Queue {
                    leased: true,
                    replaying: true,
                },
                Err(Refusal::InFlight),
            ),
            (
                Place::Queue {
                    leased: false,
                    replaying: true,
                },
                Err(Refusal::AlreadyReplaying),
            ),
        ] {
            assert_eq!(judge(place, Taker::Active), answer, "{place:?}");
        }
        for (taker, refusal) in [
            (Taker::Disabled, Refusal::SubscriptionDisabled),
            (Taker::Deleted, Refusal::SubscriptionDeleted),
        ] {
            assert_eq!(judge(waiting, taker), Err(refusal));
            assert_eq!(
                judge(settled(DeliveryState::Succeeded), taker),
                Err(refusal)
            );
        }
    }
}
