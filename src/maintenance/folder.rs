//! Rollups: what settles appended is added up, every few seconds.

use super::Parts;
use super::sweeper::{Ended, rest};
use crate::clock::pause;
use crate::store::{Lease, Result};

/// Folds under one leadership.
pub(super) struct Folder<'a> {
    parts: &'a Parts,
    held: &'a Lease,
}

impl<'a> Folder<'a> {
    pub(super) fn new(parts: &'a Parts, held: &'a Lease) -> Self {
        Self { parts, held }
    }

    /// Again and again, until another leads.
    pub(super) async fn run(&self) -> Result<()> {
        while self.fold_all().await? == Ended::Done {
            pause(self.parts.pace.fold_every).await;
        }
        Ok(())
    }

    /// Step by step, until a step finds less than it could take.
    async fn fold_all(&self) -> Result<Ended> {
        let limit = self.parts.pace.fold_step;
        loop {
            let begun = self.parts.clock.monotonic();
            match self.parts.store.fold_rollups(self.held, limit).await? {
                None => return Ok(Ended::Deposed),
                Some(folded) if folded < limit => return Ok(Ended::Done),
                Some(_) => rest(self.parts, begun).await,
            }
        }
    }
}
