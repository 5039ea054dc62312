//! Making outputs (product.md §5): what is asked for, who makes it, and what came of it.
//!
//! An output that is asked for has a job, in the same transaction; one process at a time holds it, under
//! a lease with an epoch, and settles it together with what came of it. An output has one job at most:
//! what the core tells of takes the place of what was being done. That it has a job is what says that it
//! is under way; the status says it to clients, and a snapshot of the core may say something older.

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::intake::Intake;
use super::{Idempotency, Leasing, OutputRecord, Result, Standing, StoreError, Written};
use crate::domain::edition::EditionStatus;
use crate::domain::file::{FileKey, KeptFile};
use crate::domain::ids::{EventId, OutputId, OwnerId, WorkspaceId};
use crate::domain::output::{Asked, Output, OutputFile, OutputFormat, OutputStatus};
use crate::domain::own_event::OwnEvent;
use crate::domain::payload::Payload;
use crate::domain::reach::Reach;
use crate::wake::Wake;

/// How often a job is looked at whose output no snapshot has told of yet.
pub(super) const LOOKS: u32 = 20;

/// How long a job waits that was begun so often, before it is begun again: 5 seconds at first, three
/// times as long each time, an hour at most.
pub fn pause_after(tries: u32) -> Duration {
    let times = 3_u32.saturating_pow(tries.saturating_sub(1).min(7));
    (Duration::from_secs(5) * times).min(Duration::from_hours(1))
}

/// Somebody asks for an output.
pub struct OutputAsk<'a> {
    /// What of the workspace the caller sees.
    pub reach: &'a Reach,
    /// By what a repeated request is known.
    pub once: Option<&'a Idempotency>,
    /// How long the core may take for what only it can make; `None` where it is not asked.
    pub core_timeout: Option<Duration>,
    /// The answer to the client, made of the output as it is then. It is kept with the key of the
    /// request, if there is one, and given again.
    pub answer: &'a (dyn Fn(&OutputRecord) -> String + Send + Sync),
    /// The id of the event that asks the core.
    pub event: EventId,
}

/// What asking came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutputAsked {
    /// It is queued, or was under way already; this is the answer.
    Done(String),
    /// Nothing of that id is in reach.
    NotFound,
    /// The edition stands where no outputs are made of it.
    NotReady(EditionStatus),
    /// Only the core makes this format, and it is not asked here.
    NotMadeHere(OutputFormat),
    /// An earlier request with this key asked for something else.
    Conflicting,
    /// An earlier request with this key is not done yet.
    Running,
}

/// What is to be done for an output.
#[derive(Clone, PartialEq, Eq)]
pub enum OutputTask {
    /// Make its file.
    Render,
    /// Take its file from the core.
    Fetch {
        /// Where it is. It may carry a token: not for logs.
        url: String,
    },
    /// Give up: the core was asked, and its time is over.
    GiveUp,
}

impl fmt::Debug for OutputTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Render => "Render",
            Self::Fetch { .. } => "Fetch",
            Self::GiveUp => "GiveUp",
        })
    }
}

/// A job that this process holds the lease of.
#[derive(Clone, Debug)]
pub struct OutputJob {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// The output, as it was then.
    pub output: Output,
    /// What is to be done.
    pub task: OutputTask,
    /// Who holds the lease.
    pub owner: OwnerId,
    /// The lease token.
    pub epoch: i64,
    /// How often it was begun, this time among them: one that ends its process shows here.
    pub tries: u32,
}

