//! One job, from its lease to its settling.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use metrics::{counter, histogram};
use tokio_util::sync::CancellationToken;

use super::runner::Parts;
use super::{FetchError, RenderError, SourceError, Stored};
use crate::clock::pause;
use crate::domain::file::{FileKey, KeptFile, download_url};
use crate::domain::output::OutputFormat;
use crate::reconnect::Reconnect;
use crate::store::output_jobs::pause_after;
use crate::store::{
    FileError, JobOutcome, JobSettled, Leasing, OutputJob, OutputTask, Result, Standing, Telling,
};
use crate::telemetry::metric;

/// How often a rendering is begun whose edition changes meanwhile, before it waits.
const BEGINNINGS: usize = 5;

/// How often a job is begun at most, with growing pauses: for some hours.
const MOST_TRIES: u32 = 10;

/// How often a settle is sent again to a database that is away. What it would have written is done
/// again by whoever takes the job over then, and the file is swept.
const SETTLES: usize = 8;

/// How many times a lease is renewed before it would end.
const RENEWALS: u32 = 3;

/// What is told of what went wrong on our side; the log has it.
const OURS: &str = "The file could not be made, for a reason that is ours. Ask for it again later, or \
                    tell an operator.";

/// Does jobs.
pub(super) struct Worker {
    pub(super) parts: Parts,
    pub(super) source: Stored,
    /// Ends what is under way, since the program is about to.
    pub(super) given_up: CancellationToken,
}

/// What came of the work, not yet written.
enum Done {
    Rendered {
        file: KeptFile,
        version: i64,
    },
    Fetched(KeptFile),
    /// It is no use; the reason is for whoever asked.
    Failed(String),
    /// It may work later; the reason is for the log.
    NotNow(String),
    Released,
    /// Another has the job.
    Lost,
}

impl Worker {
    /// Leases what is due.
    pub(super) async fn take(&self, limit: usize) -> Result<Vec<OutputJob>> {
        let leasing = Leasing {
            lease: self.parts.pace.lease,
            ..self.parts.leasing
        };
        match limit {
            0 => Ok(Vec::new()),
            _ => self.parts.store.take_output_jobs(leasing, limit).await,
        }
    }

    /// Does a job, and settles it.
    pub(super) async fn work(self: Arc<Self>, job: OutputJob) {
        let began = self.parts.clock.monotonic();
        let made = AssertUnwindSafe(self.make(&job)).catch_unwind();
        let done = tokio::select! {
            biased;
            made = made => made.unwrap_or_else(|_| {
                tracing::error!(output = %job.output.id, "outputs: a job panicked");
                Done::Failed(OURS.to_owned())
            }),
            () = self.keep_lease(&job) => Done::Lost,
            () = self.given_up.cancelled() => Done::Released,
        };
        let took = self.parts.clock.monotonic().saturating_sub(began);
        self.settle(&job, done, took).await;
    }

    async fn make(&self, job: &OutputJob) -> Done {
        if job.tries > MOST_TRIES {
            // Each time, the process that was at it ended.
            return Done::Failed(OURS.to_owned());
        }
        match &job.task {
            OutputTask::Render => self.render(job).await,
            OutputTask::Fetch { url } => self.fetch(job, url).await,
            OutputTask::GiveUp => Done::Failed(format!(
                "Report Forge did not make it within {}.",
                humantime::format_duration(self.parts.settings.core_timeout)
            )),
        }
    }

    async fn render(&self, job: &OutputJob) -> Done {
        let (edition, format) = (&job.output.edition, &job.output.format);
        for _ in 0..BEGINNINGS {
            let now = self.parts.clock.now();
            let rendered = self
                .parts
                .renderer
                .render(&self.source, &job.workspace, edition, format, now)
                .await;
            let rendered = match rendered {
                Ok(rendered) => rendered,
                Err(RenderError::Source(SourceError::Changed)) => continue,
                Err(error @ RenderError::Broken) => {
                    tracing::error!(%error, output = %job.output.id, "outputs: a renderer broke");
                    return Done::Failed(OURS.to_owned());
                }
                Err(error) if error.is_final() => return Done::Failed(sentence(&error)),
                Err(error) => return Done::NotNow(error.to_string()),
            };
            let (key, version) = (self.key(job, &rendered.format), rendered.version);
            return match self.parts.files.keep(&key, rendered.into_stream()).await {
                Ok(file) => Done::Rendered { file, version },
                Err(error @ FileError::TooLarge { .. }) => Done::Failed(sentence(&error)),
                Err(error) => Done::NotNow(error.to_string()),
            };
        }
        Done::NotNow("the edition changes again and again".to_owned())
    }

