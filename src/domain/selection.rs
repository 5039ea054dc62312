//! Replay of many: which deliveries, and how far that is.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::delivery::DeliveryState;
use super::filter::{EventFilter, EventType};
use super::ids::{EditionId, EventId, ProjectId, SubscriptionId};
use super::replay::Refusal;

/// Deliveries a second, unless it is said: enough to be done in an hour with a million and a half.
pub const DEFAULT_RATE: u32 = 500;

/// The most deliveries a second that may be asked for: what the runner can put into the queue, a step of a
/// thousand in each of its five turns.
pub const MAX_RATE: u32 = 5_000;

/// The most types that a selection names.
pub const MAX_TYPES: usize = 100;

/// The type of what a test send sends. It is sent again only where it is named.
const TEST: &str = "ping";

/// Which deliveries a replay of many is of. All conditions hold at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// Of this event.
    pub event_id: Option<EventId>,
    /// To this subscription.
    pub subscription_id: Option<SubscriptionId>,
    /// Of events of these types; none named is all.
    pub types: Vec<EventFilter>,
    /// In these states; none named is no delivery that was ever made.
    pub states: Vec<DeliveryState>,
    /// Made at this instant or later.
    pub from: Option<DateTime<Utc>>,
    /// Made before this instant.
    pub to: Option<DateTime<Utc>>,
    /// Of events about this edition.
    pub edition_id: Option<EditionId>,
    /// Of events about this project.
    pub project_id: Option<ProjectId>,
    /// And those that were never made, of events which came before the subscription asked for them.
    pub backfill: bool,
}

impl Default for Selection {
    /// Everything that failed for good.
    fn default() -> Self {
        Self {
            event_id: None,
            subscription_id: None,
            types: Vec::new(),
            states: vec![DeliveryState::Failed],
            from: None,
            to: None,
            edition_id: None,
            project_id: None,
            backfill: false,
        }
    }
}

/// What of an event a selection goes by.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// Its type.
    pub event_type: &'a EventType,
    /// Its project.
    pub project: Option<&'a ProjectId>,
    /// Its edition.
    pub edition: Option<&'a EditionId>,
}

impl Selection {
    /// All deliveries of one event, whatever their state. Who names the subscription too wants it to get
    /// the event, though it may not have been there when that came.
    pub fn of_event(event: EventId, subscription: Option<SubscriptionId>) -> Self {
        Self {
            event_id: Some(event),
            subscription_id: subscription,
            states: DeliveryState::ALL.to_vec(),
            backfill: subscription.is_some(),
            ..Self::default()
        }
    }

    /// What a subscription missed since then: what failed for good, and what was never made.
    pub fn missed(subscription: SubscriptionId, since: DateTime<Utc>) -> Self {
        Self {
            subscription_id: Some(subscription),
            from: Some(since),
            backfill: true,
            ..Self::default()
        }
    }

    /// Whether an event is one of those selected, as far as that is a matter of what it is about.
    pub fn takes(&self, about: About<'_>) -> bool {
        let type_matches = if self.types.is_empty() {
            self.event_id.is_some() || about.event_type.as_str() != TEST
        } else {
            self.types.iter().any(|it| it.matches(about.event_type))
        };
        let wanted = |wanted: Option<&str>, found: Option<&str>| {
            wanted.is_none_or(|wanted| found == Some(wanted))
        };
        type_matches
            && wanted(
                self.project_id.as_ref().map(ProjectId::as_str),
                about.project.map(ProjectId::as_str),
            )
            && wanted(
                self.edition_id.as_ref().map(EditionId::as_str),
                about.edition.map(EditionId::as_str),
            )
    }

    /// Whether the queue can hold what is selected.
    pub fn in_queue(&self) -> bool {
        self.states.iter().any(|state| !state.is_final())
    }

    /// Whether the history can.
    pub fn in_history(&self) -> bool {
        self.states.iter().any(|state| state.is_final())
    }
}

/// Where a replay of many stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplayState {
    /// Its deliveries are being counted.
    Pending,
    /// They are being put into the queue, or sent.
    Running,
    /// Each was sent, or skipped.
    Done,
    /// Somebody ended it early.
    Cancelled,
}

impl ReplayState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Pending, Self::Running, Self::Done, Self::Cancelled];

    /// The name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more is put into the queue.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled)
    }
}

impl fmt::Display for ReplayState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ReplayState {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == text)
            .ok_or_else(|| format!("no state of a replay `{text}`"))
    }
}

/// How many deliveries were skipped, by the reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Skipped(pub BTreeMap<Refusal, u64>);

impl Skipped {
    /// So many more.
    pub fn add(&mut self, reason: Refusal, count: u64) {
        if count > 0 {
            *self.0.entry(reason).or_default() += count;
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about<'a>(event_type: &'a EventType, project: Option<&'a ProjectId>) -> About<'a> {
        About {
            event_type,
            project,
            edition: None,
        }
    }

    #[test]
    fn all_conditions_hold_at_once() {
        let submitted = EventType::new("edition.submitted").unwrap();
        let generated = EventType::new("output.generated").unwrap();
        let project = ProjectId::new("pr_1").unwrap();
        let any = Selection::default();
        assert!(any.takes(about(&submitted, None)));
        let some = Selection {
            types: vec!["edition.*".parse().unwrap()],
            project_id: Some(project.clone()),
            ..Selection::default()
        };
        assert!(some.takes(about(&submitted, Some(&project))));
        assert!(!some.takes(about(&generated, Some(&project))));
        assert!(!some.takes(about(&submitted, None)));
        let of_edition = Selection {
            edition_id: Some(EditionId::new("ed_1").unwrap()),
            ..Selection::default()
        };
        assert!(!of_edition.takes(about(&submitted, None)));
    }

    #[test]
    fn a_test_is_sent_again_only_where_it_is_named() {
        let ping = EventType::new(TEST).unwrap();
        let takes = |selection: Selection| selection.takes(about(&ping, None));
        assert!(!takes(Selection::default()));
        assert!(takes(Selection {
            types: vec![TEST.parse().unwrap()],
            ..Selection::default()
        }));
        let event = crate::domain::ids::new_id(DateTime::UNIX_EPOCH, [1; 10]);
        assert!(takes(Selection::of_event(event, None)));
    }

    #[test]
    fn what_is_kept_is_read_as_it_was_written() {
        let selection = Selection {
            types: vec!["*".parse().unwrap(), "edition.*".parse().unwrap()],
            from: DateTime::from_timestamp_millis(1_777_626_000_123),
            project_id: Some(ProjectId::new("pr_1").unwrap()),
            backfill: true,
            ..Selection::default()
        };
        let text = serde_json::to_string(&selection).unwrap();
        assert_eq!(serde_json::from_str::<Selection>(&text).unwrap(), selection);

        let mut skipped = Skipped::default();
        skipped.add(Refusal::InFlight, 2);
        skipped.add(Refusal::Cancelled, 0);
        let text = serde_json::to_string(&skipped).unwrap();
        assert_eq!(text, r#"{"in_flight":2}"#);
        assert_eq!(serde_json::from_str::<Skipped>(&text).unwrap(), skipped);
    }

    #[test]
    fn states_are_read_by_their_names() {
        for state in ReplayState::ALL {
            assert_eq!(state.as_str().parse(), Ok(state));
        }
    }
}
