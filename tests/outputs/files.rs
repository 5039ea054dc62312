//! Files are kept whole or not at all, wherever they are kept.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use forge_dispatch::clock::{Clock, ManualClock, SystemClock};
use forge_dispatch::config::{Egress, Outputs};
use forge_dispatch::domain::file::{Deployment, FileKey, KeptFile};
use forge_dispatch::domain::hex::hex;
use forge_dispatch::domain::ids::{OutputId, WorkspaceId};
use forge_dispatch::domain::output::OutputFormat;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::outputs::FileStore;
use forge_dispatch::outputs::files::Swept;
use forge_dispatch::store::{self, FileError, FileReferences, Files};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::bucket::Server;
use crate::harness::eventually;

/// More than a part, and no round number.
const LARGE: usize = 20 * 1024 * 1024 + 7;

fn ours() -> Deployment {
    Deployment::parse("1111111111111111").unwrap()
}

fn theirs() -> Deployment {
    Deployment::parse("2222222222222222").unwrap()
}

/// A store of files, and what is below it.
pub(super) struct Place {
    pub(super) files: Arc<FileStore>,
    /// Where whole files can be seen.
    root: PathBuf,
    clock: Arc<ManualClock>,
    entropy: Entropy,
    directory: TempDir,
    _server: Option<Server>,
}

impl Place {
    pub(super) fn directory(settings: &Outputs) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().join("made/outputs");
        Self::open(settings, root, directory, None)
    }

    async fn bucket(settings: &Outputs) -> Self {
        let server = Server::start().await;
        let settings = Outputs {
            s3: server.settings().s3,
            ..settings.clone()
        };
        let directory = tempfile::tempdir().unwrap();
        Self::open(&settings, server.bucket(), directory, Some(server))
    }

    fn open(settings: &Outputs, root: PathBuf, directory: TempDir, server: Option<Server>) -> Self {
        let clock = Arc::new(ManualClock::at(SystemClock.now()));
        let shared = Arc::clone(&clock) as Arc<dyn Clock>;
        let made = directory.path().join("made/outputs");
        Self {
            files: Arc::new(FileStore::open(settings, &made, &Egress::default(), shared).unwrap()),
            root,
            clock,
            entropy: Entropy::seeded(7),
            directory,
            _server: server,
        }
    }

    pub(super) fn key(&self, output: &str) -> FileKey {
        self.key_of(&ours(), output)
    }

    fn key_of(&self, deployment: &Deployment, output: &str) -> FileKey {
        FileKey::new(
            deployment,
            &WorkspaceId::new("../../w").unwrap(),
            &OutputId::new(output).unwrap(),
            self.entropy.id(self.clock.now()),
            &OutputFormat::Csv,
        )
    }

    async fn keep(&self, key: &FileKey, content: &[u8]) -> Result<KeptFile, FileError> {
        self.files.keep(key, pieces(content)).await
    }

    pub(super) async fn read(
        &self,
        key: &FileKey,
        from: u64,
        to: u64,
    ) -> Result<Vec<u8>, FileError> {
        let pieces = self.files.read(key, from..to).await?;
        let pieces: Vec<Bytes> = pieces.try_collect().await?;
        Ok(pieces.concat())
    }

    /// The keys of what can be seen.
    pub(super) fn seen(&self) -> HashSet<String> {
        below(&self.root)
            .iter()
            .map(|path| path.strip_prefix(&self.root).unwrap())
            .map(|path| path.to_str().unwrap().to_owned())
            .filter(|name| !name.starts_with('.'))
            .collect()
    }
}

fn below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

fn pieces(content: &[u8]) -> impl Stream<Item = Result<Bytes, FileError>> + Unpin + use<> {
    let pieces: Vec<_> = content
        .chunks(60_001)
        .map(|piece| Ok(Bytes::copy_from_slice(piece)))
        .collect();
    stream::iter(pieces)
}

/// Bytes of which no two stretches are alike.
fn content(length: usize) -> Vec<u8> {
    (0_u64..)
        .flat_map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes())
        .take(length)
        .collect()
}

/// Makes two tests of each scenario, one for either kind of place.
macro_rules! in_both_places {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            use super::{Outputs, Place};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn directory() {
                super::$scenario(&Place::directory(&Outputs::default())).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn bucket() {
                super::$scenario(&Place::bucket(&Outputs::default()).await).await;
            }
        }
    )+};
}