/// What came of a job.
#[derive(Clone, Copy)]
pub enum JobOutcome<'a> {
    /// The file was made here: `output.generated` is told, to subscribers and to the core.
    Rendered {
        /// The file, which is kept.
        file: &'a KeptFile,
        /// The version of the edition that it shows.
        version: i64,
        /// How it is told.
        telling: Telling<'a>,
    },
    /// The core's file was taken; the core told of it itself.
    Fetched(&'a KeptFile),
    /// It cannot be done; the reason is for whoever asked.
    Failed(&'a str),
    /// It is to be tried again after this time.
    Postponed(Duration),
    /// It was not done, since this process ends: anybody may have it, and it counts for nothing.
    Released,
}

/// How `output.generated` is told.
#[derive(Clone, Copy)]
pub struct Telling<'a> {
    /// The id of the event.
    pub event: EventId,
    /// Where the file is read.
    pub download_url: &'a str,
    /// Who leases the deliveries of the event.
    pub leasing: Leasing,
    /// Who sends them.
    pub intake: &'a dyn Intake,
}

/// What a settle found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobSettled {
    /// It is written. The file that the output had before is nobody's now.
    Settled {
        /// That file.
        replaced: Option<FileKey>,
    },
    /// The job is another's by now, or gone: nothing changed, and a file that was kept for it is
    /// nobody's.
    LeaseLost,
}

/// Whether files of the core's are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreFiles {
    /// From where its `output.generated` says.
    Fetched,
    /// There is no host that they may be taken from.
    LeftAlone,
}

/// Asking for outputs, and doing what is asked.
#[async_trait]
pub trait OutputJobs: Send + Sync {
    /// From now on the bell rings after each commit that made a job, and an `output.generated` of the
    /// core's makes one, where its files are taken at all. To be called once, by a process that runs jobs.
    fn open_output_jobs(&self, bell: Arc<Wake>, files: CoreFiles);

    /// Asks for an output of an edition that is approved or closed. It is queued then: made here, or
    /// asked of the core (`output.requested` goes to the outbox). One that is under way stays as it is.
    async fn ask_output(&self, id: &OutputId, ask: &OutputAsk<'_>) -> Result<OutputAsked>;

    /// Leases up to `limit` jobs that are due, those whose lease is over among them. Their outputs are
    /// `generating` from then on, but for those that are given up.
    async fn take_output_jobs(&self, leasing: Leasing, limit: usize) -> Result<Vec<OutputJob>>;

    /// Makes the lease end no sooner than `lease` from now.
    async fn renew_output_job(&self, job: &OutputJob, lease: Duration) -> Result<Standing>;

    /// Writes what came of a job, under its lease. Coming again with the same file after an ambiguous
    /// failure is safe: what was committed answers `Settled`.
    async fn settle_output_job(
        &self,
        job: &OutputJob,
        outcome: JobOutcome<'_>,
    ) -> Result<JobSettled>;
}

/// Who is told of jobs, and whether the core's files make any.
#[derive(Debug, Default)]
pub(super) struct JobBell(OnceLock<(Arc<Wake>, CoreFiles)>);

impl JobBell {
    pub(super) fn open(&self, bell: Arc<Wake>, files: CoreFiles) {
        if self.0.set((bell, files)).is_err() {
            tracing::warn!("output jobs were opened already; their first bell stays");
        }
    }

    pub(super) fn fetches(&self) -> bool {
        matches!(self.0.get(), Some((_, CoreFiles::Fetched)))
    }

    /// To be called behind a commit that made a job. (Without it the job is found by the next look.)
    pub(super) fn ring(&self) {
        if let Some((bell, _)) = self.0.get() {
            bell.ring();
        }
    }
}

/// The words under which tasks are kept.
pub(super) mod word {
    pub(in crate::store) const RENDER: &str = "render";
    pub(in crate::store) const FETCH: &str = "fetch";
    pub(in crate::store) const ASK: &str = "ask";
}

impl OutputTask {
    /// Reads a task as it is kept.
    pub(super) fn read(task: &str, url: Option<String>) -> Result<Self> {
        match (task, url) {
            (word::RENDER, None) => Ok(Self::Render),
            (word::FETCH, Some(url)) => Ok(Self::Fetch { url }),
            (word::ASK, None) => Ok(Self::GiveUp),
            _ => Err(StoreError::corrupt(format!("output_job.task: {task}"))),
        }
    }
}

/// Whether an output has a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum JobThere {
    Yes,
    No,
}

