//! Leaders: what only one of several processes may do at a time.
//!
//! A leader holds an expiring row. A session lock or an open transaction would do, were it not that
//! those of a process that was stopped block all others for ever (`queue.md` §4).

use async_trait::async_trait;

use super::{Leasing, Result};
use crate::domain::ids::OwnerId;

/// What is led.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LeaseName(&'static str);

impl LeaseName {
    /// Publishing what is in the outbox.
    pub const OUTBOX: Self = Self("outbox");

    /// Taking replays of many forward.
    pub const REPLAY: Self = Self("replay");

    /// Another name.
    pub const fn new(name: &'static str) -> Self {
        Self(name)
    }

    /// As it is kept.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

/// A lease that was taken: what a leader shows with everything that it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// What is led.
    pub name: LeaseName,
    /// Who leads.
    pub owner: OwnerId,
    /// Grows with each taking: whoever shows an older one leads no more, and changes nothing.
    pub fence: i64,
}

/// Where a leader stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Standing {
    /// Nobody has taken the lease since.
    Leads,
    /// Another has: nothing was done.
    Deposed,
}

/// Taking, keeping and giving up leases; by the database's clock on Postgres.
#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes a lease that nobody holds, whose time is over, or that the same owner holds already
    /// (whose answer was lost). `None` while another holds it.
    async fn take_lease(&self, name: LeaseName, leasing: Leasing) -> Result<Option<Lease>>;

    /// Makes the lease end no sooner than `leasing.lease` from now. One whose time is over and that
    /// nobody took meanwhile is still the leader's.
    async fn renew_lease(&self, held: &Lease, leasing: Leasing) -> Result<Standing>;

    /// Gives the lease up, so that another need not wait for its end. Nothing happens if it was
    /// taken meanwhile.
    async fn release_lease(&self, held: &Lease) -> Result<()>;
}
