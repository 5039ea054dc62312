//! Leased deliveries in memory: a line for each subscription and lane, and who is next.
//!
//! A delivery comes in with a [`Room`] (admitted while it is written, or reserved for a claim), is
//! pushed into its line, and leaves it as a [`Flight`] when it is its line's turn and there is a
//! slot for it. Lines of a lane take turns, one delivery each, and so do the lanes. The rules of sharing are in
//! [`super::permits`]; everything is behind one lock that is held for a few comparisons.
//!
//! There is no pool of senders to wake: whoever ends a flight asks for the next, and whoever pushes
//! starts as many as there are slots for. As long as a line is blocked by others' flights, one of
//! those ends later and asks.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::permits::{Bytes, PerLane, Pool, ROOMS_PER_SLOT, lane_share};
use crate::config;
use crate::domain::delivery::Lane;
use crate::domain::ids::SubscriptionId;
use crate::store::LeasedDelivery;
use crate::store::intake::Permit;
use crate::store::targets::Target;
use crate::wake::Wake;

/// How long a writer waits for rooms, so that what it writes can be born leased.
const PATIENCE: Duration = Duration::from_millis(25);

/// Deliveries of one subscription that a batch of events makes, at most.
const BATCH: usize = 1_000;

/// The lines of this process.
pub struct Lines {
    books: Mutex<Books>,
    default_limit: usize,
    /// Rung when rooms have come back while the scheduler is hungry for them.
    freed: Wake,
    hungry: AtomicBool,
    /// For writers that wait: a crowded line is half empty again.
    relieved: Notify,
}

struct Books {
    slots: PerLane<Pool>,
    rooms: PerLane<Pool>,
    bytes: Bytes,
    accounts: HashMap<SubscriptionId, Account>,
    /// Lines with something waiting, each once, in the order of their turns. One that is at its
    /// subscription's limit is left out until a flight of that subscription ends.
    ready: PerLane<VecDeque<SubscriptionId>>,
    /// The lane that is asked last.
    last: Lane,
    doors: Doors,
}

/// Whether rooms are given at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doors {
    Open,
    /// Outcomes cannot be written at the moment.
    Suspended,
    /// The program is stopping.
    Closed,
}

/// One subscription's part.
struct Account {
    /// Requests at once.
    limit: usize,
    lines: PerLane<Line>,
    bytes: usize,
    /// Whether fresh deliveries of this subscription wait in the database: newer ones then queue
    /// up behind them instead of overtaking.
    backlogged: bool,
    /// A writer waited for rooms in vain: it is not waited for again before it has room.
    stalled: bool,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    in_flight: usize,
    /// Rooms taken: reserved, waiting and in flight.
    rooms: usize,
    /// How many rooms it may take: fewer for a receiver whose deliveries wait too long.
    most_rooms: usize,
    /// Whether it stands in [`Books::ready`].
    is_ready: bool,
}

/// A leased delivery with its room.
struct Waiting {
    delivery: LeasedDelivery,
    room: Permit,
    since: Instant,
}

/// The right to have one leased delivery in memory. Dropping it gives it back.
pub struct Room {
    lines: Arc<Lines>,
    subscription: SubscriptionId,
    lane: Lane,
    bytes: usize,
}

/// A delivery that is to be sent now, with a slot and its room. Dropping it gives both back.
pub struct Flight {
    lines: Arc<Lines>,
    /// What is to be sent.
    pub delivery: LeasedDelivery,
    /// Since when it has been waiting in its line.
    pub since: Instant,
    _room: Permit,
}

/// Whether the scheduler waits for rooms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hunger {
    /// There is due work and no room for it.
    Hungry,
    /// There is nothing to do with a room.
    Sated,
}

impl Lines {
    /// Empty lines, everything free.
    pub fn new(settings: &config::Dispatch) -> Self {
        let slots = Pool::slots(settings.concurrency);
        let rooms = |lane| Pool::of(lane_share(lane, settings.concurrency) * ROOMS_PER_SLOT);
        Self {
            books: Mutex::new(Books {
                slots,
                rooms: PerLane {
                    fresh: rooms(Lane::Fresh),
                    retry: rooms(Lane::Retry),
                },
                bytes: Bytes::of(settings.max_bytes_in_flight),
                accounts: HashMap::new(),
                ready: PerLane::default(),
                last: Lane::Retry,
                doors: Doors::Open,
            }),
            default_limit: settings.subscription_concurrency,
            freed: Wake::default(),
            hungry: AtomicBool::new(false),
            relieved: Notify::new(),
        }
    }

