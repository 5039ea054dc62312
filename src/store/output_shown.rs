//! How an output is shown, of all that is known of it: the one place where what the core says of an
//! output and what is being done here meet.
//!
//! What was stated, what an event told, the file that is kept and the job are written each by itself,
//! whichever comes first. So a word of the core's never ends what is under way here, nor does it pass
//! for the file that is still to be taken.

use chrono::{DateTime, Utc};

use crate::domain::file::FileKey;
use crate::domain::output::{OutputFile, OutputFormat, OutputStatus};

/// What the rows of an output say.
pub(super) struct Known {
    /// What it is made as.
    pub(super) format: OutputFormat,
    /// The later one of what was stated and of what an event told.
    pub(super) status: OutputStatus,
    /// The file that was stated.
    pub(super) stated: Option<OutputFile>,
    /// The failure that was stated.
    pub(super) failure: Option<String>,
    /// When an event that is later than what was stated says that it was made.
    pub(super) made_at: Option<DateTime<Utc>>,
    /// The file that is kept here.
    pub(super) kept: Option<(FileKey, OutputFile)>,
    /// How far its job is, if it has one.
    pub(super) job: Option<OutputStatus>,
}

/// What clients see of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) status: OutputStatus,
    pub(super) file: Option<OutputFile>,
    /// Where that file is, if it is kept here.
    pub(super) key: Option<FileKey>,
    pub(super) failure: Option<String>,
}

impl Known {
    /// With a job it is under way, whatever else is said, and the file that there was stays until there
    /// is another. Without one the file that is kept is shown, unless the core made a later one; of that
    /// one nothing is known but what was stated.
    pub(super) fn shown(self) -> Shown {
        if let Some(job) = self.job {
            let (key, file) = self.kept.unzip();
            let status = match self.status {
                stated @ (OutputStatus::Queued | OutputStatus::Generating) => stated,
                _ => job,
            };
            return Shown {
                status,
                file,
                key,
                failure: None,
            };
        }
        let (key, file) = if self.keeps_the_latest() {
            self.kept.unzip()
        } else {
            (None, self.stated.filter(|_| self.made_at.is_none()))
        };
        Shown {
            status: self.status,
            file,
            key,
            failure: self.failure.filter(|_| self.made_at.is_none()),
        }
    }

    fn keeps_the_latest(&self) -> bool {
        let Some((_, kept)) = &self.kept else {
            return false;
        };
        let is_another = |stated: &OutputFile| {
            stated.sha256 != kept.sha256 && stated.generated_at > kept.generated_at
        };
        self.format.is_made_here()
            || self
                .made_at
                .is_none_or(|made_at| kept.generated_at >= made_at)
                && !self.stated.as_ref().is_some_and(is_another)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::file::Deployment;
    use crate::domain::ids::{OutputId, WorkspaceId, new_id};

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).unwrap()
    }

    fn file(size: u64, seconds: i64) -> OutputFile {
        OutputFile {
            size,
            sha256: format!("{size:064x}"),
            generated_at: at(seconds),
        }
    }

    /// A file of 1 byte is kept since second 5, and was stated then.
    fn known(format: &str, status: OutputStatus) -> Known {
        let format = OutputFormat::parse(format).unwrap();
        let key = FileKey::new(
            &Deployment::parse("0123456789abcdef").unwrap(),
            &WorkspaceId::default(),
            &OutputId::new("o").unwrap(),
            new_id(at(0), [1; 10]),
            &format,
        );
        Known {
            format,
            status,
            stated: Some(file(1, 5)),
            failure: Some("why".to_owned()),
            made_at: None,
            kept: Some((key, file(1, 5))),
            job: None,
        }
    }

    #[test]
    fn with_a_job_it_is_under_way_and_keeps_its_file() {
        for status in OutputStatus::ALL {
            let shown = Known {
                stated: Some(file(2, 9)),
                made_at: Some(at(9)),
                job: Some(OutputStatus::Queued),
                ..known("pdf", status)
            }
            .shown();
            let expected = match status {
                OutputStatus::Generating => OutputStatus::Generating,
                _ => OutputStatus::Queued,
            };
            assert_eq!((shown.status, shown.failure), (expected, None));
            assert_eq!(shown.file, Some(file(1, 5)));
            assert!(shown.key.is_some());
        }
    }

    #[test]
    fn a_later_file_of_the_cores_is_not_the_one_that_is_kept() {
        let stated = |size, seconds| Known {
            stated: Some(file(size, seconds)),
            ..known("pdf", OutputStatus::Generated)
        };
        let shown = stated(2, 9).shown();
        assert_eq!((shown.file, shown.key), (Some(file(2, 9)), None));
        for (size, seconds) in [(1, 9), (2, 4), (2, 5)] {
            let shown = stated(size, seconds).shown();
            assert_eq!(shown.file, Some(file(1, 5)), "{size} at {seconds}");
            assert!(shown.key.is_some());
        }
        let told = Known {
            made_at: Some(at(9)),
            ..stated(2, 9)
        };
        let shown = told.shown();
        assert_eq!((shown.file, shown.key, shown.failure), (None, None, None));
    }

    #[test]
    fn of_what_is_made_here_no_other_file_counts() {
        let shown = Known {
            stated: Some(file(2, 9)),
            made_at: Some(at(9)),
            ..known("csv", OutputStatus::Generated)
        };
        assert_eq!(shown.shown().file, Some(file(1, 5)));
    }
}
