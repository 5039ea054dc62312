//! What asking for an output and working on it make of it: the pure part, the same in both databases.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::output_jobs::word;
use super::{OutputAsk, OutputAsked, OutputJob, Result, StoreError, Telling};
use crate::domain::edition::EditionStatus;
use crate::domain::file::KeptFile;
use crate::domain::output::{Asked, Output, OutputFile, OutputStatus};
use crate::domain::own_event::OwnEvent;
use crate::domain::payload::Payload;

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

/// The output, begun; `None` where that is said already.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{EditionId, OutputId, ProjectId};
    use crate::domain::output::OutputFormat;

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
}
