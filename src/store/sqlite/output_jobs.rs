//! Outputs that are asked for, leased and settled. There is one writer, so nothing need be held.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::error::store_error;
use super::events::{Kept, Offer};
use super::idempotency::{keep_answer, remember_write};
use super::output_files::{key_of, write_file};
use super::rows::{count, duration_millis, get, millis, parsed, to_time, unsigned};
use super::{Approach, SqliteStore, heads, outbox, outputs};
use crate::domain::event::Event;
use crate::domain::ids::{OutputId, WorkspaceId};
use crate::domain::output::Output;
use crate::domain::payload::Payload;
use crate::domain::reach::Reach;
use crate::store::output_jobs::{LOOKS, pause_after, word};
use crate::store::output_steps::{JobThere, Step, begun, failed, finished, generated, requested};
use crate::store::{
    CoreFiles, JobOutcome, JobSettled, JobShare, Leasing, OutputAsk, OutputAsked, OutputJob,
    OutputJobs, OutputRecord, OutputTask, Result, Standing, StoreError,
};
use crate::wake::Wake;

#[async_trait]
impl OutputJobs for SqliteStore {
    fn open_output_jobs(&self, bell: Arc<Wake>, files: CoreFiles) {
        self.output_jobs.open(bell, files);
    }

    async fn ask_output(&self, id: &OutputId, ask: &OutputAsk<'_>) -> Result<OutputAsked> {
        let workspace = &ask.reach.workspace;
        let mut transaction = self.write().await?;
        let now = to_time(millis(self.clock.now()))?;
        let known = remember_write(&mut transaction, workspace, ask.once, id.as_str(), now).await?;
        if let Some(known) = known {
            return OutputAsked::of_known(known);
        }
        let Some(found) = outputs::one(&mut transaction, ask.reach, id).await? else {
            return Ok(OutputAsked::NotFound);
        };
        let edition = heads::one(&mut transaction, ask.reach, &found.output.edition).await?;
        let Some(edition) = edition else {
            return Ok(OutputAsked::NotFound);
        };
        let job = there(&mut transaction, workspace, id).await?;
        let status = &edition.edition.status;
        let (record, event) = match Step::of(&found.output, status, job, ask.core_timeout, now) {
            Step::Stays(Some(refused)) => return Ok(refused),
            Step::Stays(None) => (found, None),
            Step::Queued { output, task, due } => {
                let due = millis(now).saturating_add(duration_millis(due));
                add(&mut transaction, workspace, id, task, due).await?;
                let asks = task == word::ASK;
                let event = asks.then(|| requested(&output, ask)).transpose()?;
                (
                    state(&mut transaction, workspace, found, output).await?,
                    event,
                )
            }
        };
        let answer = (ask.answer)(&record);
        let version = record.output.version;
        keep_answer(&mut transaction, workspace, ask.once, &answer, version).await?;
        let events: Vec<&Event> = event.iter().map(Payload::event).collect();
        let appended = outbox::append(&mut transaction, &self.outbox, &events, millis(now)).await?;
        self.commit(transaction).await?;
        appended.committed();
        self.output_jobs.ring();
        Ok(OutputAsked::Done(answer))
    }

    async fn take_output_jobs(
        &self,
        share: JobShare,
        leasing: Leasing,
        limit: usize,
    ) -> Result<Vec<OutputJob>> {
        // Nearly always there is none, and then nobody need wait for the writer.
        let now = self.clock.now();
        if due(&mut *self.reader().await?, share, now, limit)
            .await?
            .is_empty()
        {
            return Ok(Vec::new());
        }
        let mut transaction = self.write().await?;
        let now = to_time(millis(self.clock.now()))?;
        let mut jobs = Vec::new();
        for row in due(&mut transaction, share, now, limit).await? {
            jobs.extend(take(&mut transaction, &row, leasing, now).await?);
        }
        self.commit(transaction).await?;
        Ok(jobs)
    }

