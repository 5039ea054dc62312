//! What settles come to for replays of many.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::domain::delivery::Verdict;
use crate::domain::ids::WorkspaceId;
use crate::store::Settlement;

/// What one settle comes to for replays of many, by the replay.
#[derive(Debug, Default)]
pub(in crate::store) struct ReplayTally(BTreeMap<Uuid, Progress>);

/// What was added to a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::store) struct Progress {
    pub(in crate::store) workspace: WorkspaceId,
    /// Attempts that the receiver took.
    pub(in crate::store) done: i64,
    /// Attempts that it did not.
    pub(in crate::store) failed: i64,
}

impl ReplayTally {
    /// Counts an attempt, if it was one of a replay of many. To be called once for each.
    pub(in crate::store) fn count(&mut self, settlement: &Settlement) {
        let bulk = settlement.replaying.and_then(|replaying| replaying.bulk);
        let Some(bulk) = bulk.filter(|_| settlement.verdict != Verdict::Released) else {
            return;
        };
        let entry = self.0.entry(bulk.uuid());
        let progress = entry.or_insert_with(|| Progress {
            workspace: settlement.workspace.clone(),
            done: 0,
            failed: 0,
        });
        match settlement.verdict {
            Verdict::Succeeded => progress.done += 1,
            _ => progress.failed += 1,
        }
    }

    /// In the order of the replays' ids.
    pub(in crate::store) fn iter(&self) -> impl Iterator<Item = (&Uuid, &Progress)> {
        self.0.iter()
    }

    pub(in crate::store) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
