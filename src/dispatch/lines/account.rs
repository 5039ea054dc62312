//! What one subscription has in the lines. A part of [`super::books`]; plain state like the rest of it.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::super::permits::{PerLane, ROOMS_PER_SLOT, lane_share};
use crate::domain::delivery::Lane;
use crate::domain::ids::WorkspaceId;
use crate::store::LeasedDelivery;
use crate::store::intake::Permit;

/// How many deliveries are claimed at first for each slot of a line that nobody has seen moving.
const CLAIMED_PER_SLOT: usize = 2;

/// Deliveries of one subscription that a batch of events makes, at most.
const BATCH: usize = 1_000;

/// One subscription's part.
pub(super) struct Account {
    pub(super) workspace: WorkspaceId,
    /// Requests at once from all processes.
    pub(super) limit_of_all: usize,
    /// This one's part of that.
    pub(super) limit: usize,
    pub(super) lines: PerLane<Line>,
    pub(super) bytes: usize,
    /// Whether fresh deliveries of this subscription wait in the database: newer ones then queue
    /// up behind them instead of overtaking.
    pub(super) backlogged: bool,
    /// A writer waited for rooms in vain: it is not waited for again before it has room.
    pub(super) stalled: bool,
}

#[derive(Default)]
pub(super) struct Line {
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) in_flight: usize,
    /// Rooms taken: reserved, waiting and in flight.
    pub(super) rooms: usize,
    /// How many rooms it may take: fewer for a receiver whose deliveries wait too long.
    pub(super) most_rooms: usize,
    /// How many of these claims may fill: few at first, more as the line moves. What is claimed for a
    /// receiver that hangs is given back a moment later, and for its neighbours' sake that is little.
    pub(super) most_claimed: usize,
    /// Whether it has a place in the order of turns.
    pub(super) is_ready: bool,
}

/// What became of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// A delivery left it: its line moved.
    ForDelivery,
    /// There was none for it.
    None,
}

/// A leased delivery with its room.
pub(super) struct Waiting {
    pub(super) delivery: LeasedDelivery,
    pub(super) room: Permit,
    pub(super) since: Instant,
}

/// One process's part of a limit that holds for all: at least one, and so at most one too many each.
pub(super) fn part_of(limit: usize, replicas: u32) -> usize {
    limit.div_ceil(replicas.try_into().unwrap_or(usize::MAX))
}

impl Account {
    pub(super) fn new(workspace: WorkspaceId, limit: usize) -> Self {
        let line = |lane| Line {
            most_rooms: lane_share(lane, limit) * ROOMS_PER_SLOT,
            most_claimed: lane_share(lane, limit) * CLAIMED_PER_SLOT,
            ..Line::default()
        };
        Self {
            workspace,
            limit_of_all: limit,
            limit,
            lines: PerLane::each(line),
            bytes: 0,
            backlogged: false,
            stalled: false,
        }
    }

    /// A line has a delivery less; whether it was crowded until now, or had enough for claims. Half empty,
    /// it may become longer; nearly empty, writers may wait for it again.
    pub(super) fn shrink(&mut self, lane: Lane, use_of: Use) -> bool {
        let full = lane_share(lane, self.limit) * ROOMS_PER_SLOT;
        let queue = self.lines.of_mut(lane);
        let (was_crowded, was_enough) = (queue.is_crowded(), queue.has_enough());
        queue.rooms -= 1;
        let is_relieved = was_crowded && !queue.is_crowded();
        let is_short = was_enough && !queue.has_enough();
        if is_relieved {
            queue.most_rooms = (queue.most_rooms * 2).min(full);
        }
        if is_short && use_of == Use::ForDelivery {
            queue.most_claimed = (queue.most_claimed * 2).min(full);
        }
        if lane == Lane::Fresh && queue.rooms <= full / 8 {
            self.stalled = false;
        }
        is_relieved || is_short
    }

    /// Whether one more request would be more than the subscription, or its lane, may have.
    pub(super) fn is_at_limit(&self, lane: Lane) -> bool {
        let of_all: usize = self.lines.iter().map(|line| line.in_flight).sum();
        of_all >= self.limit || self.lines.of(lane).in_flight >= lane_share(lane, self.limit)
    }

    /// Nothing of it is in memory.
    pub(super) fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.rooms == 0)
    }

    /// Nothing is lost if it is forgotten.
    pub(super) fn is_idle(&self) -> bool {
        self.is_empty() && !self.backlogged
    }

    /// Whether a batch might find no room that would have some in a moment. A line that cannot take
    /// a batch at all is not waited for, nor one that was waited for in vain.
    pub(super) fn holds_writers_back(&self) -> bool {
        let queue = &self.lines.fresh;
        queue.is_crowded() && queue.most_rooms >= BATCH && !self.backlogged && !self.stalled
    }
}

impl Line {
    /// More than half full.
    pub(super) fn is_crowded(&self) -> bool {
        self.rooms > self.most_rooms / 2
    }

    /// More than half full of what claims may fill: another would not be worth its while.
    pub(super) fn has_enough(&self) -> bool {
        self.rooms > self.most_claimed.min(self.most_rooms) / 2
    }

    /// How many more a claim may take.
    pub(super) fn wants(&self) -> usize {
        self.most_claimed
            .min(self.most_rooms)
            .saturating_sub(self.rooms)
    }

    /// Becomes shorter, down to this.
    pub(super) fn shorten(&mut self, least: usize) {
        self.most_rooms = (self.most_rooms / 2).max(least);
        self.most_claimed = least;
    }
}