/// What asking for an output makes of it: the pure part.
pub(super) enum Step {
    /// Nothing: it goes no further, or is under way.
    Stays(Option<OutputAsked>),
    /// It is queued, with this job, due after this time.
    Queued {
        output: Output,
        task: &'static str,
        due: Duration,
    },
}

impl Step {
    pub(super) fn of(
        output: &Output,
        edition: &EditionStatus,
        job: JobThere,
        core_timeout: Option<Duration>,
        now: DateTime<Utc>,
    ) -> Self {
        if !edition.gives_outputs() {
            return Self::Stays(Some(OutputAsked::NotReady(edition.clone())));
        }
        let is_made_here = output.format.is_made_here();
        let mut output = output.clone();
        if is_made_here && job == JobThere::No && is_under_way(output.status) {
            // By a word of the core's, who makes none of these.
            output.status = OutputStatus::NotGenerated;
        }
        if job == JobThere::Yes || is_under_way(output.status) {
            return Self::Stays(None);
        }
        let (task, due) = match core_timeout {
            _ if is_made_here => (word::RENDER, Duration::ZERO),
            Some(timeout) => (word::ASK, timeout),
            None => return Self::Stays(Some(OutputAsked::NotMadeHere(output.format))),
        };
        match output.ask(now) {
            Asked::UnderWay => Self::Stays(None),
            Asked::Queued => Self::Queued { output, task, due },
        }
    }
}

fn is_under_way(status: OutputStatus) -> bool {
    matches!(status, OutputStatus::Queued | OutputStatus::Generating)
}

/// The output, begun. Its job says that it is under way, whatever a snapshot says meanwhile.
pub(super) fn begun(mut output: Output, now: DateTime<Utc>) -> Option<Output> {
    if output.status == OutputStatus::Generating {
        return None;
    }
    output.status = OutputStatus::Queued;
    output.failure = None;
    output.start(now).ok().map(|()| output)
}

/// The output with its file. It was made when the output changed last, so that an event of that time
/// tells of this file and of no later one.
pub(super) fn finished(mut output: Output, file: &KeptFile, now: DateTime<Utc>) -> Result<Output> {
    let now = now.max(output.updated_at);
    output.status = OutputStatus::Generating;
    output.failure = None;
    let file = OutputFile {
        size: file.size,
        sha256: file.sha256.clone(),
        generated_at: now,
    };
    output.finish(file, now).map_err(StoreError::corrupt)?;
    Ok(output)
}

/// The output, failed.
pub(super) fn failed(mut output: Output, reason: &str, now: DateTime<Utc>) -> Result<Output> {
    output.status = OutputStatus::Generating;
    output
        .fail(reason.to_owned(), now)
        .map_err(StoreError::corrupt)?;
    Ok(output)
}

/// The event that asks the core for it.
pub(super) fn requested(output: &Output, ask: &OutputAsk<'_>) -> Result<Payload> {
    OwnEvent::OutputRequested(output)
        .build(ask.event, &ask.reach.workspace, output.updated_at, None)
        .map_err(StoreError::corrupt)
}

/// The event that tells of its file, of the very time that its row states.
pub(super) fn generated(
    output: &Output,
    job: &OutputJob,
    telling: &Telling<'_>,
) -> Result<Arc<Payload>> {
    OwnEvent::OutputGenerated(output, telling.download_url)
        .build(telling.event, &job.workspace, output.updated_at, None)
        .map(Arc::new)
        .map_err(StoreError::corrupt)
}

/// The file that is shown of an output: the one that is kept here, unless the core made a later one
/// (`made_at`), of which nothing is known until it was taken; without any, what the snapshot states.
pub(super) fn shown(
    format: &OutputFormat,
    kept: Option<(FileKey, OutputFile)>,
    stated: Option<OutputFile>,
    made_at: Option<DateTime<Utc>>,
) -> (Option<FileKey>, Option<OutputFile>) {
    let is_latest = |file: &OutputFile| {
        format.is_made_here() || made_at.is_none_or(|made_at| file.generated_at >= made_at)
    };
    match kept.filter(|(_, file)| is_latest(file)) {
        Some((key, file)) => (Some(key), Some(file)),
        None => (None, stated.filter(|_| made_at.is_none())),
    }
}

