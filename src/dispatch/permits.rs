//! Permits: how much may be in flight, and whose.
//!
//! Three rules keep one subscription from another's throat:
//! - each lane has its own share, so that neither retries nor fresh work starve the other;
//! - a subscription has at most its limit in flight, and within it each lane its share;
//! - the last quarter of a lane is for subscriptions with nothing in flight in it, and of the rest
//!   a subscription has at most as much as is still free (the dynamic threshold of shared-buffer
//!   switches). However many receivers hang, the next subscription gets its turn;
//! - bytes likewise: what is in flight is bounded by `max_bytes_in_flight`, but for one delivery of
//!   each subscription that has nothing else in flight.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::config;
use crate::domain::delivery::Lane;
use crate::domain::ids::SubscriptionId;
use crate::store::targets::Target;
use crate::wake::Wake;

/// Who holds how many permits.
pub struct Ledger {
    books: Mutex<Books>,
    default_limit: usize,
    /// Rung when a permit comes back while somebody is hungry for one.
    freed: Wake,
    hungry: AtomicBool,
}

struct Books {
    free: PerLane<usize>,
    /// The part of each lane that is kept for subscriptions with nothing in flight.
    kept: PerLane<usize>,
    bytes_in_flight: usize,
    max_bytes: usize,
    in_flight: usize,
    accounts: HashMap<SubscriptionId, Account>,
    doors: Doors,
}

/// Whether permits are given at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doors {
    Open,
    /// Outcomes cannot be written at the moment.
    Suspended,
    /// The program is stopping.
    Closed,
}

#[derive(Default)]
struct Account {
    in_flight: PerLane<usize>,
    bytes: usize,
    /// Whether fresh deliveries of this subscription wait in the database: newer ones then queue
    /// up behind them instead of overtaking.
    backlogged: bool,
}

#[derive(Clone, Copy, Default)]
struct PerLane<T> {
    fresh: T,
    retry: T,
}

impl<T> PerLane<T> {
    fn of(&mut self, lane: Lane) -> &mut T {
        match lane {
            Lane::Fresh => &mut self.fresh,
            Lane::Retry => &mut self.retry,
        }
    }
}

/// One permit. Dropping it gives it back.
pub struct Guard {
    ledger: Arc<Ledger>,
    subscription: SubscriptionId,
    lane: Lane,
    bytes: usize,
}

impl Ledger {
    /// A ledger with everything free.
    pub fn new(settings: &config::Dispatch) -> Self {
        let retry = (settings.concurrency / 4).max(1);
        let free = PerLane {
            fresh: settings.concurrency.saturating_sub(retry).max(1),
            retry,
        };
        Self {
            books: Mutex::new(Books {
                free,
                kept: PerLane {
                    fresh: free.fresh / 4,
                    retry: free.retry / 4,
                },
                bytes_in_flight: 0,
                max_bytes: settings.max_bytes_in_flight,
                in_flight: 0,
                accounts: HashMap::new(),
                doors: Doors::Open,
            }),
            default_limit: settings.subscription_concurrency,
            freed: Wake::default(),
            hungry: AtomicBool::new(false),
        }
    }

    /// A permit for a fresh delivery that is being written right now, unless the subscription has
    /// older ones waiting.
    pub fn admit(self: &Arc<Self>, target: &Target, lane: Lane, bytes: usize) -> Option<Guard> {
        let mut books = self.books();
        let account = books.accounts.entry(target.id()).or_default();
        if account.backlogged {
            return None;
        }
        let taken = books.take(target.id(), lane, self.limit(target), bytes);
        if !taken {
            // What is refused now waits in the database, and what comes next waits behind it.
            books.accounts.entry(target.id()).or_default().backlogged = true;
            return None;
        }
        Some(self.guard(target, lane, bytes))
    }

    /// Up to `wanted` permits for deliveries about to be claimed. Their sizes are not known yet;
    /// [`Guard::charge`] adds them.
    pub fn reserve(self: &Arc<Self>, target: &Target, lane: Lane, wanted: usize) -> Vec<Guard> {
        let mut books = self.books();
        let limit = self.limit(target);
        (0..wanted)
            .map_while(|_| {
                books
                    .take(target.id(), lane, limit, 0)
                    .then(|| self.guard(target, lane, 0))
            })
            .collect()
    }