in_both_places!(
    a_file_reads_back_whole_and_in_parts,
    what_is_not_there_is_missing_and_may_be_deleted,
    content_that_breaks_off_leaves_nothing,
    what_nobody_refers_to_is_swept_once_it_is_old,
    deployments_that_share_a_place_leave_each_others_files,
);

async fn a_file_reads_back_whole_and_in_parts(place: &Place) {
    for (output, length) in [("none", 0), ("small", 10_000), ("large", LARGE)] {
        let (key, content) = (place.key(output), content(length));
        let kept = place.keep(&key, &content).await.unwrap();
        assert_eq!(kept.key, key);
        let size = kept.size;
        assert_eq!(size, u64::try_from(length).unwrap());
        assert_eq!(kept.sha256, hex(&Sha256::digest(&content)));
        assert!(place.seen().contains(key.as_str()));
        for (from, to) in [
            (0, size),
            (0, size / 3),
            (size / 3, size / 2),
            (size / 2, size),
            (size / 2, size / 2),
            (size.saturating_sub(1), size),
        ] {
            let expected = &content[usize::try_from(from).unwrap()..usize::try_from(to).unwrap()];
            let read = place.read(&key, from, to).await.unwrap();
            assert!(read == expected, "{output}: {from}..{to}");
        }
    }
}

async fn what_is_not_there_is_missing_and_may_be_deleted(place: &Place) {
    let (here, other) = (place.key("o"), place.key("o"));
    place.keep(&here, b"here").await.unwrap();
    for (from, to) in [(0, 4), (1, 2), (0, 0)] {
        let error = place.read(&other, from, to).await.unwrap_err();
        assert!(matches!(error, FileError::Missing), "{from}..{to}: {error}");
    }
    place.files.delete(&other).await.unwrap();
    place.files.delete(&here).await.unwrap();
    place.files.delete(&here).await.unwrap();
    let error = place.read(&here, 0, 4).await.unwrap_err();
    assert!(matches!(error, FileError::Missing), "{error}");
    assert!(place.seen().is_empty());
}

async fn content_that_breaks_off_leaves_nothing(place: &Place) {
    for length in [10, LARGE] {
        let key = place.key("o");
        let broken = pieces(&content(length)).chain(stream::iter([Err(FileError::Missing)]));
        let error = place.files.keep(&key, broken).await.unwrap_err();
        assert!(matches!(error, FileError::Missing), "{error}");
        let error = place.read(&key, 0, 1).await.unwrap_err();
        assert!(matches!(error, FileError::Missing), "{error}");
    }
    assert_eq!(place.seen(), HashSet::new());
}

/// Refers to these and no others, as this deployment.
struct Referred(Deployment, Vec<FileKey>);

#[async_trait]
impl FileReferences for Referred {
    async fn deployment(&self) -> store::Result<Deployment> {
        Ok(self.0.clone())
    }

    async fn unreferenced(&self, keys: &[FileKey]) -> store::Result<Vec<FileKey>> {
        let mut keys = keys.to_vec();
        keys.retain(|key| !self.1.contains(key));
        Ok(keys)
    }
}

async fn what_nobody_refers_to_is_swept_once_it_is_old(place: &Place) {
    let (kept, left) = (place.key("o"), place.key("o"));
    for key in [&kept, &left] {
        place.keep(key, b"content").await.unwrap();
    }
    fs::write(place.root.join("notes.txt"), "not ours").unwrap();
    let referred = Referred(ours(), vec![kept.clone()]);
    let swept = place.files.sweep(&referred).await.unwrap();
    assert_eq!(swept, Swept::default(), "it may be settled just now");
    place.clock.advance(Duration::from_hours(3));
    let swept = place.files.sweep(&referred).await.unwrap();
    let expected = Swept {
        files: 1,
        beginnings: 0,
    };
    assert_eq!(swept, expected);
    let expected = HashSet::from(["notes.txt".to_owned(), kept.to_string()]);
    assert_eq!(place.seen(), expected);
}

