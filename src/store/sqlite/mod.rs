//! `SQLite`: one file, one writer, many readers; the default.
//!
//! - `connection`: how the file is opened, written and kept short. `bulk`: statements that carry
//!   many rows.
//! - `events`: accept, `batch` by `batch`. `queue` and `settle`: the hot queue.
//! - `consequences`: what outcomes mean beyond their deliveries.
//! - `circuits`: receivers that are left alone. `replicas`: who sends.
//! - `rollups`: what settles count for statistics.
//! - `subscriptions`, `changes`, `log`, `stats` and `projects`: what clients read and change.
//!   `targets`: the cache's rows.
//! - `api_keys`, `usage` and `audit`: who may, how often, and who did.
//! - `snapshots`, `deletions` and `contents`: what the core says of its entities, written;
//!   `projection`: what webhook events change in that. `editions`: reading it, by `structure`,
//!   `heads`, `sections` and `outputs`. `writing`, `drafts` and `edits`: what clients push of it.
//! - `replays`, `bulk_replay`, `bulk_steps`, `candidates`, `backfill`, `requeue` and `withdraw`: what is sent again because
//!   somebody says so.
//!   `output_jobs`, `answers` and `output_files`: outputs that are asked for, and their files.
//! - `feed`: what came, in the order of the commits.
//! - `idempotency`: creating calls and writes that may be repeated.
//! - `outbox` and `lease`: events of our own on their way out, and who leads in publishing them.
//! - `maintenance`: schema, key, readiness. `retention`: removing what is old.
//!
//! Statements run on a thread of their own per connection, so each costs a hand-over there and
//! back: rows are sent in batches, and a transaction is a handful of statements however many rows
//! it has. All writes go through one connection with `begin immediate`: the lock is taken before
//! the first read, so what a transaction reads is what it changes. A statement that fails ends its
//! transaction, so it need not be able to undo itself alone: the large writes say `or fail`, and
//! `SQLite` sets no pages aside for them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sqlx::SqlitePool;
use tokio_util::sync::CancellationToken;

use super::Result;
use super::circuits::Rules;
use super::feed::FeedBell;
use super::outbox::Door;
use super::output_jobs::JobBell;
use super::projects::KnownProjects;
use super::targets::Targets;
use super::vault::Vault;
use crate::clock::Clock;

mod among;
mod answers;
mod api_keys;
mod audit;
mod backfill;
mod batch;
mod births;
mod bulk;
mod bulk_replay;
mod bulk_steps;
mod candidates;
mod changes;
mod circuits;
mod connection;
mod consequences;
mod contents;
mod deletions;
mod depth;
mod drafts;
mod editions;
mod edits;
mod error;
mod events;
mod feed;
mod gates;
mod heads;
mod idempotency;
mod lease;
mod log;
mod maintenance;
mod outbox;
mod output_files;
mod output_jobs;
mod outputs;
mod projection;
mod projects;
mod queue;
mod replays;
mod replicas;
mod requeue;
mod retention;
mod rollups;
mod rows;
mod sections;
mod settle;
mod snapshots;
mod stats;
mod structure;
mod subscriptions;
mod targets;
mod test_send;
mod usage;
mod withdraw;
mod writing;

use connection::Wal;
use usage::Usage;

/// How a transaction that writes many rows begins.
///
/// What is nearly always so (that events are new, that leases still hold) need not be read first:
/// the writes themselves say whether it was so, by how many rows they changed.
#[derive(Clone, Copy)]
enum Approach {
    /// Takes it for granted. Where it was not so, everything is undone and done again with care.
    Confident,
    /// Reads first.
    Careful,
}

/// A store in one file.
pub struct SqliteStore {
    path: PathBuf,
    /// One connection; whoever wants to write waits for it in line.
    writer: SqlitePool,
    /// Connections that cannot write.
    readers: SqlitePool,
    wal: Wal,
    targets: Mutex<Arc<Targets>>,
    circuit_rules: Rules,
    feed_bell: FeedBell,
    known_projects: KnownProjects,
    outbox: Door,
    output_jobs: JobBell,
    usage: Usage,
    vault: Vault,
    clock: Arc<dyn Clock>,
    closed: CancellationToken,
}

impl SqliteStore {
    /// Opens the file; makes it and its directory, readable by their owner only, where they are
    /// missing. The schema is brought up by [`super::Maintenance::migrate`].
    pub async fn open(
        path: &Path,
        max_readers: u32,
        vault: Vault,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let (writer, readers) = connection::open(path, max_readers).await?;
        Ok(Self {
            path: path.to_owned(),
            writer,
            readers,
            wal: Wal::of(path),
            targets: Mutex::default(),
            circuit_rules: Rules::default(),
            feed_bell: FeedBell::default(),
            known_projects: KnownProjects::default(),
            outbox: Door::default(),
            output_jobs: JobBell::default(),
            usage: Usage::default(),
            vault,
            clock,
            closed: CancellationToken::new(),
        })
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}
