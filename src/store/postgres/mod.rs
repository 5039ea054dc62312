//! Postgres, for many replicas over one database.
//!
//! Times come from the database's clock, since replicas may disagree; batches travel as arrays and
//! `unnest`, so that a batch is a handful of round trips whatever its size. `queue.md`'s lock order
//! holds everywhere: the key of a call that may be repeated → the turns of editions, with what they
//! hold → queue rows that were there before → workspaces → projects → blueprints → the heads of
//! editions → outputs → their jobs and files → event keys → circuits → the subscriptions'
//! generation → subscriptions → the feed → the clock of editions → keys of the outbox, each sorted. (It has the keys
//! first; but of those that an accept writes none were there before, and what it adopts it looks at
//! first; and the jobs that it makes it writes last, of outputs that it holds: nobody else waits for
//! those.) An accept takes no turns: what is written under them takes long, and small events do not
//! wait for large state.
//!
//! - `events`, `known`, `births` and `arrivals`: accept.
//! - `queue`, `floors` and `depth`: due, claim, from when on, how much waits.
//! - `settle` and `endings`: outcomes.
//! - `consequences`: what outcomes mean beyond their deliveries.
//! - `circuits`: receivers that are left alone. `replicas`: how many processes send.
//! - `rollups`: what settles count for statistics.
//! - `subscriptions`, `changes` and `targets`: reading them, registering and changing them, and the
//!   exact copy of them in memory.
//! - `api_keys`, `usage` and `audit`: who may, how often, and who did.
//! - `idempotency`: creating calls and writes that may be repeated.
//! - `log` and `stats`: what came, what was and is delivered, and how it went.
//! - `replays`, `bulk_replay`, `bulk_steps`, `candidates`, `backfill`, `requeue` and `withdraw`: what is sent again because
//!   somebody says so.
//! - `feed`: what came, in the order of the commits.
//! - `projects`: which ones are known.
//! - `snapshots`, `states`, `contents` and `returns`: what the core says of its entities, written;
//!   `projection`: what webhook events change in that. `editions`: reading it, by `structure`, `heads`, `sections`
//!   and `outputs`. `writing`, `drafts` and `edits`: what clients push of it.
//!   `output_jobs`, `answers` and `output_files`: outputs that are asked for, and their files.
//! - `outbox` and `lease`: events of our own on their way out, and who leads in publishing them.
//! - `notices`: telling other processes that there is work, or that a feed moved.
//! - `retention`: removing what is old.
//! - `errors` and `rows`: from the database's words to ours.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretBox, SecretString};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgConnection, PgPool, PgTransaction};

use self::errors::{from_migrate, from_sqlx, within};
use self::floors::Floors;
use self::notices::{Notices, Topic};
use super::circuits::Rules;
use super::feed::FeedBell;
use super::outbox::Door;
use super::output_jobs::JobBell;
use super::projects::KnownProjects;
use super::targets::Targets;
use super::vault::Vault;
use super::{Maintenance, Result, StoreError};
use crate::clock::Clock;
use crate::entropy::Entropy;
use crate::wake::Wake;

mod answers;
mod api_keys;
mod arrivals;
mod audit;
mod backfill;
mod births;
mod bulk_replay;
mod bulk_steps;
mod candidates;
mod changes;
mod circuits;
mod consequences;
mod contents;
mod depth;
mod drafts;
mod editions;
mod edits;
mod endings;
mod errors;
mod events;
mod feed;
mod floors;
mod gates;
mod heads;
mod idempotency;
mod known;
mod lease;
mod log;
mod notices;
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
mod returns;
mod rollups;
mod rows;
mod sections;
mod settle;
mod snapshots;
mod states;
mod stats;
mod structure;
mod subscriptions;
mod targets;
mod test_send;
mod usage;
mod withdraw;
mod writing;

/// The schema, carried by the program.
static MIGRATOR: Migrator = sqlx::migrate!("migrations/postgres");

/// How long a call waits for a connection before the database counts as away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection that lay idle is taken to work still.
const TRUSTED_FOR: Duration = Duration::from_secs(1);