async fn deployments_that_share_a_place_leave_each_others_files(place: &Place) {
    let (mine, other) = (place.key_of(&ours(), "o"), place.key_of(&theirs(), "o"));
    // Kept before keys named a deployment.
    let (_, old) = other.as_str().split_once('/').unwrap();
    let old = FileKey::parse(old).unwrap();
    for key in [&mine, &other, &old] {
        place.keep(key, b"content").await.unwrap();
    }
    place.clock.advance(Duration::from_hours(3));
    let swept = |files| Swept {
        files,
        beginnings: 0,
    };
    // Neither knows of the others' files, nor of the old one.
    let first = Referred(ours(), vec![mine.clone()]);
    assert_eq!(place.files.sweep(&first).await.unwrap(), swept(0));
    let second = Referred(theirs(), vec![other.clone()]);
    assert_eq!(place.files.sweep(&second).await.unwrap(), swept(0));
    for key in [&mine, &other, &old] {
        assert_eq!(place.read(key, 0, 7).await.unwrap(), b"content");
    }
    let nothing = Referred(theirs(), Vec::new());
    assert_eq!(place.files.sweep(&nothing).await.unwrap(), swept(1));
    assert_eq!(
        place.seen(),
        HashSet::from([mine.to_string(), old.to_string()])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_lie_below_the_prefix_that_is_named() {
    let server = Server::start().await;
    let mut settings = server.settings();
    settings.s3.prefix = Some("reports/forge".to_owned());
    let directory = tempfile::tempdir().unwrap();
    let place = Place::open(&settings, server.bucket(), directory, Some(server));
    let key = place.key("o");
    place.keep(&key, b"content").await.unwrap();
    assert_eq!(
        place.seen(),
        HashSet::from([format!("reports/forge/{key}")])
    );
    assert_eq!(place.read(&key, 0, 7).await.unwrap(), b"content");
    place.clock.advance(Duration::from_hours(3));
    let nothing = Referred(ours(), Vec::new());
    assert_eq!(place.files.sweep(&nothing).await.unwrap().files, 1);
    assert!(place.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_too_large_is_not_kept() {
    let settings = Outputs {
        max_file_bytes: 1_000,
        ..Outputs::default()
    };
    for place in [Place::directory(&settings), Place::bucket(&settings).await] {
        let key = place.key("o");
        place.keep(&key, &content(1_000)).await.unwrap();
        let other = place.key("o");
        let error = place.keep(&other, &content(1_001)).await.unwrap_err();
        assert!(
            matches!(error, FileError::TooLarge { most: 1_000 }),
            "{error}"
        );
        assert_eq!(place.seen(), HashSet::from([key.to_string()]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_left_is_no_file_and_is_swept() {
    let place = Place::directory(&Outputs::default());
    let key = place.key("o");
    let endless = pieces(&content(LARGE)).chain(stream::pending());
    let mut keeping = Box::pin(place.files.keep(&key, endless));
    let beginning = format!("{key}#1");
    let begun = async || place.seen().contains(&beginning);
    tokio::select! {
        _ = &mut keeping => panic!("it never ends"),
        () = eventually(Duration::from_secs(20), "the beginning is written", begun) => {}
    }
    // As when the process is killed: nothing tidies up.
    std::mem::forget(keeping);

    let error = place.read(&key, 0, 1).await.unwrap_err();
    assert!(matches!(error, FileError::Missing), "{error}");
    fs::write(place.root.join("notes#1"), "not ours").unwrap();
    let nothing = Referred(ours(), Vec::new());
    assert_eq!(place.files.sweep(&nothing).await.unwrap(), Swept::default());
    place.clock.advance(Duration::from_hours(3));
    let swept = place.files.sweep(&nothing).await.unwrap();
    let expected = Swept {
        files: 0,
        beginnings: 1,
    };
    assert_eq!(swept, expected);
    assert_eq!(place.seen(), HashSet::from(["notes#1".to_owned()]));
}

#[tokio::test]
async fn the_directory_is_made_for_nobody_else() {
    let place = Place::directory(&Outputs::default());
    let mode = fs::metadata(&place.root).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let inside = place.directory.path().join("a file");
    fs::write(&inside, "").unwrap();
    let clock = Arc::new(SystemClock);
    let error = FileStore::open(
        &Outputs::default(),
        &inside.join("d"),
        &Egress::default(),
        clock,
    );
    let told = error.unwrap_err().to_string();
    assert!(
        told.starts_with(&format!("outputs.directory {}", inside.display())),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_is_told_without_it() {
    let server = Server::start().await;
    let mut settings = server.settings();
    settings.s3.secret_access_key = Some(SecretString::from("s3cret"));
    let directory = tempfile::tempdir().unwrap();
    let place = Place::open(&settings, server.bucket(), directory, Some(server));
    let error = place.keep(&place.key("o"), b"content").await.unwrap_err();
    assert!(matches!(error, FileError::Unavailable(_)), "{error}");
    let told = format!("{error} {error:?} {:?}", place.files);
    assert!(!told.contains("s3cret"), "{told}");
}
