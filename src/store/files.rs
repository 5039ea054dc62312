//! The files of outputs, as the rooms see them that hand them out or know who refers to them. They
//! are kept by `outputs`; which of them an output has is kept by the database.

use std::fmt::Debug;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;

use crate::domain::file::{Deployment, FileKey};

/// A file, or a part of it, piece by piece.
pub type FileStream = BoxStream<'static, Result<Bytes, FileError>>;

/// Reading files.
#[async_trait]
pub trait Files: Debug + Send + Sync {
    /// The bytes of `range`, which must lie within the file. Nothing is read before it is asked
    /// for. What was taken out of the database just now may be gone all the same
    /// ([`FileError::Missing`]): the output was made again.
    async fn read(&self, key: &FileKey, range: Range<u64>) -> Result<FileStream, FileError>;
}

/// Which files are an output's.
#[async_trait]
pub trait FileReferences: Send + Sync {
    /// Whose database this is: drawn with its schema, and the same ever after.
    async fn deployment(&self) -> super::Result<Deployment>;

    /// Those of `keys` that no output of any workspace refers to. Outputs that were deleted have lost
    /// theirs then.
    async fn unreferenced(&self, keys: &[FileKey]) -> super::Result<Vec<FileKey>>;
}

/// What can go wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// There is no such file.
    #[error("there is no such file")]
    Missing,

    /// It has more bytes than `outputs.max_file_bytes`; nothing was kept of it.
    #[error("the file has more than {most} bytes")]
    TooLarge {
        /// How many it may have.
        most: u64,
    },

    /// Where files are kept cannot be used now: the same call may succeed later.
    #[error("where files are kept cannot be used: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl FileError {
    /// A fault of what lies below.
    pub fn unavailable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(error.into())
    }
}
