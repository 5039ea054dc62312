//! Rollups: what settles appended is added up, every few seconds, and sooner where more comes than one step
//! takes.

use std::time::Duration;

use super::Parts;
use crate::clock::pause;
use crate::store::{Lease, Result};

/// Of the usual time between two turns, this part is the least.
const SOONEST: u32 = 100;

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
        let pace = self.parts.pace;
        let mut wait = pace.fold_every;
        while let Some(folded) = self.fold_all().await? {
            wait = next_wait(wait, folded, pace.fold_step)
                .clamp(pace.fold_every / SOONEST, pace.fold_every);
            pause(wait).await;
        }
        Ok(())
    }

    /// Step by step, until a step finds less than it could take; answers how many deltas that were. `None`
    /// to whoever was deposed.
    async fn fold_all(&self) -> Result<Option<usize>> {
        let limit = self.parts.pace.fold_step;
        let longest_rest = self.parts.pace.fold_every;
        let mut all = 0;
        loop {
            let begun = self.parts.clock.monotonic();
            let folded = self.parts.store.fold_rollups(self.held, limit).await?;
            let Some(folded) = folded else {
                return Ok(None);
            };
            // Statistics are not all told while too much waits, so it goes on soon; but half of the time
            // belongs to others. A machine that was suspended meanwhile was not at it for that long.
            let took = self.parts.clock.monotonic().saturating_sub(begun);
            pause(took.min(longest_rest)).await;
            all += folded;
            if folded < limit {
                return Ok(Some(all));
            }
        }
    }
}

/// How long it takes until as much has come together as one step takes, where so many deltas did in the wait
/// before.
fn next_wait(waited: Duration, folded: usize, step: usize) -> Duration {
    let [folded, step] = [folded, step].map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    waited.saturating_mul(step) / folded.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_turn_comes_when_a_step_has_come_together() {
        let secs = Duration::from_secs;
        for (waited, folded, expected) in [
            (secs(5), 10_000, secs(5)),
            (secs(5), 100_000, Duration::from_millis(500)),
            // As much again, and as much as ever: it settles there.
            (
                Duration::from_millis(500),
                10_000,
                Duration::from_millis(500),
            ),
            (Duration::from_millis(500), 1_000, secs(5)),
            (secs(5), 0, secs(50_000)),
            (Duration::ZERO, 0, Duration::ZERO),
        ] {
            assert_eq!(next_wait(waited, folded, 10_000), expected, "{folded}");
        }
        assert!(next_wait(Duration::MAX, 1, usize::MAX) > secs(5));
    }
}
