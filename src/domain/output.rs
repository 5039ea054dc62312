//! What an edition's data is presented in.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::ids::{EditionId, OutputId, ProjectId};

/// The longest name of a format, in bytes.
pub const MAX_FORMAT_BYTES: usize = 32;

/// What an output is made as.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OutputFormat {
    /// Comma-separated values (RFC 4180), or a zip of them where there are several sections; made
    /// here.
    Csv,
    /// A workbook of Excel; made here.
    Xlsx,
    /// Anything else, in the core's own word (`pdf`, `docx`, …); made there.
    Other(Arc<str>),
}

impl OutputFormat {
    /// Reads the word: 1 to [`MAX_FORMAT_BYTES`] of `a` to `z`, digits, `_` and `-`. `excel` is
    /// another word for `xlsx`.
    pub fn parse(text: &str) -> Option<Self> {
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
        match text {
            "csv" => Some(Self::Csv),
            "xlsx" | "excel" => Some(Self::Xlsx),
            _ if text.is_empty() || text.len() > MAX_FORMAT_BYTES => None,
            _ => text
                .bytes()
                .all(plain)
                .then(|| Self::Other(Arc::from(text))),
        }
    }

    /// Whether files of this format are made here; all others are made by the core.
    pub fn is_made_here(&self) -> bool {
        matches!(self, Self::Csv | Self::Xlsx)
    }

    /// The word for it.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Csv => "csv",
            Self::Xlsx => "xlsx",
            Self::Other(word) => word,
        }
    }
}

impl fmt::Display for OutputFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How far an output is: `not_generated → queued → generating → generated | failed`, and from both
/// ends to `queued` again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStatus {
    /// Nobody asked for it yet.
    NotGenerated,
    /// Asked for.
    Queued,
    /// Being made.
    Generating,
    /// There is a file.
    Generated,
    /// It could not be made.
    Failed,
}

impl OutputStatus {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::NotGenerated,
        Self::Queued,
        Self::Generating,
        Self::Generated,
        Self::Failed,
    ];

    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotGenerated => "not_generated",
            Self::Queued => "queued",
            Self::Generating => "generating",
            Self::Generated => "generated",
            Self::Failed => "failed",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// One output of an edition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The core's id, or ours (`out_`) which the core adopts.
    pub id: OutputId,
    /// The edition that it presents.
    pub edition: EditionId,
    /// The edition's project.
    pub project: ProjectId,
    /// What the blueprint calls it.
    pub name: String,
    /// What it is made as.
    pub format: OutputFormat,
    /// How far it is.
    pub status: OutputStatus,
    /// The file, where there is one.
    pub file: Option<OutputFile>,
    /// Why it failed, for a person to read.
    pub failure: Option<String>,
    /// The core's: only its snapshots raise it. What happens here raises the revision of the row, so
    /// that a snapshot of the core, which counts for itself, is never taken for an older one.
    pub version: i64,
    /// When it last changed.
    pub updated_at: DateTime<Utc>,
}

/// The file of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputFile {
    /// How many bytes it has.
    pub size: u64,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// When it was made.
    pub generated_at: DateTime<Utc>,
}

/// What asking for an output came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It is queued now.
    Queued,
    /// It was asked for before and is under way: nothing changed.
    UnderWay,
}

/// Why an output took no step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an output that is `{}` cannot become `{}`", is.as_str(), to.as_str())]
pub struct OutputStepError {
    /// Where it stands.
    pub is: OutputStatus,
    /// Where it should have gone.
    pub to: OutputStatus,
}

impl Output {
    /// Somebody asks for it. The file that there was stays until there is another.
    pub fn ask(&mut self, now: DateTime<Utc>) -> Asked {
        match self.status {
            OutputStatus::Queued | OutputStatus::Generating => Asked::UnderWay,
            OutputStatus::NotGenerated | OutputStatus::Generated | OutputStatus::Failed => {
                self.failure = None;
                self.step(OutputStatus::Queued, now);
                Asked::Queued
            }
        }
    }

    /// It begins to be made.
    pub fn start(&mut self, now: DateTime<Utc>) -> Result<(), OutputStepError> {
        self.leave(&[OutputStatus::Queued], OutputStatus::Generating, now)
    }

