//! The rules by which a bounded good is shared out: slots (requests in flight), rooms (leased
//! deliveries in memory) and bytes. Pure; [`super::lines`] keeps the books.
//!
//! - Each lane has its own share, so that fresh work, retries and replays do not starve each other.
//! - A subscription has at most its limit in flight, and within it each lane its share.
//! - Of a lane but its last quarter, a subscription has at most as much as is still free (the dynamic
//!   threshold of shared-buffer switches).
//! - The last quarter is for subscriptions with nothing of it, and for workspaces with little of it;
//!   its last quarter, a sixteenth of all, only for subscriptions with nothing of workspaces with
//!   little. However many receivers hang, the next subscription gets its turn, as long as there are not
//!   dozens of them; and however many of one workspace do, the next workspace gets its turn. (Of fewer
//!   than sixteen nothing can be kept for that.)

use crate::domain::delivery::Lane;

/// How many leased deliveries may be in memory for each slot. Enough that a batch is accepted while
/// the one before it is sent, and that a claim takes hundreds; a sender that has its next delivery
/// at hand never waits for the database.
pub(super) const ROOMS_PER_SLOT: usize = 64;

/// One of a thing for each lane.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PerLane<T> {
    pub(super) fresh: T,
    pub(super) retry: T,
    pub(super) replay: T,
}

impl<T> PerLane<T> {
    pub(super) fn each(make: impl Fn(Lane) -> T) -> Self {
        Self {
            fresh: make(Lane::Fresh),
            retry: make(Lane::Retry),
            replay: make(Lane::Replay),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        [&self.fresh, &self.retry, &self.replay].into_iter()
    }

    pub(super) fn of(&self, lane: Lane) -> &T {
        match lane {
            Lane::Fresh => &self.fresh,
            Lane::Retry => &self.retry,
            Lane::Replay => &self.replay,
        }
    }

    pub(super) fn of_mut(&mut self, lane: Lane) -> &mut T {
        match lane {
            Lane::Fresh => &mut self.fresh,
            Lane::Retry => &mut self.retry,
            Lane::Replay => &mut self.replay,
        }
    }
}

/// A number of things, and how many of them are free.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pool {
    all: usize,
    free: usize,
}

impl Pool {
    /// All of them free.
    pub(super) fn of(all: usize) -> Self {
        Self { all, free: all }
    }

    /// For all lanes out of `concurrency` slots, so many of a thing for each slot. What no lane may
    /// take from another: a quarter is for retries and an eighth for replays, one slot at least.
    pub(super) fn shared(concurrency: usize, for_each: usize) -> PerLane<Self> {
        let (retry, replay) = [Lane::Retry, Lane::Replay]
            .map(|lane| lane_share(lane, concurrency))
            .into();
        let fresh = concurrency.saturating_sub(retry + replay).max(1);
        PerLane {
            fresh: Self::of(fresh * for_each),
            retry: Self::of(retry * for_each),
            replay: Self::of(replay * for_each),
        }
    }

    /// How many are taken.
    pub(super) fn taken(self) -> usize {
        self.all - self.free
    }

    /// None is free.
    pub(super) fn is_spent(self) -> bool {
        self.free == 0
    }

    /// How many one may have at most while things are as they are, if it has something already.
    fn most_of_one(self) -> usize {
        self.free.saturating_sub(self.all / 4)
    }

    /// Whether a subscription that has `has` of them, of a workspace that has `of_workspace` in all,
    /// may have one more.
    pub(super) fn allows(self, of_workspace: usize, has: usize) -> bool {
        let has_little = of_workspace == 0 || of_workspace < self.free / 4;
        if has < self.most_of_one() {
            true
        } else if self.free > self.all / 16 {
            has == 0 || has_little
        } else {
            self.free > 0 && has == 0 && has_little
        }
    }

    /// Takes one; [`allows`](Self::allows) was asked before.
    pub(super) fn take(&mut self) {
        self.free = self.free.saturating_sub(1);
    }

    /// Gives one back.
    pub(super) fn give(&mut self) {
        debug_assert!(
            self.free < self.all,
            "nothing is given back that was not taken"
        );
        self.free = (self.free + 1).min(self.all);
    }
}

/// How much of a subscription's limit a lane may take at most: retries a quarter of it, replays an
/// eighth, one at least, and fresh work all but the quarter. Where all want their most there is not
/// enough for that, and the lanes take turns.
pub(super) fn lane_share(lane: Lane, limit: usize) -> usize {
    let retry = (limit / 4).max(1);
    match lane {
        Lane::Replay => (limit / 8).max(1),
        Lane::Retry => retry,
        Lane::Fresh => limit.saturating_sub(retry).max(1),
    }
}

/// Bytes of event text in memory. A bound on what is taken, not on the size of one: the first
/// delivery of a subscription goes whatever its size.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes {
    most: usize,
    held: usize,
}

impl Bytes {
    pub(super) fn of(most: usize) -> Self {
        Self { most, held: 0 }
    }

    /// How many may still be taken.
    pub(super) fn free(self) -> usize {
        self.most.saturating_sub(self.held)
    }

    /// How many are taken.
    #[cfg(test)]
    pub(super) fn taken(self) -> usize {
        self.held
    }

    /// Whether one that holds `has` may take `more`: the same rule as for slots.
    pub(super) fn allows(self, has: usize, more: usize) -> bool {
        has + more <= self.free().saturating_sub(self.most / 4)
    }

    pub(super) fn take(&mut self, bytes: usize) {
        self.held += bytes;
    }

    pub(super) fn give(&mut self, bytes: usize) {
        debug_assert!(
            bytes <= self.held,
            "nothing is given back that was not taken"
        );
        self.held = self.held.saturating_sub(bytes);
    }
}
