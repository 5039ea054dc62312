//! State as the core tells it: a snapshot of one entity, or that it was deleted (product.md §3;
//! docs/SNAPSHOTS.md shows the shapes).

mod blueprint;
mod content;
mod data;
mod encode;
mod text;

use chrono::{DateTime, SubsecRound, Utc};

use super::attributes::Attributes;
use super::blueprint::Blueprint;
use super::catalogue::DataError;
use super::edition::{Content, Edition};
use super::event::EventError;
use super::ids::{BlueprintId, EditionId, OutputId, ProjectId, WorkspaceId};
use super::output::Output;
use super::workspace::{Project, Workspace};

/// The largest snapshot that is taken, in bytes (product.md §3).
pub const MAX_SNAPSHOT_BYTES: usize = 16 * 1024 * 1024;

/// The most rows that an edition may have, all its sections together.
pub const MAX_ROWS: usize = 200_000;

/// The most bytes that clients may fill an edition with: values, and ids of rows, as they are kept. What
/// they wrote comes back in a snapshot of the core's: with [`MAX_ROWS`] rows, the JSON around each and
/// the head, it is still not larger than [`MAX_SNAPSHOT_BYTES`].
pub const MAX_WRITTEN_BYTES: usize = 12_000_000;

/// What the core says of one entity, at one version of it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The tenant it belongs to.
    pub workspace: WorkspaceId,
    /// Which entity.
    pub key: EntityKey,
    /// Grows with every change of the entity; a smaller one, and the same one, is old news.
    pub version: i64,
    /// When it was so, in whole milliseconds: the envelope's `time`, else when it was accepted.
    pub occurred_at: DateTime<Utc>,
    /// How the entity stands.
    pub state: State,
}

/// Which entity of a workspace a snapshot is about. In the order of rows that are locked.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntityKey {
    /// The workspace itself.
    Workspace,
    /// A project.
    Project(ProjectId),
    /// A blueprint.
    Blueprint(BlueprintId),
    /// An edition.
    Edition(EditionId),
    /// An output.
    Output(OutputId),
}

impl EntityKey {
    /// What sort of thing it is.
    pub fn kind(&self) -> EntityKind {
        match self {
            Self::Workspace => EntityKind::Workspace,
            Self::Project(_) => EntityKind::Project,
            Self::Blueprint(_) => EntityKind::Blueprint,
            Self::Edition(_) => EntityKind::Edition,
            Self::Output(_) => EntityKind::Output,
        }
    }

    /// Its id among those of its kind; empty for the workspace itself.
    pub fn id(&self) -> &str {
        match self {
            Self::Workspace => "",
            Self::Project(id) => id.as_str(),
            Self::Blueprint(id) => id.as_str(),
            Self::Edition(id) => id.as_str(),
            Self::Output(id) => id.as_str(),
        }
    }
}

/// What has snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EntityKind {
    /// A tenant.
    Workspace,
    /// A project of a workspace.
    Project,
    /// A report structure of a project.
    Blueprint,
    /// An edition of a blueprint.
    Edition,
    /// An output of an edition.
    Output,
}

impl EntityKind {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::Workspace,
        Self::Project,
        Self::Blueprint,
        Self::Edition,
        Self::Output,
    ];

    /// The word for it, with which its types begin.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workspace => "workspace",
            Self::Project => "project",
            Self::Blueprint => "blueprint",
            Self::Edition => "edition",
            Self::Output => "output",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// How an entity stands.
#[derive(Clone, Debug)]
pub enum State {
    /// The workspace is so.
    Workspace(Workspace),
    /// The project is so.
    Project(Project),
    /// The blueprint is so.
    Blueprint(Blueprint),
    /// The edition is so, with all that it holds.
    Edition(Box<EditionState>),
    /// The output is so.
    Output(Box<Output>),
    /// It is no more; the key says what it was.
    Deleted,
}

/// An edition with all that it holds.
#[derive(Clone, Debug, PartialEq)]
pub struct EditionState {
    /// Its head.
    pub edition: Edition,
    /// What its sections hold.
    pub content: Content,
}

/// Why a message is no snapshot that we can use. The text is the dead letter's reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Over [`MAX_SNAPSHOT_BYTES`].
    #[error("the snapshot has {0} bytes, more than {MAX_SNAPSHOT_BYTES}")]
    TooLarge(usize),
    /// The envelope is not right.
    #[error(transparent)]
    Envelope(#[from] EventError),
    /// An event, which belongs on the events exchange.
    #[error("`type`: neither a snapshot nor a deletion; events belong on the events exchange")]
    NotState,
    /// What it tells of the entity is not right.
    #[error(transparent)]
    Data(#[from] DataError),
}

impl Snapshot {
    /// Reads a snapshot or a deletion out of the text that arrived. Members of its data that are
    /// unknown here are passed over: the core may tell more than we keep.
    pub fn decode(bytes: &[u8], accepted_at: DateTime<Utc>) -> Result<Self, SnapshotError> {
        if bytes.len() > MAX_SNAPSHOT_BYTES {
            return Err(SnapshotError::TooLarge(bytes.len()));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| EventError::NotUtf8)?;
        let told = Attributes::read(text)?;
        let (kind, what) = told
            .event_type
            .as_str()
            .split_once('.')
            .and_then(|(kind, what)| Some((EntityKind::parse(kind)?, what)))
            .ok_or(SnapshotError::NotState)?;
        let origin = data::Origin {
            project: told.project.as_ref(),
            occurred_at: told.time.unwrap_or(accepted_at).trunc_subsecs(3),
        };
        let data = told.envelope.data_text();
        let data::Told {
            key,
            version,
            state,
        } = match what {
            "snapshot" => data::snapshot(kind, data, &origin)?,
            "deleted" => data::deletion(kind, data)?,
            _ => return Err(SnapshotError::NotState),
        };
        Ok(Self {
            workspace: told.workspace,
            key,
            version,
            occurred_at: origin.occurred_at,
            state,
        })
    }
}

#[cfg(test)]
mod tests;