    /// There is a file. What the core makes goes there without a word of its beginning.
    pub fn finish(&mut self, file: OutputFile, now: DateTime<Utc>) -> Result<(), OutputStepError> {
        let under_way = [OutputStatus::Queued, OutputStatus::Generating];
        self.leave(&under_way, OutputStatus::Generated, now)?;
        self.file = Some(file);
        Ok(())
    }

    /// It could not be made.
    pub fn fail(&mut self, failure: String, now: DateTime<Utc>) -> Result<(), OutputStepError> {
        let under_way = [OutputStatus::Queued, OutputStatus::Generating];
        self.leave(&under_way, OutputStatus::Failed, now)?;
        self.failure = Some(failure);
        Ok(())
    }

    fn leave(
        &mut self,
        from: &[OutputStatus],
        to: OutputStatus,
        now: DateTime<Utc>,
    ) -> Result<(), OutputStepError> {
        if !from.contains(&self.status) {
            let is = self.status;
            return Err(OutputStepError { is, to });
        }
        self.step(to, now);
        Ok(())
    }

    fn step(&mut self, to: OutputStatus, now: DateTime<Utc>) {
        self.status = to;
        self.updated_at = now.max(self.updated_at);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn output() -> Output {
        Output {
            id: OutputId::new("out_1").unwrap(),
            edition: EditionId::new("ed_1").unwrap(),
            project: ProjectId::new("pr_1").unwrap(),
            name: "Figures".into(),
            format: OutputFormat::Csv,
            status: OutputStatus::NotGenerated,
            file: None,
            failure: None,
            version: 1,
            updated_at: DateTime::UNIX_EPOCH,
        }
    }

    fn file() -> OutputFile {
        OutputFile {
            size: 3,
            sha256: "00".repeat(32),
            generated_at: DateTime::UNIX_EPOCH,
        }
    }

    /// The output after a step from a status, where that step can be taken.
    fn after(
        from: OutputStatus,
        step: fn(&mut Output) -> Result<(), OutputStepError>,
    ) -> Option<Output> {
        let before = Output {
            status: from,
            ..output()
        };
        let mut after = before.clone();
        match step(&mut after) {
            Ok(()) => {
                assert_eq!(after.version, before.version, "it is the core's");
                Some(after)
            }
            Err(error) => {
                assert_eq!((error.is, after), (from, before), "nothing changed");
                None
            }
        }
    }

    #[test]
    fn each_step_is_taken_from_where_it_can_be_and_from_nowhere_else() {
        use OutputStatus as S;
        let now = DateTime::UNIX_EPOCH;
        let from = |step: fn(&mut Output) -> Result<(), OutputStepError>| -> Vec<S> {
            let can = |status: &S| after(*status, step).is_some();
            S::ALL.into_iter().filter(can).collect()
        };
        assert_eq!(from(|it| it.start(DateTime::UNIX_EPOCH)), [S::Queued]);
        let under_way = [S::Queued, S::Generating];
        assert_eq!(
            from(|it| it.finish(file(), DateTime::UNIX_EPOCH)),
            under_way
        );
        assert_eq!(
            from(|it| it.fail("x".into(), DateTime::UNIX_EPOCH)),
            under_way
        );
        for status in S::ALL {
            let mut asked = Output {
                status,
                failure: Some("x".into()),
                ..output()
            };
            let before = asked.clone();
            match asked.ask(now) {
                Asked::UnderWay => {
                    assert!(under_way.contains(&status));
                    assert_eq!(asked, before);
                }
                Asked::Queued => {
                    assert!(!under_way.contains(&status));
                    assert_eq!((asked.status, asked.failure), (S::Queued, None));
                }
            }
        }
    }

    #[test]
    fn a_file_stays_until_there_is_another() {
        let mut output = after(OutputStatus::Generating, |it| {
            it.finish(file(), DateTime::UNIX_EPOCH)
        })
        .unwrap();
        assert_eq!(output.ask(DateTime::UNIX_EPOCH), Asked::Queued);
        assert_eq!(output.file, Some(file()));
        let failed = after(OutputStatus::Queued, |it| {
            it.fail("no core".into(), DateTime::UNIX_EPOCH)
        });
        assert_eq!(failed.unwrap().failure.as_deref(), Some("no core"));
    }
}
