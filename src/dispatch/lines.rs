//! Leased deliveries in memory: a line for each subscription and lane, and who is next.
//!
//! A delivery comes in with a [`Room`] (admitted while it is written, or reserved for a claim), is
//! pushed into its line, and leaves it as a [`Flight`] when it is its line's turn and there is a
//! slot for it. Workspaces take turns, one delivery each, within one its lines do, and so do the
//! lanes. The rules of sharing are in [`super::permits`], who has what is in `books` and
//! `workspaces`; everything is behind one lock that is held for a few comparisons.
//!
//! There is no pool of senders to wake: whoever ends a flight asks for the next, and whoever pushes
//! starts as many as there are slots for. As long as a line is blocked by others' flights, one of
//! those ends later and asks.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::config;
use crate::domain::delivery::Lane;
use crate::domain::ids::SubscriptionId;
use crate::store::LeasedDelivery;
use crate::store::intake::Permit;
use crate::store::targets::Target;
use crate::wake::Wake;

mod account;
mod books;
mod meters;
mod workspaces;

use account::{Use, Waiting};
use books::Books;

/// How long a writer waits for rooms, so that what it writes can be born leased.
const PATIENCE: Duration = Duration::from_millis(25);

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

/// The right to have one leased delivery in memory. Dropping it gives it back.
pub struct Room {
    lines: Arc<Lines>,
    subscription: SubscriptionId,
    lane: Lane,
    bytes: usize,
    use_of: Use,
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
        Self {
            books: Mutex::new(Books::new(settings)),
            default_limit: settings.subscription_concurrency,
            freed: Wake::default(),
            hungry: AtomicBool::new(false),
            relieved: Notify::new(),
        }
    }

    /// A room for a fresh delivery that is being written right now, unless the subscription has
    /// older ones waiting in the database.
    pub fn admit(self: &Arc<Self>, target: &Target, bytes: usize) -> Option<Room> {
        let admitted = self.books().admit(target, self.limit(target), bytes);
        admitted.then(|| self.room(target.id(), Lane::Fresh, bytes))
    }

    /// Up to `wanted` rooms for deliveries about to be claimed, once the line is half empty (of what claims
    /// may fill): a claim is worth its while only for many. Their sizes are not known yet;
    /// [`Room::charge`] adds them.
    pub fn reserve(self: &Arc<Self>, target: &Target, lane: Lane, wanted: usize) -> Vec<Room> {
        let mut books = self.books();
        let account = books.account(target, self.limit(target));
        let wanted = account.lines.of(lane).wants().min(wanted);
        (0..wanted)
            .map_while(|_| {
                books
                    .take_room(target, lane, 0)
                    .then(|| self.room(target.id(), lane, 0))
            })
            .collect()
    }

    /// Whether a claim of this lane would take enough to be worth its while.
    pub fn has_room(&self, target: &Target, lane: Lane) -> bool {
        let mut books = self.books();
        !books.has_enough(target.id(), lane) && books.token_at(target).is_none()
    }

    /// When the first of these has a token again, of those that wait for one.
    pub fn next_token<'a>(&self, targets: impl Iterator<Item = &'a Target>) -> Option<Instant> {
        let mut books = self.books();
        targets.filter_map(|target| books.token_at(target)).min()
    }

    /// Among how many processes limits are divided, those of requests at once and those a second.
    pub fn set_replicas(&self, replicas: NonZeroU32) {
        self.books().set_replicas(replicas);
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
            let limit = self.limit(&delivery.target);
            books.push(
                limit,
                Waiting {
                    delivery,
                    room,
                    since,
                },
            );
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
        self.books().shorten(delivery.target.id(), delivery.lane);
    }

    /// Bytes that may still be taken into memory.
    pub fn bytes_free(&self) -> usize {
        self.books().bytes_free()
    }

    /// How many requests are in flight.
    pub fn in_flight(&self) -> usize {
        self.books().in_flight()
    }

    /// Corrects which subscriptions have fresh deliveries waiting, from a look at the database.
    pub fn set_backlogged(&self, waiting: impl Fn(SubscriptionId) -> bool) {
        self.books().set_backlogged(waiting);
    }

    /// Fresh deliveries of these wait in the database.
    pub fn fell_behind(&self, subscriptions: &[SubscriptionId]) {
        self.books().fell_behind(subscriptions);
    }

    /// Nothing fresh of this one waits in the database any more: what is written next need not either.
    pub fn caught_up(&self, id: SubscriptionId) {
        self.books().caught_up(id);
    }

    /// From now on no room is given. What has one is still sent or given back.
    pub fn close(&self) {
        self.books().close();
    }

    /// Gives nothing while outcomes cannot be written: what is not known to be settled must not be
    /// claimed and sent again by this very process.
    pub fn suspend(&self) {
        self.books().suspend();
    }

    /// Gives again, after [`suspend`](Self::suspend).
    pub fn resume(&self) {
        if self.books().resume() {
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
            use_of: Use::ForDelivery,
        }
    }

    /// Requests at once from all processes.
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

impl Room {
    /// Gives it back unused: no delivery was there for it.
    pub fn unused(mut self) {
        self.lines.books().give_token(self.subscription);
        self.use_of = Use::None;
    }

    /// Counts the size of what the room is used for, once it is known.
    pub fn charge(&mut self, bytes: usize) {
        self.lines.books().charge(self.subscription, bytes);
        self.bytes += bytes;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let is_relieved = {
            let mut books = self.lines.books();
            books.give_room((self.subscription, self.lane), self.bytes, self.use_of)
        };
        if is_relieved {
            self.lines.relieved.notify_waiters();
            if self.lines.hungry.swap(false, Ordering::AcqRel) {
                self.lines.freed.ring();
            }
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
