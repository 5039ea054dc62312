//! Edition data pushed over the API (product.md §5): each write is one transaction that changes the
//! data, raises the edition's version and says so in an event of our own.
//!
//! Values are checked against the blueprint before the transaction, so that nobody waits for that;
//! the transaction makes sure that the blueprint is still the one they were checked against. What is
//! to be complete before an edition is handed in is looked at inside of it.

use async_trait::async_trait;

use super::intake::Intake;
use super::{EditionRecord, Idempotency, Leasing, Result};
use crate::domain::blueprint::Section;
use crate::domain::edition::{EditionStatus, Row};
use crate::domain::ids::{BlueprintId, EditionId, EventId, OutputId, RowId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::domain::values::{ValueFaults, Values};

/// Who writes, on what, and what is told of it.
pub struct Write<'a> {
    /// What of the workspace may be written.
    pub reach: &'a Reach,
    /// The versions that the client knows (`If-Match`); `None` takes whatever is there.
    pub versions: Option<&'a [i64]>,
    /// The version of the blueprint that the values were checked against.
    pub blueprint_version: i64,
    /// By what a repeated request is known.
    pub once: Option<&'a Idempotency>,
    /// The answer to the client, made of the edition as it was written; that of an edit may be made
    /// before its `updated_at` is known, and must not tell it. It is kept with the key of the request,
    /// if there is one, and given again.
    pub answer: &'a (dyn Fn(&EditionRecord) -> String + Send + Sync),
    /// The id of the event that tells of it.
    pub event: EventId,
    /// The trace that the event belongs to: that of the request, where it is exported.
    pub trace: Option<&'a str>,
    /// Who leases the deliveries of that event.
    pub leasing: Leasing,
    /// Who sends them.
    pub intake: &'a dyn Intake,
}

/// An edition to be made.
#[derive(Clone, Debug)]
pub struct NewEdition {
    /// Its id, ours.
    pub id: EditionId,
    /// What it is an edition of.
    pub blueprint: BlueprintId,
    /// Its name.
    pub name: String,
    /// The reporting cycle.
    pub period: Option<String>,
    /// Ids of ours for its outputs, one for each that the blueprint offers, in their order.
    pub outputs: Vec<OutputId>,
}

/// What is to be different in a section, already held against the blueprint.
#[derive(Clone, Debug)]
pub enum Edit {
    /// These values over those of a section that is filled once; null takes one away.
    SetValues(Values),
    /// These rows instead of all that are there. A row whose id is there keeps the values that only
    /// the core may write.
    PutRows(Vec<Row>),
    /// These rows behind those that are there. None of their ids may be there.
    AppendRows(Vec<Row>),
    /// These values over those of one row.
    SetRow(RowId, Values),
    /// One row less.
    DeleteRow(RowId),
}

/// What a write came to.
#[derive(Debug)]
pub enum Written {
    /// It was written, now or by an earlier request with the same key.
    Done {
        /// The answer to the client.
        answer: String,
        /// The edition's version since then.
        version: i64,
    },
    /// Nothing of that id is in reach: the edition (or blueprint) or the row.
    NotFound,
    /// The edition stands where it takes no changes.
    NotOpen(EditionStatus),
    /// The blueprint was changed meanwhile: the values are to be checked anew.
    BlueprintChanged,
    /// What is there does not allow it: values that are missing, ids that are taken.
    Invalid(ValueFaults),
    /// An earlier request with this key asked for something else.
    Conflicting,
    /// An earlier request with this key is not done yet.
    Running,
}

/// Writes of edition data. A version that is none of those that the client knows is
/// [`super::StoreError::Stale`].
#[async_trait]
pub trait EditionWrites: Send + Sync {
    /// What an earlier request with this key came to; `None` if there was none, or if it is not done
    /// yet. To be asked before what is sent is looked at: a repeat is given the same answer whatever
    /// has changed since.
    async fn answered(
        &self,
        workspace: &WorkspaceId,
        once: &Idempotency,
    ) -> Result<Option<Written>>;

    /// Makes an edition in draft, with empty sections and outputs that are not generated;
    /// `edition.created` goes to the outbox.
    async fn create_edition(&self, new: &NewEdition, write: &Write<'_>) -> Result<Written>;

    /// Changes a section of an edition that takes changes; `edition.changed` goes to the outbox. An
    /// edit that changes nothing raises no version and tells of nothing.
    async fn edit_section(
        &self,
        edition: &EditionId,
        section: &Section,
        edit: &Edit,
        write: &Write<'_>,
    ) -> Result<Written>;

    /// Hands an edition in, if nothing that is required is missing; `edition.submitted` is accepted
    /// like any event that arrives (feed, deliveries) and goes to the outbox.
    async fn submit_edition(&self, edition: &EditionId, write: &Write<'_>) -> Result<Written>;
}