    async fn fetch(&self, job: &OutputJob, url: &str) -> Done {
        let key = self.key(job, &job.output.format);
        match self.parts.fetcher.fetch(url, &key).await {
            Ok(file) => Done::Fetched(file),
            Err(error @ FetchError::File(FileError::Unavailable(_))) => {
                Done::NotNow(error.to_string())
            }
            Err(error) if error.is_final() => Done::Failed(sentence(&error)),
            Err(error) => Done::NotNow(error.to_string()),
        }
    }

    fn key(&self, job: &OutputJob, format: &OutputFormat) -> FileKey {
        let id = self.parts.entropy.id(self.parts.clock.now());
        FileKey::new(&job.workspace, &job.output.id, id, format)
    }

    /// Renews the lease; returns when another has it.
    async fn keep_lease(&self, job: &OutputJob) {
        let lease = self.parts.pace.lease;
        loop {
            pause(lease / RENEWALS).await;
            match self.parts.store.renew_output_job(job, lease).await {
                Ok(Standing::Leads) => {}
                Ok(Standing::Deposed) => return,
                // Should it end meanwhile, the settle finds out.
                Err(error) => tracing::warn!(%error, "outputs: a lease could not be renewed"),
            }
        }
    }

    async fn settle(&self, job: &OutputJob, done: Done, took: Duration) {
        let url = download_url(self.parts.public_url.as_ref(), &job.output.id);
        let telling = Telling {
            event: self.parts.entropy.id(self.parts.clock.now()),
            download_url: &url,
            leasing: self.parts.leasing,
            intake: &*self.parts.intake,
        };
        let outcome = match &done {
            Done::Rendered { file, version } => JobOutcome::Rendered {
                file,
                version: *version,
                telling,
            },
            Done::Fetched(file) => JobOutcome::Fetched(file),
            Done::Failed(reason) => JobOutcome::Failed(reason),
            Done::NotNow(_) if job.tries >= MOST_TRIES => JobOutcome::Failed(OURS),
            Done::NotNow(_) => JobOutcome::Postponed(pause_after(job.tries)),
            Done::Released => JobOutcome::Released,
            Done::Lost => return Self::told(job, &done, "lease_lost", took),
        };
        match self.write(job, outcome).await {
            Some(JobSettled::Settled { replaced }) => {
                Self::told(job, &done, word(&outcome), took);
                if let Some(replaced) = replaced {
                    self.delete(&replaced).await;
                }
            }
            Some(JobSettled::LeaseLost) => {
                Self::told(job, &done, "lease_lost", took);
                if let Done::Rendered { file, .. } | Done::Fetched(file) = &done {
                    self.delete(&file.key).await;
                }
            }
            None => Self::told(job, &done, "unsettled", took),
        }
    }

    /// Writes what came of a job, again while the database is away; `None` where it stays away.
    async fn write(&self, job: &OutputJob, outcome: JobOutcome<'_>) -> Option<JobSettled> {
        let mut reconnect = Reconnect::default();
        for _ in 0..SETTLES {
            match self.parts.store.settle_output_job(job, outcome).await {
                Ok(settled) => return Some(settled),
                Err(error) => {
                    tracing::warn!(%error, output = %job.output.id, "outputs: it cannot be settled");
                    if !error.is_unavailable() {
                        return None;
                    }
                }
            }
            reconnect.pause().await;
        }
        None
    }

    async fn delete(&self, key: &FileKey) {
        if let Err(error) = self.parts.files.delete(key).await {
            tracing::warn!(%error, %key, "outputs: a file is left behind, for the sweep");
        }
    }

    /// Counts it, and writes its line.
    fn told(job: &OutputJob, done: &Done, outcome: &'static str, took: Duration) {
        counter!(metric::OUTPUTS, "outcome" => outcome).increment(1);
        histogram!(metric::OUTPUT_DURATION).record(took);
        let (size, reason) = match done {
            Done::Rendered { file, .. } | Done::Fetched(file) => (Some(file.size), None),
            Done::Failed(reason) | Done::NotNow(reason) => (None, Some(reason.as_str())),
            Done::Released | Done::Lost => (None, None),
        };
        let (workspace, output) = (&job.workspace, &job.output.id);
        let (format, tries) = (&job.output.format, job.tries);
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        match outcome {
            "generated" | "released" => tracing::info!(
                %workspace, %output, %format, tries, took_ms, size, outcome, "output settled"
            ),
            _ => tracing::warn!(
                %workspace, %output, %format, tries, took_ms, outcome, reason, "output settled"
            ),
        }
    }
}

/// What came of it, for metrics and logs.
fn word(outcome: &JobOutcome<'_>) -> &'static str {
    match outcome {
        JobOutcome::Rendered { .. } | JobOutcome::Fetched(_) => "generated",
        JobOutcome::Failed(_) => "failed",
        JobOutcome::Postponed(_) => "postponed",
        JobOutcome::Released => "released",
    }
}

/// An error as a sentence.
fn sentence(error: &impl std::error::Error) -> String {
    let text = error.to_string();
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars).chain(['.']).collect()
}
