//! Leading: a lease that is renewed on a timer, and what may be done under it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Lease, LeaseName, Leasing, Result, Standing, Store};
use crate::clock::{Clock, pause};

/// How many times a lease is renewed before it would end.
const RENEWALS: u32 = 3;

/// What part of a lease is left unused at its end: for what was sent last to arrive, and for clocks that
/// do not run alike.
const MARGIN: u32 = 5;

/// A lease that this process holds.
pub struct Leadership {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    leasing: Leasing,
    lease: Lease,
    /// Until when anything may be begun under it, in milliseconds of [`Clock::monotonic`].
    until: AtomicU64,
}

impl Leadership {
    /// Takes the lease of this name, if nobody else has it.
    pub async fn take(
        store: &Arc<dyn Store>,
        clock: &Arc<dyn Clock>,
        name: LeaseName,
        leasing: Leasing,
    ) -> Result<Option<Self>> {
        // Read before the database reads its own clock: our end is never the later one.
        let asked_at = clock.monotonic();
        let lease = store.take_lease(name, leasing).await?;
        Ok(lease.map(|lease| Self {
            store: Arc::clone(store),
            clock: Arc::clone(clock),
            leasing,
            lease,
            until: AtomicU64::new(end(asked_at, leasing.lease)),
        }))
    }

    /// What is shown to the store.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Whether something may still be begun: looked at before each sending, since a process that was
    /// stopped and continued finds its lease with another.
    pub fn holds(&self) -> bool {
        !self.left().is_zero()
    }

    /// Renews the lease for as long as that goes well. What is done under it is dropped when this ends.
    pub async fn keep(&self) {
        let lease = self.lease.name.as_str();
        let often = self.leasing.lease / RENEWALS;
        let mut next = often;
        loop {
            pause(next.min(self.left())).await;
            let asked_at = self.clock.monotonic();
            let renewal = self.store.renew_lease(&self.lease, self.leasing);
            next = match tokio::time::timeout(self.left(), renewal).await {
                Ok(Ok(Standing::Leads)) => {
                    let until = end(asked_at, self.leasing.lease);
                    self.until.store(until, Ordering::Relaxed);
                    often
                }
                Ok(Ok(Standing::Deposed)) => return,
                Ok(Err(error)) => {
                    tracing::debug!(lease, %error, "a lease could not be renewed");
                    often / RENEWALS
                }
                Err(_) => Duration::ZERO,
            };
            if !self.holds() {
                return;
            }
        }
    }

    /// Lets others lead. Where the database is away, they wait for the lease's end.
    pub async fn give_up(self) {
        let release = self.store.release_lease(&self.lease);
        let lease = self.lease.name.as_str();
        match tokio::time::timeout(self.leasing.lease, release).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(lease, %error, "a lease was not released"),
            Err(_) => tracing::debug!(lease, "a lease was not released in time"),
        }
    }

    fn left(&self) -> Duration {
        let until = Duration::from_millis(self.until.load(Ordering::Relaxed));
        until.saturating_sub(self.clock.monotonic())
    }
}

fn end(asked_at: Duration, lease: Duration) -> u64 {
    let until = asked_at + lease.saturating_sub(lease / MARGIN);
    u64::try_from(until.as_millis()).unwrap_or(u64::MAX)
}
