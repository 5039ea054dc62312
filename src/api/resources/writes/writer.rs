//! A write on its way to the store.

use axum::response::Response;

use super::edit::{Checked, Sent};
use super::receipt::{Answer, Receipt, keep};
use super::terms::Terms;
use crate::api::auth::Caller;
use crate::api::auth::caller::WriteEditions;
use crate::api::path::SectionOf;
use crate::api::problem_type::ProblemType;
use crate::api::{Api, Problem, Result};
use crate::domain::blueprint::Section;
use crate::domain::ids::{EditionId, RowId};
use crate::domain::reach::Reach;
use crate::store::{BlueprintRecord, EditionRecord, Idempotency, Write, Written};

/// How often a write is made anew when its blueprint is changed in between.
pub(super) const TRIES: usize = 5;

/// Who writes, and on what terms.
pub(super) struct Writer<'a> {
    pub(super) api: &'a Api,
    pub(super) reach: Reach,
    once: Option<Idempotency>,
    versions: Option<&'a [i64]>,
}

impl<'a> Writer<'a> {
    /// For one request to this route; the parts of its body tell it from others.
    pub(super) fn new(
        api: &'a Api,
        caller: &Caller<WriteEditions>,
        terms: &'a Terms,
        route: &'static str,
        body: &[&[u8]],
    ) -> Self {
        Self {
            api,
            reach: caller.reach(),
            once: terms.once(caller.key(), route, body),
            versions: terms.versions(),
        }
    }

    /// Writes what was sent for a section, and answers with a receipt.
    pub(super) async fn edit(&self, place: &SectionOf, sent: Sent) -> Result<Response> {
        for _ in 0..TRIES {
            let blueprint = self.blueprint_of(&place.edition).await?;
            let mut sections = blueprint.blueprint.sections.into_iter();
            let section = sections.find(|it| it.name == place.name);
            let section = section.ok_or_else(Problem::not_found)?;
            let (section, Checked { edit, row_ids }) = self.check(section, sent.clone()).await?;
            let receipt = |record: &EditionRecord| {
                keep(
                    record,
                    &Receipt::new(record, &section.name, row_ids.as_deref()),
                )
            };
            let write = self.write(blueprint.version, &receipt);
            let store = self.api.store();
            let written = store
                .edit_section(&place.edition, &section, &edit, &write)
                .await?;
            if let Written::Invalid(faults) = written {
                let refused = aside(move || sent.refused(faults, &section));
                return Err(refused.await.unwrap_or_else(|problem| problem));
            }
            if let Some(answer) = Answer::of(written)? {
                return Ok(answer.respond());
            }
        }
        Err(restless())
    }

    /// Hands an edition in, and gives the answer that `answer` makes of it.
    pub(super) async fn submit(
        &self,
        edition: &EditionId,
        answer: &(dyn Fn(&EditionRecord) -> String + Send + Sync),
    ) -> Result<Response> {
        for _ in 0..TRIES {
            let blueprint = self.blueprint_of(edition).await?;
            let write = self.write(blueprint.version, answer);
            let written = self.api.store().submit_edition(edition, &write).await?;
            if let Some(answer) = Answer::of(written)? {
                return Ok(answer.respond());
            }
        }
        Err(restless())
    }

    /// The write as the store takes it.
    pub(super) fn write<'w>(
        &'w self,
        blueprint_version: i64,
        answer: &'w (dyn Fn(&EditionRecord) -> String + Send + Sync),
    ) -> Write<'w> {
        Write {
            reach: &self.reach,
            versions: self.versions,
            blueprint_version,
            once: self.once.as_ref(),
            answer,
            event: self.api.entropy().id(self.api.clock().now()),
            leasing: self.api.leasing(),
            intake: self.api.intake(),
        }
    }

    /// What an edition is to be filled by.
    async fn blueprint_of(&self, edition: &EditionId) -> Result<BlueprintRecord> {
        let store = self.api.store();
        let edition = store.edition(&self.reach, edition).await?;
        let edition = edition.ok_or_else(Problem::not_found)?.edition;
        let found = store.blueprint(&self.reach, &edition.blueprint).await?;
        // One that moved to another project is not for those who see the edition only.
        found
            .filter(|found| found.blueprint.project == edition.project)
            .ok_or_else(Problem::not_found)
    }

    /// Holds what was sent against its section: 5 MB take tens of milliseconds.
    async fn check(&self, section: Section, sent: Sent) -> Result<(Section, Checked)> {
        let (entropy, now) = (self.api.entropy().clone(), self.api.clock().now());
        aside(move || {
            let new_id = || RowId::ours(now, entropy.bytes());
            let checked = sent.check(&section, new_id)?;
            Ok((section, checked))
        })
        .await
    }
}

/// Works on a thread that serves nothing else.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let working = tokio::task::spawn_blocking(work);
    working.await.unwrap_or_else(|error| {
        tracing::error!(%error, "what was sent could not be looked at");
        Err(Problem::new(ProblemType::Internal))
    })
}

/// The blueprint is changed again and again.
pub(super) fn restless() -> Problem {
    Problem::unavailable()
}
