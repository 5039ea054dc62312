//! The books behind the lines: who has what, and whose turn it is. Plain state; [`super::Lines`]
//! keeps it behind its lock.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU32;

use tokio::time::Instant;

use super::super::permits::{Bytes, PerLane, Pool, ROOMS_PER_SLOT, lane_share};
use super::account::{Account, Use, Waiting, part_of};
use super::meters::Meters;
use super::workspaces::Workspaces;
use crate::config;
use crate::domain::delivery::Lane;
use crate::domain::ids::{SubscriptionId, WorkspaceId};
use crate::store::targets::Target;

pub(super) struct Books {
    slots: PerLane<Pool>,
    rooms: PerLane<Pool>,
    bytes: Bytes,
    accounts: HashMap<SubscriptionId, Account>,
    workspaces: Workspaces,
    /// The lane that is asked last.
    last: Lane,
    /// A line was refused a room that it might have had, were others not so full.
    is_short: bool,
    doors: Doors,
    meters: Meters,
}

/// Whether rooms are given at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doors {
    Open,
    /// Outcomes cannot be written at the moment, or not yet.
    Suspended,
    /// The program is stopping.
    Closed,
}

impl Books {
    /// Nothing taken.
    pub(super) fn new(settings: &config::Dispatch) -> Self {
        Self {
            slots: Pool::shared(settings.concurrency, 1),
            rooms: Pool::shared(settings.concurrency, ROOMS_PER_SLOT),
            bytes: Bytes::of(settings.max_bytes_in_flight),
            accounts: HashMap::new(),
            workspaces: Workspaces::default(),
            last: Lane::Replay,
            is_short: false,
            doors: Doors::Open,
            meters: Meters::new(),
        }
    }

    /// Takes a room for a fresh delivery, unless older ones wait in the database.
    pub(super) fn admit(&mut self, target: &Target, limit: usize, bytes: usize) -> bool {
        if self.account(target, limit).backlogged {
            return false;
        }
        let taken = self.take_room(target, Lane::Fresh, bytes);
        // What is refused now waits in the database, and what comes next waits behind it.
        self.account(target, limit).backlogged = !taken;
        taken
    }

    /// Puts a delivery that has a room at the end of its line.
    pub(super) fn push(&mut self, limit: usize, waiting: Waiting) {
        let (id, lane) = (waiting.delivery.target.id(), waiting.delivery.lane);
        let account = self.account(&waiting.delivery.target, limit);
        account.lines.of_mut(lane).waiting.push_back(waiting);
        self.make_ready(id, lane);
    }

    /// Halves the rooms that the line may take, down to its slots; claims are for no more than these.
    pub(super) fn shorten(&mut self, id: SubscriptionId, lane: Lane) {
        if let Some(account) = self.accounts.get_mut(&id) {
            let least = lane_share(lane, account.limit);
            account.lines.of_mut(lane).shorten(least);
        }
    }

    /// Counts bytes of a delivery that has its room already.
    pub(super) fn charge(&mut self, id: SubscriptionId, bytes: usize) {
        self.bytes.take(bytes);
        if let Some(account) = self.accounts.get_mut(&id) {
            account.bytes += bytes;
        }
    }

    /// Bytes that may still be taken.
    pub(super) fn bytes_free(&self) -> usize {
        self.bytes.free()
    }

    /// Slots taken.
    pub(super) fn in_flight(&self) -> usize {
        self.slots.iter().map(|pool| pool.taken()).sum()
    }

    /// Notes which subscriptions have fresh deliveries waiting in the database.
    pub(super) fn set_backlogged(&mut self, waiting: impl Fn(SubscriptionId) -> bool) {
        self.meters.tidy(Instant::now());
        self.accounts.retain(|id, account| {
            account.backlogged = waiting(*id);
            !account.is_idle()
        });
        self.workspaces.tidy();
    }

