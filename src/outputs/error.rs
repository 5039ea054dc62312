//! Why an edition could not be rendered, told apart by what should be done about it.

use std::io;

use rust_xlsxwriter::XlsxError;
use zip::result::ZipError;

use super::source::SourceError;
use crate::domain::output::OutputFormat;

/// Why an edition could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The edition cannot be read. One that changed meanwhile is rendered anew.
    #[error(transparent)]
    Source(#[from] SourceError),

    /// Files of this format are made by the core.
    #[error("`{0}` is not made here")]
    NotMadeHere(OutputFormat),

    /// A sheet would have too many rows.
    #[error("`{section}` has more than {most} rows, which a sheet cannot hold; ask for CSV")]
    TooManyRows {
        /// The section's name.
        section: String,
        /// How many rows a sheet may have.
        most: u32,
    },

    /// A sheet would have too many columns.
    #[error("`{section}` has more than {most} fields, which a sheet cannot hold; ask for CSV")]
    TooManyColumns {
        /// The section's name.
        section: String,
        /// How many columns a sheet may have.
        most: usize,
    },

    /// A text does not fit into a cell. It is not cut: nobody would see it.
    #[error(
        "`{section}`, row {row}, `{field}`: the text is longer than {most} characters, which a \
         cell cannot hold; ask for CSV"
    )]
    TextTooLong {
        /// The section's name.
        section: String,
        /// Which row, counted from 1.
        row: u32,
        /// The field, as a person reads it.
        field: String,
        /// How many UTF-16 units a cell may have.
        most: usize,
    },

    /// The file would be larger than `outputs.max_file_bytes`.
    #[error("the file would have more than {most} bytes")]
    TooLarge {
        /// How many it may have.
        most: u64,
    },

    /// What a section holds cannot be read: it is written by this program only.
    #[error("the edition's values: {0}")]
    Values(#[from] serde_json::Error),

    /// The scratch file cannot be written: a full disk.
    #[error("the scratch file: {0}")]
    Io(#[source] io::Error),

    /// The workbook's library refuses.
    #[error("the workbook: {0}")]
    Workbook(#[from] XlsxError),

    /// The zip's library refuses.
    #[error("the zip: {0}")]
    Zip(#[from] ZipError),

    /// Whoever asked for it went away.
    #[error("the rendering was abandoned")]
    Abandoned,

    /// The writing side ended as it never should.
    #[error("the renderer broke")]
    Broken,
}

impl RenderError {
    /// Whether the data itself is at fault: another try would end the same, and the message is for
    /// the person who asked for the output.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Source(SourceError::Missing)
                | Self::NotMadeHere(_)
                | Self::TooManyRows { .. }
                | Self::TooManyColumns { .. }
                | Self::TextTooLong { .. }
                | Self::TooLarge { .. }
        )
    }
}
