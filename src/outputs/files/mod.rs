//! Keeps files: in a directory, or in an S3-compatible store. Both by one library, which writes a
//! file under another name first (or in parts that nobody sees), so that a key either has all of its
//! file or none.

use std::fmt;
use std::fs;
use std::io;
use std::ops::Range;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::buffered::BufWriter;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt};
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;

use crate::clock::Clock;
use crate::config::{Egress, Outputs};
use crate::domain::file::{FileKey, KeptFile};
use crate::domain::hex::hex;
use crate::egress::client::ClientError;
use crate::store::{FileError, FileStream, Files};

mod bucket;
mod sweep;

pub use sweep::Swept;

/// How much is held of a file that is being kept, before it is written. S3 takes a file in parts of
/// at least 5 MB.
const PART_BYTES: usize = 8 * 1024 * 1024;

/// How many parts are under way at once, for one file.
const PARTS_AT_ONCE: usize = 2;

/// Keeps files.
pub struct FileStore {
    objects: Arc<dyn ObjectStore>,
    /// Where it is, for people.
    place: String,
    /// The directory that holds the files, where one does.
    directory: Option<PathBuf>,
    max_bytes: u64,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// Files cannot be kept as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The directory cannot be made or used.
    #[error("outputs.directory {}: {reason}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        reason: String,
    },

    /// The settings of the S3-compatible store contradict each other.
    #[error("outputs.s3: {0}")]
    Bucket(#[source] object_store::Error),

    /// The client for it cannot be built.
    #[error("outputs.s3: {0}")]
    Client(#[from] ClientError),
}

impl FileStore {
    /// Keeps files where the settings say: in the bucket that they name, else in `directory`, which
    /// is made if it is missing. No request is made.
    pub fn open(
        settings: &Outputs,
        directory: &Path,
        egress: &Egress,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, FilesError> {
        make(directory)?;
        let max_bytes = settings.max_file_bytes;
        Ok(match &settings.s3.bucket {
            Some(bucket) => Self {
                objects: bucket::open(&settings.s3, bucket, egress)?,
                place: format!("s3://{bucket}"),
                directory: None,
                max_bytes,
                clock,
            },
            None => Self {
                objects: Arc::new(durable(directory)?),
                place: directory.display().to_string(),
                directory: Some(directory.to_owned()),
                max_bytes,
                clock,
            },
        })
    }

    /// Keeps a file that comes piece by piece, under a key that has none yet. Where the content
    /// breaks off or is too large, or the task is dropped, nothing stands under the key; what a
    /// crash leaves behind is taken away by [`Self::sweep`].
    pub async fn keep<E: From<FileError>>(
        &self,
        key: &FileKey,
        mut content: impl Stream<Item = Result<Bytes, E>> + Unpin,
    ) -> Result<KeptFile, E> {
        let path = ObjectPath::from(key.as_str());
        let mut writer = BufWriter::with_capacity(Arc::clone(&self.objects), path, PART_BYTES)
            .with_max_concurrency(PARTS_AT_ONCE);
        match self.fill(&mut writer, &mut content).await {
            Ok((size, sha256)) => {
                writer.shutdown().await.map_err(from_io)?;
                Ok(KeptFile {
                    key: key.clone(),
                    size,
                    sha256,
                })
            }
            Err(error) => {
                if let Err(error) = writer.abort().await {
                    tracing::warn!(%key, %error, "parts of a file that broke off are left behind");
                }
                Err(error)
            }
        }
    }

    /// Hands on the content; answers its size and SHA-256.
    async fn fill<E: From<FileError>>(
        &self,
        writer: &mut BufWriter,
        content: &mut (impl Stream<Item = Result<Bytes, E>> + Unpin),
    ) -> Result<(u64, String), E> {
        let mut digest = Sha256::new();
        let mut size: u64 = 0;
        while let Some(piece) = content.next().await {
            let piece = piece?;
            size = size.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
            if size > self.max_bytes {
                let most = self.max_bytes;
                return Err(FileError::TooLarge { most }.into());
            }
            digest.update(&piece);
            writer.put(piece).await.map_err(from_objects)?;
        }
        Ok((size, hex(&digest.finalize())))
    }

    /// Deletes a file. One that is gone already is as good as deleted.
    pub async fn delete(&self, key: &FileKey) -> Result<(), FileError> {
        let path = ObjectPath::from(key.as_str());
        match self.objects.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(from_objects(error)),
        }
    }
}

#[async_trait]
impl Files for FileStore {
    async fn read(&self, key: &FileKey, range: Range<u64>) -> Result<FileStream, FileError> {
        let path = ObjectPath::from(key.as_str());
        if range.is_empty() {
            // No range of HTTP says this.
            self.objects.head(&path).await.map_err(from_objects)?;
            return Ok(futures::stream::empty().boxed());
        }
        let options = GetOptions::new().with_range(Some(range));
        let found = self.objects.get_opts(&path, options).await;
        let found = found.map_err(from_objects)?;
        Ok(found.into_stream().map_err(from_objects).boxed())
    }
}

/// Makes the directory, for our eyes only: what outputs show is not for everybody on the machine.
fn make(directory: &Path) -> Result<(), FilesError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| FilesError::Directory {
            path: directory.to_owned(),
            reason: error.to_string(),
        })
}

/// A directory whose files are on the disk, name and all, once they are said to be kept.
fn durable(directory: &Path) -> Result<LocalFileSystem, FilesError> {
    let files =
        LocalFileSystem::new_with_prefix(directory).map_err(|error| FilesError::Directory {
            path: directory.to_owned(),
            reason: error.to_string(),
        })?;
    Ok(files.with_fsync(true).with_automatic_cleanup(true))
}

fn from_objects(error: object_store::Error) -> FileError {
    match error {
        object_store::Error::NotFound { .. } => FileError::Missing,
        error => FileError::unavailable(error),
    }
}

fn from_io(error: io::Error) -> FileError {
    FileError::unavailable(error)
}