    async fn renew_output_job(&self, job: &OutputJob, lease: Duration) -> Result<Standing> {
        let mut transaction = self.write().await?;
        let until = millis(self.clock.now()).saturating_add(duration_millis(lease));
        let renewed = sqlx::query(
            "-- sqlite::output_jobs::renew_output_job
            update output_job
            set visible_at = ?5
            where workspace = ?1 and output = ?2 and owner = ?3 and epoch = ?4",
        )
        .bind(job.workspace.as_str())
        .bind(job.output.id.as_str())
        .bind(job.owner.uuid())
        .bind(job.epoch)
        .bind(until)
        .execute(&mut *transaction)
        .await
        .map_err(store_error)?;
        self.commit(transaction).await?;
        Ok(match renewed.rows_affected() {
            0 => Standing::Deposed,
            _ => Standing::Leads,
        })
    }

    async fn settle_output_job(
        &self,
        job: &OutputJob,
        outcome: JobOutcome<'_>,
    ) -> Result<JobSettled> {
        if let JobOutcome::Rendered { telling, .. } = &outcome {
            telling.intake.relief().await;
        }
        let mut transaction = self.write().await?;
        let now = to_time(millis(self.clock.now()))?;
        if !is_held(&mut transaction, job).await? {
            return committed_before(&mut transaction, job, &outcome).await;
        }
        let mut replaced = None;
        let mut told = None;
        match &outcome {
            JobOutcome::Postponed(pause) => {
                let due = millis(now).saturating_add(duration_millis(*pause));
                give_back(&mut transaction, job, due, 0).await?;
            }
            JobOutcome::Released => give_back(&mut transaction, job, millis(now), 1).await?,
            JobOutcome::Failed(_) | JobOutcome::Fetched(_) | JobOutcome::Rendered { .. } => {
                remove(&mut transaction, &job.workspace, &job.output.id).await?;
                let reach = Reach::all(&job.workspace);
                let found = outputs::one(&mut transaction, &reach, &job.output.id).await?;
                let Some(found) = found else {
                    // It was deleted meanwhile: there is nothing to make any more.
                    withdraw(&mut transaction, &job.workspace, &job.output.id, now).await?;
                    self.commit(transaction).await?;
                    return Ok(JobSettled::LeaseLost);
                };
                if let JobOutcome::Failed(reason) = &outcome {
                    let output = failed(found.output.clone(), reason, now)?;
                    state(&mut transaction, &job.workspace, found, output).await?;
                } else if let Some(file) = outcome.file() {
                    let output = finished(found.output.clone(), file, now)?;
                    // What an event tells is stated first, and of the same time: so it moves nothing.
                    let made = state(&mut transaction, &job.workspace, found, output).await?;
                    replaced =
                        write_file(&mut transaction, job, &outcome, &made.output, file).await?;
                    told = self
                        .tell(&mut transaction, job, &outcome, &made.output)
                        .await?;
                }
            }
        }
        let events: Vec<&Event> = told.iter().map(|(event, _)| event.event()).collect();
        let appended = outbox::append(&mut transaction, &self.outbox, &events, millis(now)).await?;
        self.commit(transaction).await?;
        appended.committed();
        if let (Some((_, kept)), JobOutcome::Rendered { telling, .. }) = (told, &outcome) {
            let accepted = self.kept(kept);
            telling.intake.hand_over(accepted.leased);
            if accepted.pending > 0 {
                telling.intake.left_waiting(&accepted.pending_of);
            }
        }
        Ok(JobSettled::Settled { replaced })
    }
}

impl SqliteStore {
    /// Accepts the event that tells of what was made here, like any that arrives.
    async fn tell(
        &self,
        transaction: &mut SqliteConnection,
        job: &OutputJob,
        outcome: &JobOutcome<'_>,
        made: &Output,
    ) -> Result<Option<(Arc<Payload>, Kept)>> {
        let JobOutcome::Rendered { telling, .. } = outcome else {
            return Ok(None);
        };
        let event = generated(made, job, telling)?;
        let events = [Arc::clone(&event)];
        let offer = Offer::of(&events, telling.leasing, telling.intake);
        let kept = self
            .keep(transaction, &offer, Approach::Careful)
            .await?
            .ok_or_else(|| StoreError::corrupt("an event's key is there and cannot be found"))?;
        Ok(Some((event, kept)))
    }
}