/// How long closing waits for connections that are still in use.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A store on Postgres.
pub struct PostgresStore {
    pool: PgPool,
    /// For the schema: without the deadlines that suit short transactions only.
    patient: PgConnectOptions,
    vault: Vault,
    clock: Arc<dyn Clock>,
    /// All active subscriptions as of some generation; replaced whole.
    targets: RwLock<Arc<Targets>>,
    /// From when on claims look for what is due; replaced whole.
    floors: RwLock<Arc<Floors>>,
    circuit_rules: Rules,
    notices: Notices,
    feed_bell: FeedBell,
    known_projects: KnownProjects,
    outbox: Door,
    output_jobs: JobBell,
}

impl PostgresStore {
    /// Makes the store without touching the network, so that a database that is away at the start
    /// is waited for like one that goes away later. To be called inside a Tokio runtime.
    ///
    /// One connection more than `max_connections` is used while [`Maintenance::listen`] runs.
    pub fn connect(
        url: &SecretString,
        max_connections: u32,
        vault: Vault,
        clock: Arc<dyn Clock>,
        entropy: &Entropy,
    ) -> Result<Self> {
        let patient = address(url)?.options([
            ("statement_timeout", "0"),
            ("lock_timeout", "0"),
            ("idle_in_transaction_session_timeout", "0"),
        ]);
        let hasty = address(url)?.options([
            // A process that was stopped in the middle of a transaction must not block the others.
            ("idle_in_transaction_session_timeout", "5s"),
            ("lock_timeout", "3s"),
            // What nobody waits for any more must not run on: a caller gives up after as long.
            ("statement_timeout", "30s"),
            // A plan made while the tables were small would be kept when they are large.
            ("plan_cache_mode", "force_custom_plan"),
            // Every statement walks an index in its order or looks rows up; before the first analyze
            // the planner would rather gather a whole backlog and sort it.
            ("enable_bitmapscan", "off"),
            // For the same reason. The queue is never joined with a batch: its rows are looked up one
            // by one (`limit 1` in a lateral keeps the planner to it) and changed where they were found.
            ("enable_seqscan", "off"),
            ("enable_mergejoin", "off"),
            // Compiling a statement takes longer than any of ours runs.
            ("jit", "off"),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(max_connections.max(1))
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // A round trip before every transaction would be one in five. A connection that was used
            // a moment ago and broke since then fails the call as one that breaks in the middle does.
            .test_before_acquire(false)
            .before_acquire(|connection, of| {
                Box::pin(async move {
                    if of.idle_for > TRUSTED_FOR {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(hasty.clone());
        let notices = Notices::start(pool.clone(), hasty, entropy);
        Ok(Self {
            pool,
            patient,
            vault,
            clock,
            targets: RwLock::default(),
            floors: RwLock::default(),
            circuit_rules: Rules::default(),
            notices,
            feed_bell: FeedBell::default(),
            known_projects: KnownProjects::default(),
            outbox: Door::default(),
            output_jobs: JobBell::default(),
        })
    }

    async fn begin(&self) -> Result<PgTransaction<'static>> {
        self.begin_as("begin").await
    }

    /// A transaction that changes nothing and sees one state from its first statement to its end,
    /// which is when it is dropped.
    async fn read(&self) -> Result<PgTransaction<'static>> {
        self.begin_as("begin transaction isolation level repeatable read, read only")
            .await
    }

    /// Begins a transaction in a task of its own, which goes on when its caller is dropped. A begin
    /// that is dropped in the middle is forgotten by the driver: the connection would go back to the
    /// pool inside of a transaction that nobody ends, and take what comes next with it. One that has
    /// begun for nobody is undone.
    async fn begin_as(&self, statement: &'static str) -> Result<PgTransaction<'static>> {
        let pool = self.pool.clone();
        let begun = tokio::spawn(async move { pool.begin_with(statement).await });
        begun
            .await
            .unwrap_or_else(|died| Err(sqlx::Error::Io(std::io::Error::other(died))))
            .map_err(from_sqlx)
    }

    async fn connection(&self) -> Result<sqlx::pool::PoolConnection<sqlx::Postgres>> {
        self.pool.acquire().await.map_err(from_sqlx)
    }
}

/// Reads the URL. What is wrong with it is not repeated: a mistyped URL may show its password in
/// any of its parts.
fn address(url: &SecretString) -> Result<PgConnectOptions> {
    PgConnectOptions::from_str(url.expose_secret())
        .map(|options| options.application_name("forge-dispatch"))
        .map_err(|_| {
            StoreError::Configuration(
                "the database URL cannot be read: it must look like \
                 postgres://USER:PASSWORD@HOST:PORT/DATABASE, with special characters in percent \
                 encoding"
                    .to_owned(),
            )
        })
}

/// Ends a transaction.
async fn commit(tx: PgTransaction<'_>) -> Result<()> {
    tx.commit().await.map_err(from_sqlx)
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore").finish_non_exhaustive()
    }
}

#[async_trait]
impl Maintenance for PostgresStore {
    fn kind(&self) -> &'static str {
        "postgres"
    }

    fn derive_key(&self, purpose: &str) -> SecretBox<[u8; 32]> {
        self.vault.derive(purpose)
    }

    async fn migrate(&self) -> Result<()> {
        // The migrator waits for its lock as long as another replica migrates; the lock belongs to
        // the connection and ends with it, however this ends.
        let mut connection = within(ACQUIRE_TIMEOUT, async {
            PgConnection::connect_with(&self.patient)
                .await
                .map_err(from_sqlx)
        })
        .await?;
        MIGRATOR
            .run_direct(None, &mut connection, false)
            .await
            .map_err(from_migrate)?;
        self.check_master_key(&mut connection).await?;
        connection.close().await.map_err(from_sqlx)
    }

    async fn ready(&self) -> Result<()> {
        let applied = within(ACQUIRE_TIMEOUT, async {
            sqlx::query_as::<_, (i64, Vec<u8>)>(
                "-- postgres::ready
                select version, checksum
                from _sqlx_migrations
                where success
                order by version",
            )
            .fetch_all(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await;
        let applied = match applied {
            Err(StoreError::Schema(_)) => {
                let missing = "there is none yet; run `forge-dispatch migrate`";
                return Err(StoreError::Schema(missing.to_owned()));
            }
            other => other?,
        };
        let known = MIGRATOR
            .iter()
            .map(|migration| (migration.version, migration.checksum.to_vec()));
        if known.eq(applied) {
            Ok(())
        } else {
            Err(StoreError::Schema(
                "is of another version of this program".to_owned(),
            ))
        }
    }

    async fn listen(&self, wake: Arc<Wake>) {
        self.notices.listen(&wake, &self.feed_bell).await;
    }

    fn announce(&self) {
        self.notices.announce(Topic::Work);
    }

    async fn close(&self) {
        let closed = async {
            self.notices.close().await;
            self.pool.close().await;
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, closed).await.is_err() {
            tracing::warn!("closing the database: connections still in use were left behind");
        }
    }
}

impl PostgresStore {
    /// Keeps a check value where there is none yet, and holds our key against the one that is kept:
    /// of two processes that start at once, both see the value of the first.
    async fn check_master_key(&self, connection: &mut PgConnection) -> Result<()> {
        sqlx::query(
            "-- postgres::check_master_key (keep)
            insert into master_key_check (value)
            values ($1)
            on conflict do nothing",
        )
        .bind(self.vault.check_value()?)
        .execute(&mut *connection)
        .await
        .map_err(from_sqlx)?;
        let kept: Vec<u8> = sqlx::query_scalar(
            "-- postgres::check_master_key (read)
            select value from master_key_check",
        )
        .fetch_one(connection)
        .await
        .map_err(from_sqlx)?;
        self.vault.check(&kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_refused_without_being_repeated() {
        for url in [
            "postgres://forge:hunter2hunter2@host:port/db",
            "postgres://forge:hunter2?sslmode=hunter2@host/db",
            "postgres://host/db?sslmode=hunter2",
            "hunter2",
        ] {
            let error = address(&SecretString::from(url)).unwrap_err();
            assert!(matches!(error, StoreError::Configuration(_)));
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{url}");
        }
    }
}
