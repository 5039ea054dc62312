//! What each workspace has, and whose turn it is to send: workspaces take turns, and within one its
//! lines do. A part of [`super::books`]; plain state like the rest of it.

use std::collections::{HashMap, VecDeque};

use super::super::permits::PerLane;
use crate::domain::delivery::Lane;
use crate::domain::ids::{SubscriptionId, WorkspaceId};

#[derive(Default)]
pub(super) struct Workspaces {
    /// Those that have something, and some that had.
    by_id: HashMap<WorkspaceId, PerLane<Part>>,
    /// Those of which lines are ready, each once, in the order of their turns.
    turns: PerLane<VecDeque<WorkspaceId>>,
}

/// One workspace's part of a lane.
#[derive(Default)]
pub(super) struct Part {
    pub(super) in_flight: usize,
    pub(super) rooms: usize,
    /// Lines with something waiting, each once, in the order of their turns. One that is at its
    /// subscription's limit is left out until a flight of that subscription ends.
    pub(super) ready: VecDeque<SubscriptionId>,
}

impl Workspaces {
    /// This one's part; nothing yet of one that was not there.
    pub(super) fn part(&mut self, workspace: &WorkspaceId, lane: Lane) -> &mut Part {
        let parts = self.by_id.entry(workspace.clone()).or_default();
        parts.of_mut(lane)
    }

    /// Gives a line a place in the order of turns, where it has none.
    pub(super) fn make_ready(&mut self, workspace: &WorkspaceId, id: SubscriptionId, lane: Lane) {
        let ready = &mut self.part(workspace, lane).ready;
        ready.push_back(id);
        if ready.len() == 1 {
            self.turns.of_mut(lane).push_back(workspace.clone());
        }
    }

    /// How many workspaces have lines that are ready.
    pub(super) fn in_turn(&self, lane: Lane) -> usize {
        self.turns.of(lane).len()
    }

    /// Whose turn it is. It ends with [`end_turn`](Self::end_turn).
    pub(super) fn begin_turn(&mut self, lane: Lane) -> Option<WorkspaceId> {
        self.turns.of_mut(lane).pop_front()
    }

    /// Puts it behind the others, if it has lines that are ready.
    pub(super) fn end_turn(&mut self, workspace: WorkspaceId, lane: Lane) {
        if !self.part(&workspace, lane).ready.is_empty() {
            self.turns.of_mut(lane).push_back(workspace);
        }
    }

    /// Forgets those that have nothing.
    pub(super) fn tidy(&mut self) {
        self.by_id
            .retain(|_, parts| parts.iter().any(|part| part.rooms > 0));
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty() && self.turns.iter().all(VecDeque::is_empty)
    }
}
