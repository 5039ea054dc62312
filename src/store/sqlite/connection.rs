//! How the file is opened, written and kept short.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row, Sqlite, SqliteConnection, SqlitePool, Transaction};

use super::SqliteStore;
use super::error::store_error;
use crate::clock::pause;
use crate::store::{Result, StoreError};

/// How long a statement waits for another process (the command line beside the service).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call waits in line for a connection of ours.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
/// A write-ahead log that grew beyond this is folded back and cut; readers that look too long, or
/// too many after one another, make it grow.
const LONG_WAL_BYTES: u64 = 64 * 1024 * 1024;
/// What is left of the file of a log that was folded back: more than it grows to between two times,
/// since making a file longer costs more than writing over it.
const WAL_LIMIT_BYTES: u64 = 48 * 1024 * 1024;
/// After so many pages (32 MiB) a commit folds the log back in passing: often enough that it stays
/// short, seldom enough that a page changed by many batches is written once.
const AUTOCHECKPOINT_PAGES: u32 = 4_000;
/// Pages of a new file; one that is there keeps its own. Twice the usual size: an event of 10 kB
/// costs a quarter less, and a small one, of which only the page of its key matters, no more.
const PAGE_BYTES: u32 = 8 * 1024;
/// Memory for pages of the file, in KiB: the upper levels of all indexes of a large database.
const CACHE_KIB: u32 = 32 * 1024;
/// How often, and for how long, work that nobody waits for looks for a gap between that of others.
const GAPS: usize = 200;
const GAP_EVERY: Duration = Duration::from_millis(5);
/// Rows handed over from the connection's thread before it waits for us to take some.
const ROW_BUFFER: usize = 512;
/// Prepared statements kept per connection: each kind in each of the sizes that batches come in.
const STATEMENTS: usize = 256;

/// Opens the writer and the readers.
pub(super) async fn open(path: &Path, max_readers: u32) -> Result<(SqlitePool, SqlitePool)> {
    let unusable = |error: &dyn std::fmt::Display| {
        StoreError::Configuration(format!("{}: {error}", path.display()))
    };
    create(path).map_err(|error| unusable(&error))?;

    let options = SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .row_buffer_size(ROW_BUFFER)
        .statement_cache_capacity(STATEMENTS)
        .page_size(PAGE_BYTES)
        // An event is acknowledged to the broker once it is committed, so a commit must outlive
        // the machine's power: it costs a quarter of a millisecond.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // What a statement sets aside to undo itself, and the lists it searches by, are small and
        // soon gone: as files they cost more than the rows.
        .pragma("temp_store", "memory")
        .pragma("journal_size_limit", WAL_LIMIT_BYTES.to_string())
        .pragma("wal_autocheckpoint", AUTOCHECKPOINT_PAGES.to_string());

    // Two processes that turn a new file into a write-ahead one would meet in a lock that does not
    // wait.
    let starting = lock(path).await?;
    let writer = pool(1)
        .connect_with(
            options
                .clone()
                .journal_mode(SqliteJournalMode::Wal)
                .pragma("cache_size", format!("-{CACHE_KIB}")),
        )
        .await
        .map_err(|error| unusable(&error))?;
    drop(starting);
    let readers = pool(max_readers.max(1)).connect_lazy_with(options.read_only(true));
    Ok((writer, readers))
}

fn pool(connections: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
}

/// Makes the directory and the file, for their owner only. The log and its index get the same mode.
fn create(path: &Path) -> io::Result<()> {
    if let Some(directory) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
        .map(drop)
}

/// Holds off other processes that start, until the file is dropped. The file beside the database
/// stays: removing it would let a third process lock a new one while a second holds the old.
pub(super) async fn lock(path: &Path) -> Result<File> {
    let path = beside(path, "-lock");
    let locked = tokio::task::spawn_blocking(move || {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)?;
        file.lock()?;
        Ok(file)
    });
    locked
        .await
        .unwrap_or_else(|died| Err(io::Error::other(died)))
        .map_err(|error| StoreError::Unavailable(sqlx::Error::Io(error)))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// The write-ahead log's length, watched.
#[derive(Debug)]
pub(super) struct Wal {
    path: PathBuf,
    /// The length at which it is cut next.
    long: AtomicU64,
}

impl Wal {
    pub(super) fn of(database: &Path) -> Self {
        Self {
            path: beside(database, "-wal"),
            long: AtomicU64::new(LONG_WAL_BYTES),
        }
    }

    fn length(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |metadata| metadata.len())
    }

    fn is_long(&self) -> bool {
        self.length() > self.long.load(Ordering::Relaxed)
    }

    /// A log that a reader held open is left alone until it has doubled: each try makes writers
    /// wait for that reader.
    fn was_folded(&self, whole: bool) {
        let next = if whole {
            LONG_WAL_BYTES
        } else {
            self.length().saturating_mul(2)
        };
        self.long.store(next, Ordering::Relaxed);
    }
}

impl SqliteStore {
    /// Begins a transaction that holds the write lock from the start: nobody else changes what it
    /// reads, and it never fails half-way for want of the lock.
    pub(super) async fn write(&self) -> Result<Transaction<'static, Sqlite>> {
        self.writer
            .begin_with("begin immediate")
            .await
            .map_err(store_error)
    }

    /// The same for work that nobody waits for: those who write or wait to come first. Where they leave
    /// no gap it takes its turn in line after a while, so that it gets on however busy they are.
    pub(super) async fn write_in_a_gap(&self) -> Result<Transaction<'static, Sqlite>> {
        for _ in 0..GAPS {
            let begun = self.writer.try_begin_with("begin immediate").await;
            if let Some(transaction) = begun.map_err(store_error)? {
                return Ok(transaction);
            }
            pause(GAP_EVERY).await;
        }
        self.write().await
    }

    /// Begins a transaction that sees one state of the database and changes nothing.
    pub(super) async fn read(&self) -> Result<Transaction<'static, Sqlite>> {
        self.readers.begin().await.map_err(store_error)
    }

    /// A connection for one statement that changes nothing.
    pub(super) async fn reader(&self) -> Result<PoolConnection<Sqlite>> {
        self.readers.acquire().await.map_err(store_error)
    }

    /// Commits, and sees to the log's length.
    pub(super) async fn commit(&self, transaction: Transaction<'static, Sqlite>) -> Result<()> {
        transaction.commit().await.map_err(store_error)?;
        if self.wal.is_long() {
            self.fold_log_back().await;
        }
        Ok(())
    }

    /// Writes the log's pages to where they belong and cuts the log. Readers at work hinder it; it
    /// is then done another time, so a failure is no more than worth a note.
    pub(super) async fn fold_log_back(&self) {
        let folded = match self.writer.acquire().await {
            Ok(mut writer) => checkpoint(&mut writer).await,
            Err(error) => Err(error),
        };
        match &folded {
            Ok(true) => {}
            Ok(false) => tracing::debug!("the write-ahead log is in use and stays as it is"),
            Err(error) => tracing::warn!(%error, "the write-ahead log could not be folded back"),
        }
        self.wal.was_folded(matches!(folded, Ok(true)));
    }
}

/// Answers whether all of the log was written back.
async fn checkpoint(writer: &mut SqliteConnection) -> sqlx::Result<bool> {
    let row = sqlx::query(
        "-- sqlite::connection::checkpoint
        pragma wal_checkpoint(truncate)",
    )
    .fetch_one(writer)
    .await?;
    Ok(row.try_get::<i64, _>(0)? == 0)
}