    /// A room for a fresh delivery that is being written right now, unless the subscription has
    /// older ones waiting in the database.
    pub fn admit(self: &Arc<Self>, target: &Target, bytes: usize) -> Option<Room> {
        let mut books = self.books();
        let account = books.account(target, self.limit(target));
        if account.backlogged {
            return None;
        }
        if !books.take_room(target.id(), Lane::Fresh, bytes) {
            // What is refused now waits in the database, and what comes next waits behind it.
            books.account(target, self.limit(target)).backlogged = true;
            return None;
        }
        Some(self.room(target.id(), Lane::Fresh, bytes))
    }

    /// Up to `wanted` rooms for deliveries about to be claimed, once the line is half empty: a claim
    /// is worth its while only for many. Their sizes are not known yet; [`Room::charge`] adds them.
    pub fn reserve(self: &Arc<Self>, target: &Target, lane: Lane, wanted: usize) -> Vec<Room> {
        let mut books = self.books();
        books.account(target, self.limit(target));
        (0..wanted)
            .map_while(|_| {
                books
                    .take_room(target.id(), lane, 0)
                    .then(|| self.room(target.id(), lane, 0))
            })
            .collect()
    }

    /// Whether a claim of this lane would take enough to be worth its while.
    pub fn has_room(&self, target: &Target, lane: Lane) -> bool {
        let books = self.books();
        let account = books.accounts.get(&target.id());
        account.is_none_or(|account| !account.lines.of(lane).is_crowded())
    }

    /// Waits until no line that moves is so full that the next batch would find no room, and for a
    /// moment at most: writing is held back rather than done twice (once to leave a delivery in the
    /// database, once to claim it), but a receiver that is slow holds back nobody else's events.
    pub async fn relief(&self) {
        let ends = Instant::now() + PATIENCE;
        loop {
            let relieved = self.relieved.notified();
            tokio::pin!(relieved);
            // Listening before looking: what is relieved from here on is heard.
            relieved.as_mut().enable();
            if !self.books().is_crowded() {
                return;
            }
            if timeout_at(ends, relieved).await.is_err() {
                self.books().give_up_on_crowded();
                return;
            }
        }
    }

    /// Takes deliveries into their lines. What can be sent at once comes out of [`next`](Self::next).
    pub fn push(&self, deliveries: impl IntoIterator<Item = (LeasedDelivery, Permit)>) {
        let since = Instant::now();
        let mut books = self.books();
        for (delivery, room) in deliveries {
            let (id, lane) = (delivery.target.id(), delivery.lane);
            let limit = self.limit(&delivery.target);
            let account = books.account(&delivery.target, limit);
            account.lines.of_mut(lane).waiting.push_back(Waiting {
                delivery,
                room,
                since,
            });
            books.make_ready(id, lane);
        }
    }

    /// The next delivery to be sent, if there is one and a slot for it.
    pub fn next(self: &Arc<Self>) -> Option<Flight> {
        let next = self.books().next();
        next.map(|waiting| self.flight(waiting))
    }

    /// Ends a flight and begins the next.
    pub fn finish(self: &Arc<Self>, flight: Flight) -> Option<Flight> {
        drop(flight);
        self.next()
    }

    /// Makes the line of this delivery shorter from now on, since it waited too long in it.
    pub fn shorten(&self, delivery: &LeasedDelivery) {
        let mut books = self.books();
        if let Some(account) = books.accounts.get_mut(&delivery.target.id()) {
            let least = lane_share(delivery.lane, account.limit);
            let line = account.lines.of_mut(delivery.lane);
            line.most_rooms = (line.most_rooms / 2).max(least);
        }
    }

    /// Bytes that may still be taken into memory.
    pub fn bytes_free(&self) -> usize {
        self.books().bytes.free()
    }

    /// How many requests are in flight.
    pub fn in_flight(&self) -> usize {
        let books = self.books();
        books.slots.fresh.taken() + books.slots.retry.taken()
    }

    /// Corrects which subscriptions have fresh deliveries waiting, from a look at the database.
    pub fn set_backlogged(&self, waiting: impl Fn(SubscriptionId) -> bool) {
        let mut books = self.books();
        books.accounts.retain(|id, account| {
            account.backlogged = waiting(*id);
            !account.is_idle()
        });
    }

    /// From now on no room is given. What has one is still sent or given back.
    pub fn close(&self) {
        self.books().doors = Doors::Closed;
    }

