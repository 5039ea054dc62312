//! Edition data as clients read it.

use std::fmt;
use std::str::FromStr;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use super::{Page, PageRequest, Result};
use crate::domain::blueprint::Blueprint;
use crate::domain::edition::{Content, Edition, EditionStatus, Row};
use crate::domain::file::FileKey;
use crate::domain::ids::{BlueprintId, EditionId, OutputId, ProjectId, UserId, WorkspaceId};
use crate::domain::output::Output;
use crate::domain::reach::Reach;
use crate::domain::values::Values;
use crate::domain::workspace::Member;

/// A workspace as clients see it.
#[derive(Clone, Debug)]
pub struct WorkspaceRecord {
    /// Its name.
    pub name: String,
    /// Its settings, a JSON object.
    pub settings: Box<RawValue>,
    /// Grows with every change.
    pub version: i64,
}

/// A blueprint as clients see it.
#[derive(Clone, Debug, PartialEq)]
pub struct BlueprintRecord {
    /// What the core told.
    pub blueprint: Blueprint,
    /// Grows with every change.
    pub version: i64,
}

/// An edition's head as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditionRecord {
    /// The head. Its status is the later one of what snapshots and webhook events told; its
    /// `updated_at` is when it last changed *here*, which is what [`EditionFilter::updated_since`]
    /// goes by.
    pub edition: Edition,
    /// Grows with every change of the head, also with those that raise no version.
    pub revision: i64,
}

impl EditionRecord {
    /// What changes whenever the edition does.
    pub fn tag(&self) -> EditionTag {
        EditionTag {
            version: self.edition.version,
            revision: self.revision,
        }
    }
}

/// What changes whenever anything of an edition but its outputs does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EditionTag {
    /// The edition's version.
    pub version: i64,
    /// See [`EditionRecord::revision`].
    pub revision: i64,
}

/// What changes whenever a section of an edition may look different: what the edition holds, or what
/// its blueprint says of the section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionTag {
    /// The edition's.
    pub edition: EditionTag,
    /// The version of its blueprint, where that is known.
    pub blueprint: Option<i64>,
}

/// Which editions a list shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EditionFilter {
    /// Of this project only.
    pub project: Option<ProjectId>,
    /// Of this blueprint only.
    pub blueprint: Option<BlueprintId>,
    /// In one of these statuses only; none means in any.
    pub statuses: Vec<EditionStatus>,
    /// Of this period only.
    pub period: Option<String>,
    /// Changed at this instant or later.
    pub updated_since: Option<DateTime<Utc>>,
}

/// A place in a list of editions: they go in the order in which they last changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EditionKey {
    /// When it last changed; in whole milliseconds.
    pub changed_at: DateTime<Utc>,
    /// Which one, among those of one transaction.
    pub id: EditionId,
}

impl EditionKey {
    /// The place of this edition.
    pub fn of(record: &EditionRecord) -> Self {
        Self {
            changed_at: record.edition.updated_at,
            id: record.edition.id.clone(),
        }
    }
}

impl fmt::Display for EditionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.changed_at.timestamp_millis(), self.id)
    }
}

/// A text that is no [`EditionKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no place in a list of editions")]
pub struct EditionKeyError;

impl FromStr for EditionKey {
    type Err = EditionKeyError;

    fn from_str(text: &str) -> std::result::Result<Self, EditionKeyError> {
        let (millis, id) = text.split_once(' ').ok_or(EditionKeyError)?;
        let millis = millis.parse().map_err(|_| EditionKeyError)?;
        Ok(Self {
            changed_at: DateTime::from_timestamp_millis(millis).ok_or(EditionKeyError)?,
            id: EditionId::new(id).map_err(|_| EditionKeyError)?,
        })
    }
}

/// A page of editions, oldest change first: what changes while somebody pages moves to the end, and
/// is not missed.
#[derive(Clone, Debug)]
pub struct EditionList {
    /// The page.
    pub page: Page<EditionRecord, EditionKey>,
    /// Who pages to the end and then asks with [`EditionFilter::updated_since`] for what changed from
    /// this instant on misses nothing. It is later than any change that the page could show.
    pub as_of: DateTime<Utc>,
}

/// A section of an edition.
#[derive(Clone, Debug, PartialEq)]
pub struct SectionRecord {
    /// The edition's head, as it was then.
    pub edition: EditionRecord,
    /// What the section holds.
    pub data: SectionData,
}

