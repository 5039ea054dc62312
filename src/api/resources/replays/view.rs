//! Replays of many as they are shown.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;

use super::asked;
use crate::domain::delivery::DeliveryState;
use crate::domain::payload::timestamp;
use crate::domain::selection::{ReplayState, Selection};
use crate::store::ReplayRecord;
use crate::store::replays::Count;

/// A replay of many deliveries, and how far it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Replay)]
pub(super) struct View {
    /// Its id.
    #[schema(example = "rpl_01h455vb4pex5vsknk084sn02q")]
    id: String,
    /// `pending` while its deliveries are counted, `running`, `done` or `cancelled`.
    #[schema(schema_with = asked::replay_states_schema)]
    state: &'static str,
    /// The event whose deliveries are replayed; null where a filter selects them.
    event_id: Option<String>,
    /// The subscription that they go to; null for any.
    subscription_id: Option<String>,
    /// Which deliveries; null where they are those of an event.
    filter: Option<FilterView>,
    /// How many a second, at most.
    rate: u32,
    /// How many are selected; null until they are counted.
    total: Option<u64>,
    /// How many were put into the queue so far.
    queued: u64,
    /// How many of those were sent, and taken by their receivers.
    done: u64,
    /// How many of those were sent, and not taken. One that has a schedule is tried again by it.
    failed: u64,
    /// How many were skipped, by the reason: `in_flight`, `cancelled`, `subscription_disabled`,
    /// `subscription_deleted`, `already_replaying`, `waits_its_turn` (others of its edition are before
    /// it), `event_removed`, or `no_longer_selected` (settled or removed between the count and its turn).
    skipped: BTreeMap<&'static str, u64>,
    /// Who asked for it: a key's id, or `cli`.
    created_by: String,
    /// When.
    #[schema(format = DateTime)]
    created_at: String,
    /// When all of it was sent or put back.
    #[schema(format = DateTime)]
    finished_at: Option<String>,
}

/// Which deliveries a replay is of.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReplayFilter)]
pub(super) struct FilterView {
    /// Of events of these types; empty for all.
    types: Vec<String>,
    /// In these states.
    states: Vec<&'static str>,
    /// Made at this instant or later.
    #[schema(format = DateTime)]
    from: Option<String>,
    /// Made before this instant.
    #[schema(format = DateTime)]
    to: Option<String>,
    /// Of events about this edition.
    edition_id: Option<String>,
    /// Of events about this project.
    project_id: Option<String>,
    /// And those that were never made, since the subscription did not ask for their events then.
    backfill: bool,
}

/// How many deliveries a replay would be of.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ReplayCount)]
pub(super) struct CountView {
    /// How many.
    total: u64,
    /// Whether that is all of them; otherwise there may be more.
    exact: bool,
    /// The same by their state; `unmade` are those of a backfill.
    by_state: BTreeMap<&'static str, u64>,
}

impl View {
    pub(super) fn new(record: &ReplayRecord) -> Self {
        let selection = &record.selection;
        Self {
            id: record.id.to_string(),
            state: record.state.as_str(),
            event_id: selection.event_id.map(|id| id.to_string()),
            subscription_id: selection.subscription_id.map(|id| id.to_string()),
            filter: selection
                .event_id
                .is_none()
                .then(|| FilterView::new(selection)),
            rate: record.rate,
            total: (record.state != ReplayState::Pending).then_some(record.total),
            queued: record.queued,
            done: record.done,
            failed: record.failed,
            skipped: record
                .skipped
                .0
                .iter()
                .map(|(reason, count)| (reason.as_str(), *count))
                .collect(),
            created_by: record.created_by.to_string(),
            created_at: timestamp(record.created_at),
            finished_at: record.finished_at.map(timestamp),
        }
    }
}

impl FilterView {
    fn new(selection: &Selection) -> Self {
        Self {
            types: selection.types.iter().map(ToString::to_string).collect(),
            states: selection
                .states
                .iter()
                .copied()
                .map(DeliveryState::as_str)
                .collect(),
            from: selection.from.map(timestamp),
            to: selection.to.map(timestamp),
            edition_id: selection.edition_id.as_ref().map(ToString::to_string),
            project_id: selection.project_id.as_ref().map(ToString::to_string),
            backfill: selection.backfill,
        }
    }
}

impl CountView {
    pub(super) fn new(count: &Count) -> Self {
        Self {
            total: count.total(),
            exact: count.is_exact,
            by_state: count.by_state.clone(),
        }
    }
}
