//! An edition: one reporting cycle's filling of a blueprint.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::blueprint::Blueprint;
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

/// Why an edition was not written: it stands where its data is nobody's to change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the edition is `{status}`; only `draft` and `changes_requested` ones can be changed")]
pub struct NotOpen {
    /// Where it stands.
    pub status: EditionStatus,
}

impl Edition {
    /// A new one of this blueprint, to be filled.
    pub fn draft(
        id: EditionId,
        blueprint: &Blueprint,
        name: String,
        period: Option<String>,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            id,
            project: blueprint.project.clone(),
            blueprint: blueprint.id.clone(),
            name,
            status: EditionStatus::Draft,
            status_changed_at: now,
            period,
            assignee: None,
            version: 1,
            created_at: now,
            updated_at: now,
        }
    }

    /// Its data changes: the version grows. The core answers with a greater one.
    pub fn change(&mut self, now: DateTime<Utc>) -> Result<(), NotOpen> {
        if !self.status.takes_changes() {
            return Err(NotOpen {
                status: self.status.clone(),
            });
        }
        self.raise(now);
        Ok(())
    }

    /// It is handed in. Whether it is complete is asked before (`values::check_complete`).
    pub fn submit(&mut self, now: DateTime<Utc>) -> Result<(), NotOpen> {
        self.change(now)?;
        self.status = EditionStatus::Submitted;
        // A clock behind the core's must not put the step before the one that it follows.
        self.status_changed_at = now.max(self.status_changed_at);
        Ok(())
    }

    /// The next version of it.
    pub fn raise(&mut self, now: DateTime<Utc>) {
        self.version = self.version.saturating_add(1);
        self.updated_at = now.max(self.updated_at);
    }
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn edition() -> Edition {
        let blueprint = Blueprint {
            id: BlueprintId::new("bp_1").unwrap(),
            project: ProjectId::new("pr_1").unwrap(),
            name: "Report".into(),
            sections: Vec::new(),
            outputs: Vec::new(),
        };
        let id = EditionId::new("ed_1").unwrap();
        Edition::draft(id, &blueprint, "Q2".into(), None, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn only_an_open_edition_changes_and_each_change_raises_its_version() {
        let later = DateTime::from_timestamp_millis(5).unwrap();
        let mut edition = edition();
        edition.change(later).unwrap();
        assert_eq!((edition.version, edition.updated_at), (2, later));
        edition.submit(later).unwrap();
        assert_eq!((edition.version, edition.status_changed_at), (3, later));
        assert_eq!(edition.status, EditionStatus::Submitted);
        let handed_in = edition.clone();
        let refused = edition.change(later).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("the edition is `submitted`")
        );
        assert!(edition.submit(later).is_err());
        assert_eq!(edition, handed_in, "nothing of it changed");
    }

    #[test]
    fn a_step_never_lies_before_the_one_that_it_follows() {
        let mut edition = edition();
        edition.status = EditionStatus::ChangesRequested;
        edition.status_changed_at = DateTime::from_timestamp_millis(9).unwrap();
        edition
            .submit(DateTime::from_timestamp_millis(5).unwrap())
            .unwrap();
        assert_eq!(edition.status_changed_at.timestamp_millis(), 9);
    }
}