/// What a section holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SectionData {
    /// It was never filled; the blueprint knows whether there is such a section.
    Empty,
    /// One value for each field.
    Single(Values),
    /// Rows: see [`Editions::rows`].
    Repeating,
}

/// Rows of a section.
#[derive(Clone, Debug)]
pub struct RowsPage {
    /// The edition's head, as it was then: pages of one version belong together.
    pub edition: EditionRecord,
    /// The rows, in order. The key is a row's place in its section.
    pub page: Page<Row, i64>,
}

/// All that an edition holds, or that it is more than was wanted.
#[derive(Clone, Debug)]
pub enum Whole {
    /// All of it.
    Content(Box<EditionRecord>, Content),
    /// It has more bytes.
    TooLarge,
}

/// An output as clients see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRecord {
    /// What was told of it. After an `output.generated` that is later than its newest snapshot it is
    /// `generated`, and its file is not known until it was taken.
    pub output: Output,
    /// Where its file is kept, if it is kept here.
    pub kept: Option<FileKey>,
    /// Grows with every change, also with those that raise no version.
    pub revision: i64,
}

/// Reading edition data. What one call answers was so at one instant. `None` is what is not there,
/// was deleted, was told of only by events, or is not in reach: a restricted reach ends at what
/// belongs to its projects, and a deleted project hides all that belongs to it.
#[async_trait]
pub trait Editions: Send + Sync {
    /// The workspace.
    async fn workspace(&self, id: &WorkspaceId) -> Result<Option<WorkspaceRecord>>;

    /// Its members, in the order of their ids.
    async fn members(
        &self,
        workspace: &WorkspaceId,
        page: PageRequest<UserId>,
    ) -> Result<Page<Member, UserId>>;

    /// The blueprints of a project, in the order of their ids. The page ends before the one that would
    /// make it larger than `max_bytes` (of definitions as they are kept), but holds at least one.
    async fn blueprints(
        &self,
        reach: &Reach,
        project: &ProjectId,
        page: PageRequest<BlueprintId>,
        max_bytes: usize,
    ) -> Result<Page<BlueprintRecord, BlueprintId>>;

    /// One blueprint.
    async fn blueprint(&self, reach: &Reach, id: &BlueprintId) -> Result<Option<BlueprintRecord>>;

    /// Editions, in the order in which they last changed.
    async fn editions(
        &self,
        reach: &Reach,
        filter: &EditionFilter,
        page: PageRequest<EditionKey>,
    ) -> Result<EditionList>;

    /// One edition's head.
    async fn edition(&self, reach: &Reach, id: &EditionId) -> Result<Option<EditionRecord>>;

    /// What has changed if anything of the edition has, by one read of an index: for conditional
    /// requests.
    async fn edition_tag(&self, reach: &Reach, id: &EditionId) -> Result<Option<EditionTag>>;

    /// The same of its sections: one statement, which reads two indexes.
    async fn section_tag(&self, reach: &Reach, id: &EditionId) -> Result<Option<SectionTag>>;

    /// One section of an edition.
    async fn section(
        &self,
        reach: &Reach,
        edition: &EditionId,
        section: &str,
    ) -> Result<Option<SectionRecord>>;

    /// Rows of a section, in order; none of one that is not repeating. The page ends before the row
    /// that would make it larger than `max_bytes` (of ids and values as they are kept), but holds at
    /// least one.
    async fn rows(
        &self,
        reach: &Reach,
        edition: &EditionId,
        section: &str,
        page: PageRequest<i64>,
        max_bytes: usize,
    ) -> Result<Option<RowsPage>>;

    /// All that an edition holds, if it is at most `max_bytes` (of ids and values as they are kept).
    async fn content(
        &self,
        reach: &Reach,
        edition: &EditionId,
        max_bytes: usize,
    ) -> Result<Option<Whole>>;

    /// The outputs of an edition, in the order of their ids.
    async fn outputs(
        &self,
        reach: &Reach,
        edition: &EditionId,
        page: PageRequest<OutputId>,
    ) -> Result<Option<Page<OutputRecord, OutputId>>>;

    /// One output.
    async fn output(&self, reach: &Reach, id: &OutputId) -> Result<Option<OutputRecord>>;
}