    /// Gives nothing while outcomes cannot be written: what is not known to be settled must not be
    /// claimed and sent again by this very process.
    pub fn suspend(&self) {
        let mut books = self.books();
        if books.doors == Doors::Open {
            books.doors = Doors::Suspended;
        }
    }

    /// Gives again, after [`suspend`](Self::suspend).
    pub fn resume(&self) {
        let mut books = self.books();
        if books.doors == Doors::Suspended {
            books.doors = Doors::Open;
            drop(books);
            self.freed.ring();
        }
    }

    /// Waits until a line has room again, since [`mark_hungry`](Self::mark_hungry).
    pub async fn room_freed(&self) {
        self.freed.rung().await;
    }

    /// Says whether somebody waits for rooms; without it none rings.
    pub fn mark_hungry(&self, hungry: Hunger) {
        self.hungry
            .store(hungry == Hunger::Hungry, Ordering::Release);
    }

    fn flight(self: &Arc<Self>, waiting: Waiting) -> Flight {
        Flight {
            lines: Arc::clone(self),
            delivery: waiting.delivery,
            since: waiting.since,
            _room: waiting.room,
        }
    }

    fn room(self: &Arc<Self>, subscription: SubscriptionId, lane: Lane, bytes: usize) -> Room {
        Room {
            lines: Arc::clone(self),
            subscription,
            lane,
            bytes,
        }
    }

    fn limit(&self, target: &Target) -> usize {
        let own = target.subscription.spec.max_concurrency;
        own.map_or(self.default_limit, |limit| {
            usize::try_from(NonZeroU32::get(limit)).unwrap_or(usize::MAX)
        })
        .max(1)
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Every change under this lock is whole; a panic elsewhere does not spoil it.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn account(&mut self, target: &Target, limit: usize) -> &mut Account {
        let account = self
            .accounts
            .entry(target.id())
            .or_insert_with(|| Account::new(limit));
        account.limit = limit;
        account
    }

    /// Takes a room if the line, its lane and the bytes allow it.
    fn take_room(&mut self, id: SubscriptionId, lane: Lane, bytes: usize) -> bool {
        let Some(account) = self.accounts.get_mut(&id) else {
            return false;
        };
        let has = account.lines.of(lane).rooms;
        let rooms = self.rooms.of_mut(lane);
        let fits = account.is_empty() || self.bytes.allows(account.bytes, bytes);
        let within = has < account.lines.of(lane).most_rooms;
        if self.doors != Doors::Open || !within || !rooms.allows(has) || !fits {
            return false;
        }
        rooms.take();
        self.bytes.take(bytes);
        account.bytes += bytes;
        account.lines.of_mut(lane).rooms += 1;
        true
    }

    fn give_room(&mut self, id: SubscriptionId, lane: Lane, bytes: usize) {
        self.rooms.of_mut(lane).give();
        self.bytes.give(bytes);
        if let Entry::Occupied(mut entry) = self.accounts.entry(id) {
            let account = entry.get_mut();
            account.bytes -= bytes;
            account.lines.of_mut(lane).rooms -= 1;
            if account.is_idle() {
                entry.remove();
            }
        }
    }

    /// Gives the line a place in the order of turns, if something waits in it.
    fn make_ready(&mut self, id: SubscriptionId, lane: Lane) {
        if let Some(account) = self.accounts.get_mut(&id) {
            let line = account.lines.of_mut(lane);
            if !line.is_ready && !line.waiting.is_empty() {
                line.is_ready = true;
                self.ready.of_mut(lane).push_back(id);
            }
        }
    }

    /// Takes the next delivery that may be sent now; the lanes take turns.
    fn next(&mut self) -> Option<Waiting> {
        let first = self.last.other();
        [first, self.last].into_iter().find_map(|lane| {
            let next = self.next_of(lane)?;
            self.last = lane;
            Some(next)
        })
    }

    /// Takes the first delivery of the lane's first line that may send now.
    fn next_of(&mut self, lane: Lane) -> Option<Waiting> {
        let (ready, slots) = (self.ready.of_mut(lane), self.slots.of_mut(lane));
        for _ in 0..ready.len() {
            if slots.is_spent() {
                return None;
            }
            let id = ready.pop_front()?;
            let Some(account) = self.accounts.get_mut(&id) else {
                continue;
            };
            let is_at_limit = account.is_at_limit(lane);
            let line = account.lines.of_mut(lane);
            if is_at_limit {
                line.is_ready = false;
                continue;
            }
            if !slots.allows(line.in_flight) {
                ready.push_back(id);
                continue;
            }
            line.is_ready = false;
            if let Some(next) = line.waiting.pop_front() {
                slots.take();
                line.in_flight += 1;
                self.make_ready(id, lane);
                return Some(next);
            }
        }
        None
    }

    fn land(&mut self, id: SubscriptionId, lane: Lane) {
        self.slots.of_mut(lane).give();
        if let Some(account) = self.accounts.get_mut(&id) {
            account.lines.of_mut(lane).in_flight -= 1;
        }
        // Either lane may have been at the subscription's limit.
        for lane in Lane::ALL {
            self.make_ready(id, lane);
        }
    }

    fn is_crowded(&self) -> bool {
        let mut accounts = self.accounts.values();
        self.doors == Doors::Open && accounts.any(Account::holds_writers_back)
    }

    fn give_up_on_crowded(&mut self) {
        for account in self.accounts.values_mut() {
            account.stalled |= account.holds_writers_back();
        }
    }
}

impl Account {
    fn new(limit: usize) -> Self {
        let line = |lane| Line {
            most_rooms: lane_share(lane, limit) * ROOMS_PER_SLOT,
            ..Line::default()
        };
        Self {
            limit,
            lines: PerLane {
                fresh: line(Lane::Fresh),
                retry: line(Lane::Retry),
            },
            bytes: 0,
            backlogged: false,
            stalled: false,
        }
    }