    /// Notes that these have some.
    pub(super) fn fell_behind(&mut self, subscriptions: &[SubscriptionId]) {
        for id in subscriptions {
            if let Some(account) = self.accounts.get_mut(id) {
                account.backlogged = true;
            }
        }
    }

    /// Notes that none of this one do.
    pub(super) fn caught_up(&mut self, id: SubscriptionId) {
        if let Some(account) = self.accounts.get_mut(&id) {
            account.backlogged = false;
        }
    }

    /// No room is given any more.
    pub(super) fn close(&mut self) {
        self.doors = Doors::Closed;
    }

    /// No room is given for now.
    pub(super) fn suspend(&mut self) {
        if self.doors == Doors::Open {
            self.doors = Doors::Suspended;
        }
    }

    /// Ends a suspension; whether there was one.
    pub(super) fn resume(&mut self) -> bool {
        let suspended = self.doors == Doors::Suspended;
        if suspended {
            self.doors = Doors::Open;
        }
        suspended
    }

    /// The account of one that may have so many requests at once from all processes together.
    pub(super) fn account(&mut self, target: &Target, limit_of_all: usize) -> &mut Account {
        let limit = part_of(limit_of_all, self.meters.replicas());
        let account = self
            .accounts
            .entry(target.id())
            .or_insert_with(|| Account::new(target.subscription.workspace.clone(), limit));
        account.limit_of_all = limit_of_all;
        account.limit = limit;
        account
    }

    /// When there is a token for this one again, if it waits for one.
    pub(super) fn token_at(&mut self, target: &Target) -> Option<Instant> {
        self.meters.ready_at(target, Instant::now())
    }

    /// Gives back a token that came to nothing.
    pub(super) fn give_token(&mut self, id: SubscriptionId) {
        self.meters.give_back(id);
    }

    /// Among how many processes limits are divided. What is in flight beyond a smaller part ends by
    /// itself.
    pub(super) fn set_replicas(&mut self, replicas: NonZeroU32) {
        self.meters.set_replicas(replicas);
        for account in self.accounts.values_mut() {
            account.limit = part_of(account.limit_of_all, replicas.get());
        }
    }

    /// Takes a room if the line, its lane, the bytes and the rate allow it.
    pub(super) fn take_room(&mut self, target: &Target, lane: Lane, bytes: usize) -> bool {
        let Some(account) = self.accounts.get_mut(&target.id()) else {
            return false;
        };
        let queue = account.lines.of(lane);
        if self.doors != Doors::Open || queue.rooms >= queue.most_rooms {
            return false;
        }
        let rooms = self.rooms.of_mut(lane);
        let part = self.workspaces.part(&account.workspace, lane);
        let fits = account.is_empty() || self.bytes.allows(account.bytes, bytes);
        if !fits || !rooms.allows(part.rooms, queue.rooms) {
            self.is_short = true;
            return false;
        }
        if !self.meters.take(target, Instant::now()) {
            return false;
        }
        rooms.take();
        part.rooms += 1;
        self.bytes.take(bytes);
        account.bytes += bytes;
        account.lines.of_mut(lane).rooms += 1;
        true
    }

    /// Gives a room back; whether that is worth telling: its line was more than half full until now, or had
    /// enough for claims, or a room was refused because all lines together have too much.
    pub(super) fn give_room(
        &mut self,
        (id, lane): (SubscriptionId, Lane),
        bytes: usize,
        use_of: Use,
    ) -> bool {
        self.rooms.of_mut(lane).give();
        self.bytes.give(bytes);
        let Entry::Occupied(mut entry) = self.accounts.entry(id) else {
            return false;
        };
        let account = entry.get_mut();
        account.bytes -= bytes;
        self.workspaces.part(&account.workspace, lane).rooms -= 1;
        let is_relieved = account.shrink(lane, use_of) || std::mem::take(&mut self.is_short);
        if account.is_idle() {
            entry.remove();
        }
        is_relieved
    }

