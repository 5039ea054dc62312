//! Outputs that are asked for, leased and settled. Whoever changes a job or a file holds the row of its
//! output before (renewing a lease changes one row alone, and waits for no other).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::PgTransaction;

use super::errors::{expect_rows, from_sqlx, reading, retrying};
use super::events::Kept;
use super::idempotency::{keep_answer, remember_write};
use super::output_files::{key_of, write_file};
use super::rows::{self, interval, parse};
use super::{PostgresStore, Result, StoreError, commit, drafts, heads, outbox, outputs};
use crate::domain::event::Event;
use crate::domain::ids::{OutputId, WorkspaceId};
use crate::domain::output::Output;
use crate::domain::payload::Payload;
use crate::domain::reach::Reach;
use crate::store::output_jobs::{LOOKS, pause_after, word};
use crate::store::output_steps::{JobThere, Step, begun, failed, finished, generated, requested};
use crate::store::{
    CoreFiles, JobOutcome, JobSettled, JobShare, Leasing, Maintenance, OutputAsk, OutputAsked,
    OutputJob, OutputJobs, OutputRecord, OutputTask, Standing,
};
use crate::wake::Wake;

#[async_trait]
impl OutputJobs for PostgresStore {
    fn open_output_jobs(&self, bell: Arc<Wake>, files: CoreFiles) {
        self.output_jobs.open(bell, files);
    }

    async fn ask_output(&self, id: &OutputId, ask: &OutputAsk<'_>) -> Result<OutputAsked> {
        retrying(|| self.ask_once(id, ask)).await
    }

    async fn take_output_jobs(
        &self,
        share: JobShare,
        leasing: Leasing,
        limit: usize,
    ) -> Result<Vec<OutputJob>> {
        retrying(|| async {
            let mut tx = self.begin().await?;
            let found = due(&mut tx, share, limit).await?;
            let mut jobs = Vec::new();
            for (workspace, output) in &found {
                jobs.extend(take(&mut tx, workspace, output, leasing).await?);
            }
            commit(tx).await?;
            Ok(jobs)
        })
        .await
    }

