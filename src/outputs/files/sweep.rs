//! Takes away what nobody refers to: files whose output was never settled, files of outputs that
//! are gone, and the beginnings that a crash left.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use futures::{TryStreamExt, future};
use object_store::path::Path as ObjectPath;

use super::{FileStore, from_objects};
use crate::domain::file::FileKey;
use crate::store::{FileError, FileReferences};

/// How long a file is left alone that nobody refers to: longer than one may take to be fetched or
/// made, and then to be settled.
const LEFT_ALONE: Duration = Duration::from_hours(2);

/// How many keys are looked up at once.
const KEYS_AT_ONCE: usize = 500;

/// What was taken away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Whole files that no output refers to.
    pub files: usize,
    /// Beginnings of files.
    pub beginnings: usize,
}

impl FileStore {
    /// Sweeps this deployment's part of the place. Only what has the form of a key of ours is touched:
    /// a directory or a bucket may hold other things, other deployments' files among them. What changed
    /// within the last two hours stays, since it may be under way, in this process or in another.
    ///
    /// Unfinished uploads to an S3-compatible store are not seen here; a rule of the bucket ends
    /// them.
    pub async fn sweep(&self, references: &dyn FileReferences) -> Result<Swept, FileError> {
        let before = self.clock.now() - LEFT_ALONE;
        let deployment = references.deployment().await;
        let deployment = deployment.map_err(FileError::unavailable)?;
        let mut keys = self
            .objects
            .list(Some(&ObjectPath::from(deployment.as_str())))
            .map_err(from_objects)
            .try_filter_map(|object| {
                let is_old = object.last_modified < before;
                let key = FileKey::parse(object.location.as_ref());
                future::ok(key.filter(|_| is_old))
            })
            .try_chunks(KEYS_AT_ONCE);
        let mut swept = Swept::default();
        while let Some(some) = keys.try_next().await.map_err(|error| error.1)? {
            let unreferenced = references.unreferenced(&some).await;
            for key in unreferenced.map_err(FileError::unavailable)? {
                self.delete(&key).await?;
                swept.files += 1;
            }
        }
        if let Some(directory) = self.directory.clone() {
            let taken = tokio::task::spawn_blocking(move || {
                sweep_beginnings(&directory, deployment.as_str(), before.into())
            })
            .await
            .map_err(FileError::unavailable)?;
            swept.beginnings = taken.map_err(FileError::unavailable)?;
        }
        Ok(swept)
    }
}

/// Deletes the files that were written under another name and never got their own.
fn sweep_beginnings(directory: &Path, deployment: &str, before: SystemTime) -> io::Result<usize> {
    let mut taken = 0;
    for workspace in directories(&directory.join(deployment))? {
        for output in directories(&workspace)? {
            for entry in entries(&output)? {
                let path = entry.path();
                let name = path.strip_prefix(directory).ok().and_then(Path::to_str);
                let is_old = || Some(entry.metadata().ok()?.modified().ok()? < before);
                if name.is_some_and(is_beginning) && is_old() == Some(true) {
                    removed(fs::remove_file(&path))?;
                    taken += 1;
                }
            }
        }
    }
    Ok(taken)
}

/// Whether the name is a key with what `object_store` adds to it (`#1`) until the file is whole.
fn is_beginning(name: &str) -> bool {
    name.rsplit_once('#').is_some_and(|(key, count)| {
        FileKey::parse(key).is_some() && count.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn directories(directory: &Path) -> io::Result<Vec<std::path::PathBuf>> {
    let found = entries(directory)?.into_iter();
    let found = found.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(found.map(|entry| entry.path()).collect())
}

/// What is in a directory; nothing where it went away meanwhile.
fn entries(directory: &Path) -> io::Result<Vec<fs::DirEntry>> {
    match fs::read_dir(directory) {
        Ok(entries) => entries.collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Another process may have been faster.
fn removed(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}
