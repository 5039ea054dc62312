//! How many connections there are at once, in all and from one address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::api::neighbourhood::neighbourhood;

/// The seats for connections.
pub(super) struct Seats {
    free: Arc<Semaphore>,
    per_address: usize,
    taken: Taken,
}

/// Who holds how many.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Taken {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's seat, free again when it is dropped.
pub(super) struct Seat {
    _permit: Option<OwnedSemaphorePermit>,
    counted: Option<(IpAddr, Taken)>,
}

impl Seats {
    pub(super) fn new(all: usize, per_address: usize) -> Self {
        Self {
            free: Arc::new(Semaphore::new(all)),
            per_address,
            taken: Taken::default(),
        }
    }

    /// Waits for a seat, before a connection is accepted: the others wait in the system's queue.
    pub(super) async fn free(&self) -> Seat {
        // It is never closed, so there is always one in the end.
        let permit = Arc::clone(&self.free).acquire_owned().await.ok();
        Seat {
            _permit: permit,
            counted: None,
        }
    }

    /// Whether this address may have one more; then the seat is counted as its.
    pub(super) fn count(&self, seat: &mut Seat, address: IpAddr) -> Result<(), TooMany> {
        let address = neighbourhood(address);
        let mut taken = self.taken.lock();
        let held = taken.entry(address).or_default();
        if *held >= self.per_address {
            return Err(TooMany);
        }
        *held += 1;
        seat.counted = Some((address, self.taken.clone()));
        Ok(())
    }
}

/// The address has all the connections that it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some((address, taken)) = self.counted.take() {
            let mut taken = taken.lock();
            if let Some(held) = taken.get_mut(&address) {
                *held -= 1;
                if *held == 0 {
                    taken.remove(&address);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_address_takes_its_share_and_gives_it_back() {
        let seats = Seats::new(10, 2);
        let sit = async |address: &str| {
            let mut seat = seats.free().await;
            seats
                .count(&mut seat, address.parse().unwrap())
                .map(|()| seat)
        };
        let first = sit("2001:db8::1").await;
        let second = sit("2001:db8::2").await;
        assert!(first.is_ok() && second.is_ok());
        assert!(sit("2001:db8::ffff:0:0:3").await.is_err(), "one /64");
        assert!(sit("2001:db8:0:1::1").await.is_ok());
        drop(first);
        assert!(sit("2001:db8::4").await.is_ok());
        drop(second);
        assert!(seats.taken.lock().is_empty());
        assert_eq!(seats.free.available_permits(), 10);
    }
}
