//! Taking in what the core says of its entities (product.md §3).

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::Result;
use crate::domain::edition::Row;
use crate::domain::ids::WorkspaceId;
use crate::domain::snapshot::{EntityKey, EntityKind, Snapshot, State};
use crate::store::projects::NewProjects;
use crate::store::room::Size;

/// What became of one snapshot of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is how the entity stands now.
    Changed,
    /// The entity stands at this version already, or at a greater one, of this batch or from before:
    /// nothing changed.
    Older,
}

/// The read model's side of the core's state.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// Takes in a batch, in one transaction; answers in the order given. Of each entity the greatest
    /// version wins, wherever in the batch or in the past it came. What was deleted stays deleted for
    /// every smaller version. An edition's snapshot replaces all that the edition holds; deleting it
    /// deletes that, and its outputs. With a project that comes back, its editions that changed while
    /// it was deleted change once more: who asks for what changed since then is told.
    ///
    /// Coming again after an ambiguous failure is safe: what was committed is then older.
    async fn apply(&self, snapshots: &[Snapshot]) -> Result<Vec<Applied>>;
}

/// By how much a change's time may lie before that of the commit, with room to spare: no transaction
/// takes half a minute. So what was committed after a project was deleted has a time that is not
/// earlier than this before it.
pub(super) const LONGEST_WRITE: Duration = Duration::from_mins(1);

/// Where an entity's row stands in the order in which all writers of several rows touch them: table
/// by table, each in the order of its keys.
type Place<'a> = (EntityKind, &'a WorkspaceId, &'a EntityKey);

/// The newest snapshot of each entity of a batch, in the order in which rows are touched; each with
/// its place in the batch. Of two that are of one version it is the first.
pub(super) fn newest(snapshots: &[Snapshot]) -> impl Iterator<Item = (usize, &Snapshot)> {
    let mut newest: BTreeMap<Place<'_>, (usize, &Snapshot)> = BTreeMap::new();
    for (number, snapshot) in snapshots.iter().enumerate() {
        let place = (snapshot.key.kind(), &snapshot.workspace, &snapshot.key);
        let best = newest.entry(place).or_insert((number, snapshot));
        if snapshot.version > best.1.version {
            *best = (number, snapshot);
        }
    }
    newest.into_values()
}

/// What the editions of a batch hold, in bytes.
pub(super) fn bytes(snapshots: &[Snapshot]) -> usize {
    let states = snapshots.iter().map(|snapshot| match &snapshot.state {
        State::Edition(state) => Size::of_content(state.content.iter().map(|(_, held)| held)),
        _ => Size::default(),
    });
    states.map(Size::bytes).sum()
}

/// The projects that a batch tells of by what belongs to them: known from then on, even where the
/// snapshot itself is old.
pub(super) fn projects(snapshots: &[Snapshot]) -> NewProjects {
    snapshots
        .iter()
        .filter_map(|snapshot| {
            let project = match &snapshot.state {
                State::Blueprint(blueprint) => &blueprint.project,
                State::Edition(state) => &state.edition.project,
                State::Workspace(_) | State::Project(_) | State::Output(_) | State::Deleted => {
                    return None;
                }
            };
            Some((snapshot.workspace.clone(), project.clone()))
        })
        .collect()
}

/// What rows are recognised by, so that a section that did not change is not written again. Each text
/// stands behind its length: no two lists of rows run together.
pub(super) fn digest(rows: &[Row]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for row in rows {
        for text in [row.id.as_str(), row.values.as_str()] {
            let length = u64::try_from(text.len()).unwrap_or(u64::MAX);
            digest.update(length.to_be_bytes());
            digest.update(text);
        }
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;
    use crate::domain::ids::{EditionId, ProjectId, RowId};
    use crate::domain::values::Values;

    fn deletion(workspace: &str, key: EntityKey, version: i64) -> Snapshot {
        Snapshot {
            workspace: WorkspaceId::new(workspace).unwrap(),
            key,
            version,
            occurred_at: DateTime::UNIX_EPOCH,
            state: State::Deleted,
        }
    }

    #[test]
    fn the_newest_of_each_is_taken_table_by_table() {
        let edition = |id| EntityKey::Edition(EditionId::new(id).unwrap());
        let project = EntityKey::Project(ProjectId::new("p").unwrap());
        let batch = [
            deletion("b", edition("1"), 1),
            deletion("a", edition("2"), 1),
            deletion("a", edition("1"), 1),
            deletion("a", edition("1"), 3),
            deletion("a", edition("1"), 3),
            deletion("a", edition("1"), 2),
            deletion("b", project, 1),
        ];
        let places: Vec<_> = newest(&batch).map(|(place, _)| place).collect();
        assert_eq!(places, [6, 3, 1, 0]);
    }

    #[test]
    fn rows_that_are_cut_elsewhere_are_others() {
        let row = |id: &str, values: &str| Row {
            id: RowId::new(id).unwrap(),
            values: Values::parse(values).unwrap(),
        };
        let rows = [row("a", "{}"), row("b", r#"{"x":1}"#)];
        assert_eq!(digest(&rows), digest(&rows.clone()));
        let others = [
            vec![],
            vec![row("a", "{}")],
            vec![row("b", r#"{"x":1}"#), row("a", "{}")],
            vec![row("a", "{}"), row("b", r#"{"x":1 }"#)],
            vec![row("a{}b", r#"{"x":1}"#)],
        ];
        for other in others {
            assert_ne!(digest(&rows), digest(&other), "{other:?}");
        }
    }
}