impl OutputAsked {
    /// What a request comes to whose key is known.
    pub(super) fn of_known(known: Written) -> Result<Self> {
        match known {
            Written::Done { answer, .. } => Ok(Self::Done(answer)),
            Written::Conflicting => Ok(Self::Conflicting),
            Written::Running => Ok(Self::Running),
            other => Err(StoreError::corrupt(format!("a known key says {other:?}"))),
        }
    }
}

impl JobOutcome<'_> {
    /// The file that was kept, if one was.
    pub(super) fn file(&self) -> Option<&KeptFile> {
        match self {
            Self::Rendered { file, .. } | Self::Fetched(file) => Some(file),
            Self::Failed(_) | Self::Postponed(_) | Self::Released => None,
        }
    }

    /// Of a file that was made here: the version of the edition that it shows.
    pub(super) fn version(&self) -> Option<i64> {
        match self {
            Self::Rendered { version, .. } => Some(*version),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{EditionId, ProjectId};

    fn output(format: &str, status: OutputStatus) -> Output {
        Output {
            id: OutputId::new("o").unwrap(),
            edition: EditionId::new("e").unwrap(),
            project: ProjectId::new("p").unwrap(),
            name: "Figures".to_owned(),
            format: OutputFormat::parse(format).unwrap(),
            status,
            file: None,
            failure: None,
            version: 3,
            updated_at: DateTime::UNIX_EPOCH,
        }
    }

    fn step(format: &str, status: OutputStatus, job: JobThere, core: Option<Duration>) -> Step {
        let edition = EditionStatus::Approved;
        let output = output(format, status);
        Step::of(&output, &edition, job, core, DateTime::UNIX_EPOCH)
    }

    #[test]
    fn what_is_made_here_is_queued_unless_it_has_a_job() {
        for status in OutputStatus::ALL {
            let queued = step("csv", status, JobThere::No, None);
            assert!(
                matches!(
                    queued,
                    Step::Queued {
                        task: word::RENDER,
                        ..
                    }
                ),
                "{status:?}: the core's word makes none of these"
            );
            let stays = step("csv", status, JobThere::Yes, None);
            assert!(matches!(stays, Step::Stays(None)), "{status:?}");
        }
    }

    #[test]
    fn what_the_core_makes_is_asked_of_it_where_it_can_be() {
        let day = Duration::from_hours(24);
        for status in OutputStatus::ALL {
            let asked = step("pdf", status, JobThere::No, Some(day));
            let under_way = is_under_way(status);
            match asked {
                Step::Queued { task, due, .. } => {
                    assert!(!under_way && task == word::ASK && due == day);
                }
                Step::Stays(None) => assert!(under_way),
                Step::Stays(Some(_)) => panic!("{status:?}"),
            }
        }
        let refused = step("pdf", OutputStatus::Failed, JobThere::No, None);
        assert!(matches!(
            refused,
            Step::Stays(Some(OutputAsked::NotMadeHere(_)))
        ));
    }

    #[test]
    fn pauses_grow_to_an_hour() {
        let seconds: Vec<u64> = (1..=9).map(|tries| pause_after(tries).as_secs()).collect();
        assert_eq!(seconds, [5, 15, 45, 135, 405, 1_215, 3_600, 3_600, 3_600]);
        assert_eq!(pause_after(u32::MAX).as_secs(), 3_600);
    }

    #[test]
    fn where_a_file_is_taken_from_is_not_told() {
        let task = OutputTask::read(word::FETCH, Some("https://x/?token=s3cret".to_owned()));
        assert_eq!(format!("{:?}", task.unwrap()), "Fetch");
    }
}