    /// Gives the line a place in the order of turns, if something waits in it.
    fn make_ready(&mut self, id: SubscriptionId, lane: Lane) {
        if let Some(account) = self.accounts.get_mut(&id) {
            let queue = account.lines.of_mut(lane);
            if !queue.is_ready && !queue.waiting.is_empty() {
                queue.is_ready = true;
                self.workspaces.make_ready(&account.workspace, id, lane);
            }
        }
    }

    /// Takes the next delivery that may be sent now; the lanes take turns.
    pub(super) fn next(&mut self) -> Option<Waiting> {
        self.last.behind().into_iter().find_map(|lane| {
            let next = self.next_of(lane)?;
            self.last = lane;
            Some(next)
        })
    }

    /// Takes the first delivery of the lane that may be sent now: workspaces take turns, and within
    /// one its lines do.
    fn next_of(&mut self, lane: Lane) -> Option<Waiting> {
        for _ in 0..self.workspaces.in_turn(lane) {
            if self.slots.of(lane).is_spent() {
                return None;
            }
            let workspace = self.workspaces.begin_turn(lane)?;
            let next = self.next_within(&workspace, lane);
            self.workspaces.end_turn(workspace, lane);
            if next.is_some() {
                return next;
            }
        }
        None
    }

    fn next_within(&mut self, workspace: &WorkspaceId, lane: Lane) -> Option<Waiting> {
        let slots = self.slots.of_mut(lane);
        let part = self.workspaces.part(workspace, lane);
        if !slots.allows(part.in_flight, 0) {
            return None;
        }
        for _ in 0..part.ready.len() {
            let id = part.ready.pop_front()?;
            let Some(account) = self.accounts.get_mut(&id) else {
                continue;
            };
            let is_at_limit = account.is_at_limit(lane);
            let queue = account.lines.of_mut(lane);
            if is_at_limit {
                queue.is_ready = false;
                continue;
            }
            if !slots.allows(part.in_flight, queue.in_flight) {
                part.ready.push_back(id);
                continue;
            }
            let next = queue.waiting.pop_front();
            queue.is_ready = !queue.waiting.is_empty();
            if queue.is_ready {
                part.ready.push_back(id);
            }
            if next.is_some() {
                slots.take();
                part.in_flight += 1;
                queue.in_flight += 1;
                return next;
            }
        }
        None
    }

    pub(super) fn land(&mut self, id: SubscriptionId, lane: Lane) {
        self.slots.of_mut(lane).give();
        if let Some(account) = self.accounts.get_mut(&id) {
            account.lines.of_mut(lane).in_flight -= 1;
            self.workspaces.part(&account.workspace, lane).in_flight -= 1;
        }
        // Each lane may have been at the subscription's limit.
        for lane in Lane::ALL {
            self.make_ready(id, lane);
        }
    }

    /// Whether the line has so much that a claim would not be worth its while.
    pub(super) fn has_enough(&self, id: SubscriptionId, lane: Lane) -> bool {
        self.accounts
            .get(&id)
            .is_some_and(|account| account.lines.of(lane).has_enough())
    }

    pub(super) fn is_crowded(&self) -> bool {
        let mut accounts = self.accounts.values();
        self.doors == Doors::Open && accounts.any(Account::holds_writers_back)
    }

    /// Nothing is taken, and nobody has an account.
    #[cfg(test)]
    pub(super) fn is_pristine(&self) -> bool {
        let pools = [self.slots, self.rooms];
        let taken: usize = pools
            .iter()
            .flat_map(PerLane::iter)
            .map(|pool| pool.taken())
            .sum();
        taken + self.bytes.taken() == 0 && self.accounts.is_empty() && self.workspaces.is_empty()
    }

    pub(super) fn give_up_on_crowded(&mut self) {
        for account in self.accounts.values_mut() {
            account.stalled |= account.holds_writers_back();
        }
    }
}
