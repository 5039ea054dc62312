//! An edition: one reporting cycle's filling of a blueprint.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::ids::{BlueprintId, EditionId, ProjectId, RowId};
use super::values::Values;
use super::workspace::Person;

/// The longest word for a status, in bytes.
pub const MAX_STATUS_BYTES: usize = 64;

/// Where an edition stands. The core may move an edition between any two; a status that is unknown
/// here is kept and served as it is (product.md §1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EditionStatus {
    /// Being filled.
    Draft,
    /// Handed in.
    Submitted,
    /// Being looked at.
    InReview,
    /// Handed back.
    ChangesRequested,
    /// Accepted.
    Approved,
    /// Done with.
    Closed,
    /// Any other word of the core's.
    Other(Arc<str>),
}

impl EditionStatus {
    /// Reads the word: 1 to [`MAX_STATUS_BYTES`] of `a` to `z`, digits and `_`.
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        Some(match text {
            "draft" => Self::Draft,
            "submitted" => Self::Submitted,
            "in_review" => Self::InReview,
            "changes_requested" => Self::ChangesRequested,
            "approved" => Self::Approved,
            "closed" => Self::Closed,
            _ if text.is_empty() || text.len() > MAX_STATUS_BYTES => return None,
            _ if text.bytes().all(plain) => Self::Other(Arc::from(text)),
            _ => return None,
        })
    }

    /// The word for it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Draft => "draft",
            Self::Submitted => "submitted",
            Self::InReview => "in_review",
            Self::ChangesRequested => "changes_requested",
            Self::Approved => "approved",
            Self::Closed => "closed",
            Self::Other(word) => word,
        }
    }

    /// Whether its data may be changed over the API.
    pub fn takes_changes(&self) -> bool {
        matches!(self, Self::Draft | Self::ChangesRequested)
    }

    /// Whether its outputs may be made over the API.
    pub fn gives_outputs(&self) -> bool {
        matches!(self, Self::Approved | Self::Closed)
    }

    /// The status that a webhook event of this type tells of.
    pub fn told_by(event_type: &str) -> Option<Self> {
        match event_type {
            "edition.submitted" => Some(Self::Submitted),
            "edition.approved" => Some(Self::Approved),
            "edition.changes_requested" => Some(Self::ChangesRequested),
            _ => None,
        }
    }
}

impl fmt::Display for EditionStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The head of an edition: everything but what its sections hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edition {
    /// The core's id, or ours (`ed_`) which the core adopts.
    pub id: EditionId,
    /// The project of its blueprint.
    pub project: ProjectId,
    /// What it is an edition of.
    pub blueprint: BlueprintId,
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub status: EditionStatus,
    /// Since when it stands there.
    pub status_changed_at: DateTime<Utc>,
    /// The reporting cycle, in the core's own words (`2026-Q2`).
    pub period: Option<String>,
    /// Who has to fill it.
    pub assignee: Option<Person>,
    /// Grows with every change of its data.
    pub version: i64,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// What a section of an edition holds.
#[derive(Clone, Debug, PartialEq)]
pub enum SectionContent {
    /// One value for each field.
    Single(Values),
    /// Rows, in order. Their ids are different from one another.
    Repeating(Vec<Row>),
}

/// What the sections of an edition hold, by their names, which are different from one another.
pub type Content = Vec<(String, SectionContent)>;

/// A row of a repeating section.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Which; it stays the same for the row's life.
    pub id: RowId,
    /// One value for each field that is filled.
    pub values: Values,
}
