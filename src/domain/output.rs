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
    /// Grows with every change.
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