    /// Bytes that may still be taken into flight.
    pub fn bytes_free(&self) -> usize {
        let books = self.books();
        books.max_bytes.saturating_sub(books.bytes_in_flight)
    }

    /// How many deliveries hold a permit.
    pub fn in_flight(&self) -> usize {
        self.books().in_flight
    }

    /// Corrects which subscriptions have fresh deliveries waiting, from a look at the database.
    pub fn set_backlogged(&self, waiting: impl Fn(SubscriptionId) -> bool) {
        let mut books = self.books();
        books.accounts.retain(|id, account| {
            account.backlogged = waiting(*id);
            !account.is_idle()
        });
    }

    /// From now on nothing is admitted and nothing reserved.
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

    /// Waits until a permit has come back since [`mark_hungry`](Self::mark_hungry).
    pub async fn permit_freed(&self) {
        self.freed.rung().await;
    }

    /// Says whether somebody waits for permits; without it none rings.
    pub fn mark_hungry(&self, hungry: Hunger) {
        self.hungry
            .store(hungry == Hunger::Hungry, Ordering::Release);
    }

    fn guard(self: &Arc<Self>, target: &Target, lane: Lane, bytes: usize) -> Guard {
        Guard {
            ledger: Arc::clone(self),
            subscription: target.id(),
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

/// Whether the scheduler waits for permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hunger {
    /// There is due work and no permit for it.
    Hungry,
    /// There is nothing to do with a permit.
    Sated,
}

impl Books {
    /// Takes one permit if all three rules and the bytes allow it.
    fn take(&mut self, id: SubscriptionId, lane: Lane, limit: usize, bytes: usize) -> bool {
        let free = *self.free.of(lane);
        let bytes_free = self.max_bytes.saturating_sub(self.bytes_in_flight);
        if self.doors != Doors::Open || free == 0 {
            return false;
        }
        let kept = *self.kept.of(lane);
        let account = self.accounts.entry(id).or_default();
        let (of_lane, of_all) = (*account.in_flight.of(lane), account.total());
        let within_limit = of_all < limit && of_lane < lane_share(lane, limit);
        let leaves_room = of_lane == 0 || of_lane < free.saturating_sub(kept);
        // The same rule for bytes; the first delivery of a subscription goes whatever its size.
        let bytes_left = bytes_free.saturating_sub(self.max_bytes / 4);
        let fits = of_all == 0 || account.bytes + bytes <= bytes_left;
        if !within_limit || !leaves_room || !fits {
            return false;
        }
        account.bytes += bytes;
        *account.in_flight.of(lane) += 1;
        *self.free.of(lane) -= 1;
        self.bytes_in_flight += bytes;
        self.in_flight += 1;
        true
    }
}

impl Account {
    fn total(&self) -> usize {
        self.in_flight.fresh + self.in_flight.retry
    }

    fn is_idle(&self) -> bool {
        self.total() == 0 && !self.backlogged
    }
}

/// How much of a subscription's limit a lane may take: a quarter of it, and one at least, is for
/// retries. (A limit of one cannot be shared; the scheduler asks for the lanes in turns.)
fn lane_share(lane: Lane, limit: usize) -> usize {
    let retry = (limit / 4).max(1);
    match lane {
        Lane::Retry => retry,
        Lane::Fresh => limit.saturating_sub(retry).max(1),
    }
}

impl Guard {
    /// Counts the size of what the permit is used for, once it is known.
    pub fn charge(&mut self, bytes: usize) {
        let mut books = self.ledger.books();
        books.bytes_in_flight += bytes;
        books.accounts.entry(self.subscription).or_default().bytes += bytes;
        drop(books);
        self.bytes += bytes;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut books = self.ledger.books();
        *books.free.of(self.lane) += 1;
        books.bytes_in_flight -= self.bytes;
        books.in_flight -= 1;
        if let Entry::Occupied(mut account) = books.accounts.entry(self.subscription) {
            *account.get_mut().in_flight.of(self.lane) -= 1;
            account.get_mut().bytes -= self.bytes;
            if account.get().is_idle() {
                account.remove();
            }
        }
        drop(books);
        if self.ledger.hungry.load(Ordering::Acquire) {
            self.ledger.freed.ring();
        }
    }
}

#[cfg(test)]
mod tests;