/// Whether the output has a job.
async fn there(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    id: &OutputId,
) -> Result<JobThere> {
    let found = sqlx::query(
        "-- sqlite::output_jobs::there
        select 1 as one from output_job where workspace = ?1 and output = ?2",
    )
    .bind(workspace.as_str())
    .bind(id.as_str())
    .fetch_optional(transaction)
    .await
    .map_err(store_error)?;
    Ok(found.map_or(JobThere::No, |_| JobThere::Yes))
}

/// Adds the job of an output that has none.
async fn add(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    id: &OutputId,
    task: &str,
    due: i64,
) -> Result<()> {
    sqlx::query(
        "-- sqlite::output_jobs::add
        insert into output_job (workspace, output, task, visible_at, epoch, tries)
        values (?1, ?2, ?3, ?4, 0, 0)",
    )
    .bind(workspace.as_str())
    .bind(id.as_str())
    .bind(task)
    .bind(due)
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

/// The jobs of a share that are due, longest first.
async fn due(
    connection: &mut SqliteConnection,
    share: JobShare,
    now: DateTime<Utc>,
    limit: usize,
) -> Result<Vec<SqliteRow>> {
    sqlx::query(
        "-- sqlite::output_jobs::due
        select workspace, output
        from output_job
        where (task = 'fetch') = ?1 and visible_at <= ?2
        order by visible_at
        limit ?3",
    )
    .bind(share == JobShare::Fetched)
    .bind(millis(now))
    .bind(count(limit))
    .fetch_all(connection)
    .await
    .map_err(store_error)
}

/// Leases a job; `None` where its output is not seen (yet, or any more). It is read before it is leased,
/// so that it shows a beginning that was not stated yet.
async fn take(
    transaction: &mut SqliteConnection,
    row: &SqliteRow,
    leasing: Leasing,
    now: DateTime<Utc>,
) -> Result<Option<OutputJob>> {
    let workspace: WorkspaceId = parsed(row, "workspace")?;
    let id: OutputId = parsed(row, "output")?;
    let found = outputs::one(transaction, &Reach::all(&workspace), &id).await?;
    let Some(found) = found else {
        look_again(transaction, &workspace, &id, now).await?;
        return Ok(None);
    };
    let leased = sqlx::query(
        "-- sqlite::output_jobs::take
        update output_job
        set owner = ?3, epoch = epoch + 1, tries = tries + 1, looks = 0, visible_at = ?4
        where workspace = ?1 and output = ?2
        returning task, url, epoch, tries",
    )
    .bind(workspace.as_str())
    .bind(id.as_str())
    .bind(leasing.owner.uuid())
    .bind(millis(now).saturating_add(duration_millis(leasing.lease)))
    .fetch_one(&mut *transaction)
    .await
    .map_err(store_error)?;
    let task = OutputTask::read(get(&leased, "task")?, get(&leased, "url")?)?;
    let begun = begun(found.output.clone(), now).filter(|_| task != OutputTask::GiveUp);
    let output = match begun {
        Some(output) => state(transaction, &workspace, found, output).await?.output,
        None => found.output,
    };
    Ok(Some(OutputJob {
        workspace,
        output,
        task,
        owner: leasing.owner,
        epoch: get(&leased, "epoch")?,
        tries: unsigned(&leased, "tries")?,
    }))
}

/// Leaves a job for later whose output may be told of yet, but not for ever.
async fn look_again(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    id: &OutputId,
    now: DateTime<Utc>,
) -> Result<()> {
    let row = sqlx::query(
        "-- sqlite::output_jobs::look_again (count)
        update output_job
        set owner = null, looks = looks + 1
        where workspace = ?1 and output = ?2
        returning looks",
    )
    .bind(workspace.as_str())
    .bind(id.as_str())
    .fetch_one(&mut *transaction)
    .await
    .map_err(store_error)?;
    let looks: u32 = unsigned(&row, "looks")?;
    if looks >= LOOKS {
        remove(transaction, workspace, id).await?;
        return withdraw(transaction, workspace, id, now).await;
    }
    sqlx::query(
        "-- sqlite::output_jobs::look_again (wait)
        update output_job
        set visible_at = ?3
        where workspace = ?1 and output = ?2",
    )
    .bind(workspace.as_str())
    .bind(id.as_str())
    .bind(millis(now).saturating_add(duration_millis(pause_after(looks))))
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

async fn is_held(transaction: &mut SqliteConnection, job: &OutputJob) -> Result<bool> {
    let found = sqlx::query(
        "-- sqlite::output_jobs::is_held
        select 1 as one
        from output_job
        where workspace = ?1 and output = ?2 and owner = ?3 and epoch = ?4",
    )
    .bind(job.workspace.as_str())
    .bind(job.output.id.as_str())
    .bind(job.owner.uuid())
    .bind(job.epoch)
    .fetch_optional(transaction)
    .await
    .map_err(store_error)?;
    Ok(found.is_some())
}

/// What to answer whose lease is gone: it may have written this very file, and not heard of it.
async fn committed_before(
    transaction: &mut SqliteConnection,
    job: &OutputJob,
    outcome: &JobOutcome<'_>,
) -> Result<JobSettled> {
    let key = key_of(transaction, job).await?;
    let is_mine = outcome
        .file()
        .is_some_and(|file| Some(&file.key) == key.as_ref());
    Ok(if is_mine {
        JobSettled::Settled { replaced: None }
    } else {
        JobSettled::LeaseLost
    })
}

/// Leaves the job to anybody, from then on; so many times of being begun count for nothing.
async fn give_back(
    transaction: &mut SqliteConnection,
    job: &OutputJob,
    due: i64,
    uncounted: i64,
) -> Result<()> {
    sqlx::query(
        "-- sqlite::output_jobs::give_back
        update output_job
        set owner = null, visible_at = ?3, tries = max(tries - ?4, 0)
        where workspace = ?1 and output = ?2",
    )
    .bind(job.workspace.as_str())
    .bind(job.output.id.as_str())
    .bind(due)
    .bind(uncounted)
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

async fn remove(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    id: &OutputId,
) -> Result<()> {
    sqlx::query(
        "-- sqlite::output_jobs::remove
        delete from output_job where workspace = ?1 and output = ?2",
    )
    .bind(workspace.as_str())
    .bind(id.as_str())
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

/// The output, which has no job any more, is as if nobody had asked for it: should it be seen again, it
/// can be asked for. What told of a file that is not here counts no more.
pub(super) async fn withdraw(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    id: &OutputId,
    now: DateTime<Utc>,
) -> Result<()> {
    sqlx::query(
        "-- sqlite::output_jobs::withdraw
        update output
        set stated_status = 'not_generated',
            stated_at = max(stated_at, coalesce(told_at, 0), ?3),
            size = null, sha256 = null, generated_at = null, failure = null,
            told_at = null, told_by = null, revision = revision + 1
        where workspace = ?1 and id = ?2 and version is not null",
    )
    .bind(workspace.as_str())
    .bind(id.as_str())
    .bind(millis(now))
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}

/// States how the output is from now on.
async fn state(
    transaction: &mut SqliteConnection,
    workspace: &WorkspaceId,
    before: OutputRecord,
    output: Output,
) -> Result<OutputRecord> {
    let file = output.file.as_ref();
    let size = file.map(|file| i64::try_from(file.size).map_err(StoreError::corrupt));
    let row = sqlx::query(
        "-- sqlite::output_jobs::state
        update output
        set stated_status = ?3, stated_at = ?4, size = ?5, sha256 = ?6, generated_at = ?7,
            failure = ?8, revision = revision + 1
        where workspace = ?1 and id = ?2
        returning revision",
    )
    .bind(workspace.as_str())
    .bind(output.id.as_str())
    .bind(output.status.as_str())
    .bind(millis(output.updated_at))
    .bind(size.transpose()?)
    .bind(file.map(|file| file.sha256.as_str()))
    .bind(file.map(|file| millis(file.generated_at)))
    .bind(output.failure.as_deref())
    .fetch_one(transaction)
    .await
    .map_err(store_error)?;
    Ok(OutputRecord {
        revision: get(&row, "revision")?,
        kept: before.kept,
        output,
    })
}