    async fn renew_output_job(&self, job: &OutputJob, lease: Duration) -> Result<Standing> {
        let renewed = reading(async {
            sqlx::query(
                "-- postgres::output_jobs::renew_output_job
                update output_job
                set visible_at = clock_timestamp() + $5::interval
                where workspace = $1 and output = $2 and owner = $3 and epoch = $4",
            )
            .bind(job.workspace.as_str())
            .bind(job.output.id.as_str())
            .bind(job.owner.uuid())
            .bind(job.epoch)
            .bind(interval(lease))
            .execute(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
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
        retrying(|| self.settle_job_once(job, &outcome)).await
    }
}

impl PostgresStore {
    async fn ask_once(&self, id: &OutputId, ask: &OutputAsk<'_>) -> Result<OutputAsked> {
        let workspace = &ask.reach.workspace;
        let mut tx = self.begin().await?;
        if let Some(known) = remember_write(&mut tx, workspace, ask.once, id.as_str()).await? {
            return OutputAsked::of_known(known);
        }
        let Some(found) = outputs::hold(&mut tx, ask.reach, id).await? else {
            return Ok(OutputAsked::NotFound);
        };
        let edition = heads::one(&mut *tx, ask.reach, &found.output.edition).await?;
        let Some(edition) = edition else {
            return Ok(OutputAsked::NotFound);
        };
        let job = there(&mut tx, workspace, id).await?;
        let now = drafts::now(&mut tx).await?;
        let status = &edition.edition.status;
        let (record, event) = match Step::of(&found.output, status, job, ask.core_timeout, now) {
            Step::Stays(Some(refused)) => {
                tx.rollback().await.map_err(from_sqlx)?;
                return Ok(refused);
            }
            Step::Stays(None) => (found, None),
            Step::Queued { output, task, due } => {
                add(&mut tx, workspace, id, task, due).await?;
                let asks = task == word::ASK;
                let event = asks.then(|| requested(&output, ask)).transpose()?;
                (state(&mut tx, workspace, found, output).await?, event)
            }
        };
        let answer = (ask.answer)(&record);
        let version = record.output.version;
        keep_answer(&mut tx, workspace, ask.once, &answer, version).await?;
        let events: Vec<&Event> = event.iter().map(Payload::event).collect();
        let appended = outbox::append(&mut tx, &self.outbox, &events).await?;
        commit(tx).await?;
        appended.committed();
        self.output_jobs.ring();
        Ok(OutputAsked::Done(answer))
    }

    async fn settle_job_once(
        &self,
        job: &OutputJob,
        outcome: &JobOutcome<'_>,
    ) -> Result<JobSettled> {
        let mut tx = self.begin().await?;
        let reach = Reach::all(&job.workspace);
        let found = outputs::hold(&mut tx, &reach, &job.output.id).await?;
        if !is_held(&mut tx, job).await? {
            let settled = committed_before(&mut tx, job, outcome).await?;
            // Said, not left to the pool: until then others pass over the output that is held here.
            tx.rollback().await.map_err(from_sqlx)?;
            return Ok(settled);
        }
        let mut replaced = None;
        let mut told = None;
        match outcome {
            JobOutcome::Postponed(pause) => give_back(&mut tx, job, *pause, 0).await?,
            JobOutcome::Released => give_back(&mut tx, job, Duration::ZERO, 1).await?,
            JobOutcome::Failed(_) | JobOutcome::Fetched(_) | JobOutcome::Rendered { .. } => {
                remove(&mut tx, &job.workspace, job.output.id.as_str()).await?;
                let Some(found) = found else {
                    // It was deleted meanwhile: there is nothing to make any more.
                    withdraw(&mut tx, &job.workspace, job.output.id.as_str()).await?;
                    commit(tx).await?;
                    return Ok(JobSettled::LeaseLost);
                };
                let now = drafts::now(&mut tx).await?;
                if let JobOutcome::Failed(reason) = outcome {
                    let output = failed(found.output.clone(), reason, now)?;
                    state(&mut tx, &job.workspace, found, output).await?;
                } else if let Some(file) = outcome.file() {
                    let output = finished(found.output.clone(), file, now)?;
                    // What an event tells is stated first, and of the same time: so it moves nothing.
                    let made = state(&mut tx, &job.workspace, found, output).await?;
                    replaced = write_file(&mut tx, job, outcome, &made.output, file).await?;
                    told = self.tell(&mut tx, job, outcome, &made.output).await?;
                }
            }
        }
        let events: Vec<&Event> = told.iter().map(|(event, _)| event.event()).collect();
        let appended = outbox::append(&mut tx, &self.outbox, &events).await?;
        commit(tx).await?;
        appended.committed();
        if let (Some((_, kept)), JobOutcome::Rendered { telling, .. }) = (told, outcome) {
            let accepted = self.kept(kept);
            telling.intake.hand_over(accepted.leased);
            if accepted.pending > 0 {
                telling.intake.left_waiting(&accepted.pending_of);
                self.announce();
            }
        }
        Ok(JobSettled::Settled { replaced })
    }

    /// Accepts the event that tells of what was made here, like any that arrives.
    async fn tell(
        &self,
        tx: &mut PgTransaction<'_>,
        job: &OutputJob,
        outcome: &JobOutcome<'_>,
        made: &Output,
    ) -> Result<Option<(Arc<Payload>, Kept)>> {
        let JobOutcome::Rendered { telling, .. } = outcome else {
            return Ok(None);
        };
        let event = generated(made, job, telling)?;
        let events = [Arc::clone(&event)];
        let kept = self
            .keep(tx, &events, telling.leasing, telling.intake)
            .await?;
        Ok(Some((event, kept)))
    }
}

/// Whether the output, which is held, has a job.
async fn there(
    tx: &mut PgTransaction<'_>,
    workspace: &WorkspaceId,
    id: &OutputId,
) -> Result<JobThere> {
    let found: Option<i32> = sqlx::query_scalar(
        "-- postgres::output_jobs::there
        select 1 from output_job where workspace = $1 and output = $2",
    )
    .bind(workspace.as_str())
    .bind(id.as_str())
    .fetch_optional(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(found.map_or(JobThere::No, |_| JobThere::Yes))
}

/// Adds the job of an output that has none.
async fn add(
    tx: &mut PgTransaction<'_>,
    workspace: &WorkspaceId,
    id: &OutputId,
    task: &str,
    due: Duration,
) -> Result<()> {
    sqlx::query(
        "-- postgres::output_jobs::add
        insert into output_job (workspace, output, task, visible_at, epoch, tries)
        values ($1, $2, $3, clock_timestamp() + $4::interval, 0, 0)",
    )
    .bind(workspace.as_str())
    .bind(id.as_str())
    .bind(task)
    .bind(interval(due))
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// Holds the outputs of jobs of a share that are due, longest first; those that others hold are passed
/// over.
async fn due(
    tx: &mut PgTransaction<'_>,
    share: JobShare,
    limit: usize,
) -> Result<Vec<(String, String)>> {
    sqlx::query_as(
        "-- postgres::output_jobs::due
        select job.workspace, job.output
        from output_job job
        cross join lateral (
            select 1
            from output
            where output.workspace = job.workspace and output.id = job.output
            limit 1
            for update skip locked
        ) as held
        where (job.task = 'fetch') = $1 and job.visible_at <= clock_timestamp()
        order by job.visible_at
        limit $2",
    )
    .bind(share == JobShare::Fetched)
    .bind(rows::limit(limit))
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)
}

/// Leases a job, if it is due still; `None` where its output is not seen (yet, or any more). It is read
/// before it is leased, so that it shows a beginning that was not stated yet.
async fn take(
    tx: &mut PgTransaction<'_>,
    workspace: &str,
    id: &str,
    leasing: Leasing,
) -> Result<Option<OutputJob>> {
    let workspace: WorkspaceId = parse("output_job.workspace", workspace)?;
    let id: OutputId = parse("output_job.output", id)?;
    let found = outputs::one(&mut **tx, &Reach::all(&workspace), &id).await?;
    let Some(found) = found else {
        look_again(tx, &workspace, id.as_str()).await?;
        return Ok(None);
    };
    let leased: Option<(String, Option<String>, i64, i32)> = sqlx::query_as(
        "-- postgres::output_jobs::take
        update output_job
        set owner = $3,
            epoch = epoch + 1,
            tries = tries + 1,
            looks = 0,
            visible_at = clock_timestamp() + $4::interval
        where workspace = $1 and output = $2 and visible_at <= clock_timestamp()
        returning task, url, epoch, tries",
    )
    .bind(workspace.as_str())
    .bind(id.as_str())
    .bind(leasing.owner.uuid())
    .bind(interval(leasing.lease))
    .fetch_optional(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let Some((task, url, epoch, tries)) = leased else {
        return Ok(None);
    };
    let tries = rows::count("output_job.tries", tries)?;
    let task = OutputTask::read(&task, url)?;
    let now = drafts::now(tx).await?;
    let begun = begun(found.output.clone(), now).filter(|_| task != OutputTask::GiveUp);
    let output = match begun {
        Some(output) => state(tx, &workspace, found, output).await?.output,
        None => found.output,
    };
    Ok(Some(OutputJob {
        workspace,
        output,
        task,
        owner: leasing.owner,
        epoch,
        tries,
    }))
}

/// Leaves a job for later whose output may be told of yet, but not for ever.
async fn look_again(tx: &mut PgTransaction<'_>, workspace: &WorkspaceId, id: &str) -> Result<()> {
    let looks: Option<i32> = sqlx::query_scalar(
        "-- postgres::output_jobs::look_again (count)
        update output_job
        set owner = null, looks = looks + 1
        where workspace = $1 and output = $2 and visible_at <= clock_timestamp()
        returning looks",
    )
    .bind(workspace.as_str())
    .bind(id)
    .fetch_optional(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let Some(looks) = looks else {
        return Ok(());
    };
    let looks = rows::count("output_job.looks", looks)?;
    if looks >= LOOKS {
        remove(tx, workspace, id).await?;
        return withdraw(tx, workspace, id).await;
    }
    sqlx::query(
        "-- postgres::output_jobs::look_again (wait)
        update output_job
        set visible_at = clock_timestamp() + $3::interval
        where workspace = $1 and output = $2",
    )
    .bind(workspace.as_str())
    .bind(id)
    .bind(interval(pause_after(looks)))
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

async fn is_held(tx: &mut PgTransaction<'_>, job: &OutputJob) -> Result<bool> {
    let found: Option<i32> = sqlx::query_scalar(
        "-- postgres::output_jobs::is_held
        select 1
        from output_job
        where workspace = $1 and output = $2 and owner = $3 and epoch = $4
        for update",
    )
    .bind(job.workspace.as_str())
    .bind(job.output.id.as_str())
    .bind(job.owner.uuid())
    .bind(job.epoch)
    .fetch_optional(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(found.is_some())
}

/// What to answer whose lease is gone: it may have written this very file, and not heard of it.
async fn committed_before(
    tx: &mut PgTransaction<'_>,
    job: &OutputJob,
    outcome: &JobOutcome<'_>,
) -> Result<JobSettled> {
    let key = key_of(tx, job).await?;
    let is_mine = outcome
        .file()
        .is_some_and(|file| Some(&file.key) == key.as_ref());
    Ok(if is_mine {
        JobSettled::Settled { replaced: None }
    } else {
        JobSettled::LeaseLost
    })
}

/// Leaves the job to anybody, after this time; so many times of being begun count for nothing.
async fn give_back(
    tx: &mut PgTransaction<'_>,
    job: &OutputJob,
    pause: Duration,
    uncounted: i32,
) -> Result<()> {
    let given = sqlx::query(
        "-- postgres::output_jobs::give_back
        update output_job
        set owner = null,
            visible_at = clock_timestamp() + $3::interval,
            tries = greatest(tries - $4, 0)
        where workspace = $1 and output = $2",
    )
    .bind(job.workspace.as_str())
    .bind(job.output.id.as_str())
    .bind(interval(pause))
    .bind(uncounted)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("output_job", 1, given.rows_affected())
}

async fn remove(tx: &mut PgTransaction<'_>, workspace: &WorkspaceId, id: &str) -> Result<()> {
    let removed = sqlx::query(
        "-- postgres::output_jobs::remove
        delete from output_job where workspace = $1 and output = $2",
    )
    .bind(workspace.as_str())
    .bind(id)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("output_job", 1, removed.rows_affected())
}

/// The output, which is held and has no job any more, is as if nobody had asked for it: should it be
/// seen again, it can be asked for. What told of a file that is not here counts no more.
pub(super) async fn withdraw(
    tx: &mut PgTransaction<'_>,
    workspace: &WorkspaceId,
    id: &str,
) -> Result<()> {
    sqlx::query(
        "-- postgres::output_jobs::withdraw
        update output
        set stated_status = 'not_generated',
            stated_at = greatest(stated_at, told_at, clock_timestamp()),
            size = null,
            sha256 = null,
            generated_at = null,
            failure = null,
            told_at = null,
            told_by = null,
            revision = revision + 1
        where workspace = $1 and id = $2 and version is not null",
    )
    .bind(workspace.as_str())
    .bind(id)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// States how the output, which is held, is from now on.
async fn state(
    tx: &mut PgTransaction<'_>,
    workspace: &WorkspaceId,
    before: OutputRecord,
    output: Output,
) -> Result<OutputRecord> {
    let file = output.file.as_ref();
    let size = file.map(|file| i64::try_from(file.size).map_err(StoreError::corrupt));
    let revision: i64 = sqlx::query_scalar(
        "-- postgres::output_jobs::state
        update output
        set stated_status = $3,
            stated_at = $4,
            size = $5,
            sha256 = $6,
            generated_at = $7,
            failure = $8,
            revision = revision + 1
        where workspace = $1 and id = $2
        returning revision",
    )
    .bind(workspace.as_str())
    .bind(output.id.as_str())
    .bind(output.status.as_str())
    .bind(output.updated_at)
    .bind(size.transpose()?)
    .bind(file.map(|file| file.sha256.as_str()))
    .bind(file.map(|file| file.generated_at))
    .bind(output.failure.as_deref())
    .fetch_one(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(OutputRecord {
        revision,
        kept: before.kept,
        output,
    })
}