    /// Whether one more request would be more than the subscription, or its lane, may have.
    fn is_at_limit(&self, lane: Lane) -> bool {
        let of_all = self.lines.fresh.in_flight + self.lines.retry.in_flight;
        of_all >= self.limit || self.lines.of(lane).in_flight >= lane_share(lane, self.limit)
    }

    /// Nothing of it is in memory.
    fn is_empty(&self) -> bool {
        self.lines.fresh.rooms + self.lines.retry.rooms == 0
    }

    /// Nothing is lost if it is forgotten.
    fn is_idle(&self) -> bool {
        self.is_empty() && !self.backlogged
    }

    /// Whether a batch might find no room that would have some in a moment. A line that cannot take
    /// a batch at all is not waited for, nor one that was waited for in vain.
    fn holds_writers_back(&self) -> bool {
        let line = &self.lines.fresh;
        line.is_crowded() && line.most_rooms >= BATCH && !self.backlogged && !self.stalled
    }
}

impl Line {
    /// More than half full.
    fn is_crowded(&self) -> bool {
        self.rooms > self.most_rooms / 2
    }
}

impl Room {
    /// Counts the size of what the room is used for, once it is known.
    pub fn charge(&mut self, bytes: usize) {
        let mut books = self.lines.books();
        books.bytes.take(bytes);
        if let Some(account) = books.accounts.get_mut(&self.subscription) {
            account.bytes += bytes;
        }
        drop(books);
        self.bytes += bytes;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut books = self.lines.books();
        let was_crowded = books.line_is_crowded(self.subscription, self.lane);
        books.give_room(self.subscription, self.lane, self.bytes);
        let is_relieved = was_crowded && !books.line_is_crowded(self.subscription, self.lane);
        books.emptier(self.subscription, self.lane, is_relieved);
        drop(books);
        if is_relieved {
            self.lines.relieved.notify_waiters();
            if self.lines.hungry.swap(false, Ordering::AcqRel) {
                self.lines.freed.ring();
            }
        }
    }
}

impl Books {
    fn line_is_crowded(&self, id: SubscriptionId, lane: Lane) -> bool {
        self.accounts
            .get(&id)
            .is_some_and(|account| account.lines.of(lane).is_crowded())
    }

    /// A line has a delivery less. Half empty, it may become longer; nearly empty, it may be waited
    /// for again.
    fn emptier(&mut self, id: SubscriptionId, lane: Lane, is_relieved: bool) {
        let Some(account) = self.accounts.get_mut(&id) else {
            return;
        };
        let full = lane_share(lane, account.limit) * ROOMS_PER_SLOT;
        let line = account.lines.of_mut(lane);
        if is_relieved {
            line.most_rooms = (line.most_rooms * 2).min(full);
        }
        if lane == Lane::Fresh && line.rooms <= full / 8 {
            account.stalled = false;
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let (id, lane) = (self.delivery.target.id(), self.delivery.lane);
        self.lines.books().land(id, lane);
    }
}

#[cfg(test)]
mod tests;
