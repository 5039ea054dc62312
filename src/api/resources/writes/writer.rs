//! A write on its way to the store.

use axum::response::Response;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use super::edit::{Checked, Sent};
use super::receipt::{Answer, Receipt, keep};
use super::terms::Terms;
use crate::api::auth::caller::WriteEditions;
use crate::api::auth::{Caller, Slot};
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
pub(super) struct Writer {
    pub(super) api: Api,
    pub(super) reach: Reach,
    /// Held until the write has ended, whoever waits for it.
    _slot: Slot,
    once: Option<Idempotency>,
    terms: Terms,
}

impl Writer {
    /// For one request to this route; the parts of its body tell it from others.
    pub(super) fn new(
        api: Api,
        caller: &Caller<WriteEditions>,
        terms: Terms,
        route: &'static str,
        body: &[&[u8]],
    ) -> Self {
        Self {
            api,
            reach: caller.reach(),
            _slot: caller.slot(),
            once: terms.once(caller.key(), route, body),
            terms,
        }
    }

    /// Does a write, and answers as the first request with its key was answered.
    pub(super) async fn carry_out<W>(
        self,
        write: impl FnOnce(Self) -> W + Send + 'static,
    ) -> Result<Answer>
    where
        W: Future<Output = Result<Answer>> + Send,
    {
        let writes = self.api.writes().clone();
        to_the_end(&writes, async move {
            match self.answered().await? {
                Some(answer) => Ok(answer),
                None => write(self).await,
            }
        })
        .await
    }

    /// What an earlier request with the same key was answered.
    async fn answered(&self) -> Result<Option<Answer>> {
        let Some(once) = &self.once else {
            return Ok(None);
        };
        let store = self.api.store();
        match store.answered(&self.reach.workspace, once).await? {
            Some(written) => Answer::of(written),
            None => Ok(None),
        }
    }

    /// Writes what was sent for a section, and answers with a receipt.
    pub(super) async fn edit(self, place: SectionOf, sent: Sent) -> Result<Response> {
        let answer = self.carry_out(move |writer| async move { writer.edited(&place, sent).await });
        Ok(answer.await?.respond())
    }

    async fn edited(&self, place: &SectionOf, sent: Sent) -> Result<Answer> {
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
                return Ok(answer);
            }
        }
        Err(restless())
    }

    /// Hands an edition in, and gives the answer that `answer` makes of it.
    pub(super) async fn submit(
        self,
        edition: EditionId,
        answer: fn(&EditionRecord) -> String,
    ) -> Result<Response> {
        let done =
            self.carry_out(move |writer| async move { writer.submitted(&edition, &answer).await });
        Ok(done.await?.respond())
    }

    async fn submitted(
        &self,
        edition: &EditionId,
        answer: &(dyn Fn(&EditionRecord) -> String + Send + Sync),
    ) -> Result<Answer> {
        for _ in 0..TRIES {
            let blueprint = self.blueprint_of(edition).await?;
            let write = self.write(blueprint.version, answer);
            let written = self.api.store().submit_edition(edition, &write).await?;
            if let Some(answer) = Answer::of(written)? {
                return Ok(answer);
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
            versions: self.terms.versions(),
            blueprint_version,
            once: self.once.as_ref(),
            answer,
            event: self.api.entropy().id(self.api.clock().now()),
            trace: self.terms.trace(),
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
            .ok_or_else(|| Problem::new(ProblemType::BlueprintUnknown))
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

/// Does work that goes on when nobody waits for its answer any more, since the client hung up: a write
/// that is dropped in the middle of its commit would leave deliveries behind that nobody sends before
/// their lease is over. A stop waits for it ([`Api::written`]).
async fn to_the_end<T: Send + 'static>(
    writes: &TaskTracker,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let working = writes.spawn(work.in_current_span());
    working.await.unwrap_or_else(|error| {
        tracing::error!(%error, "a write broke");
        Err(Problem::new(ProblemType::Internal))
    })
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

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_when_nobody_waits_for_it() {
        let (commit, committed) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let writes = TaskTracker::new();
        let mut waiting = Box::pin(to_the_end(&writes, async move {
            committed.await.unwrap();
            tell.send("delivered").unwrap();
            Ok(())
        }));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(waiting);
        assert_eq!(writes.len(), 1, "a stop waits for it");
        commit.send(()).unwrap();
        assert_eq!(told.await, Ok("delivered"));
    }
}
