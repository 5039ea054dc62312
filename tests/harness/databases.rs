//! A database for each test, of either kind, with two handles on it as two replicas would have.

#![cfg(test)]

use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::ids::{EventId, WorkspaceId};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::postgres::PostgresStore;
use forge_dispatch::store::sqlite::SqliteStore;
use forge_dispatch::store::vault::{MasterKey, Vault};
use forge_dispatch::store::{Result, Store};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row, SqliteConnection};
use tempfile::TempDir;
use uuid::Uuid;

use super::services;

/// The databases that the program knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

/// A fresh, migrated database that one test owns.
pub(crate) struct TestDatabase {
    pub(crate) kind: Kind,
    pub(crate) store: Arc<dyn Store>,
    /// A second handle, as another process has it: it shares nothing with the first in memory.
    pub(crate) replica: Arc<dyn Store>,
    place: Place,
}

enum Place {
    Directory(TempDir),
    Server { admin: String, database: String },
}

/// The master key that every test database is made with: 32 times this byte.
const KEY: u8 = 7;

impl TestDatabase {
    /// Makes a database and brings its schema up.
    pub(crate) async fn new(kind: Kind) -> Self {
        Self::with_clock(kind, Arc::new(SystemClock)).await
    }

    /// The same on a clock of the test's own, which `SQLite` goes by. (Postgres goes by itself.)
    pub(crate) async fn with_clock(kind: Kind, clock: Arc<dyn Clock>) -> Self {
        let place = match kind {
            Kind::Sqlite => Place::Directory(tempfile::tempdir().unwrap()),
            Kind::Postgres => create_database().await,
        };
        let store = open(&place, KEY, &clock).await.unwrap();
        store.migrate().await.unwrap();
        let replica = open(&place, KEY, &clock).await.unwrap();
        Self {
            kind,
            store,
            replica,
            place,
        }
    }

    /// A place for a database, without schema, and a way to open it.
    pub(crate) async fn unmade(kind: Kind) -> Unmade {
        let place = match kind {
            Kind::Sqlite => Place::Directory(tempfile::tempdir().unwrap()),
            Kind::Postgres => create_database().await,
        };
        Unmade(place)
    }

    /// What a configuration would say.
    pub(crate) fn url(&self) -> SecretString {
        SecretString::from(match &self.place {
            Place::Directory(_) => format!("sqlite://{}", self.path().display()),
            Place::Server { admin, database } => url_of(admin, database),
        })
    }

    /// The file of a `SQLite` database.
    pub(crate) fn path(&self) -> PathBuf {
        match &self.place {
            Place::Directory(directory) => file_in(directory),
            Place::Server { .. } => panic!("Postgres has no file"),
        }
    }

    /// One more handle.
    pub(crate) async fn open(&self) -> Arc<dyn Store> {
        self.open_with_key(KEY).await
    }

    /// One more handle, with the master key that holds this byte 32 times.
    pub(crate) async fn open_with_key(&self, byte: u8) -> Arc<dyn Store> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        open(&self.place, byte, &clock).await.unwrap()
    }

    /// The feed of a workspace as it is kept, in order.
    pub(crate) async fn feed(&self, workspace: &WorkspaceId) -> Vec<(i64, EventId)> {
        let rows: Vec<(i64, Uuid)> = match &self.place {
            Place::Directory(_) => sqlx::query_as(
                "select position, event_id from event_feed where workspace = ?1 order by position",
            )
            .bind(workspace.as_str())
            .fetch_all(&mut self.sqlite().await)
            .await
            .unwrap(),
            Place::Server { .. } => sqlx::query_as(
                "select position, event_id from event_feed where workspace = $1 order by position",
            )
            .bind(workspace.as_str())
            .fetch_all(&mut self.postgres().await)
            .await
            .unwrap(),
        };
        rows.into_iter()
            .map(|(position, event)| (position, EventId::from_uuid(event)))
            .collect()
    }

    /// Whether these bytes lie anywhere in what is kept, as they are or in hex.
    pub(crate) async fn holds(&self, needle: &[u8]) -> bool {
        let hex = needle.iter().fold(String::new(), |mut hex, byte| {
            write!(hex, "{byte:02x}").unwrap();
            hex
        });
        match &self.place {
            Place::Directory(directory) => std::fs::read_dir(directory.path())
                .unwrap()
                .map(|file| std::fs::read(file.unwrap().path()).unwrap())
                .any(|bytes| contains(&bytes, needle) || contains(&bytes, hex.as_bytes())),
            Place::Server { .. } => {
                let text = String::from_utf8_lossy(needle).replace('\0', "");
                let mut connection = self.postgres().await;
                let tables: Vec<String> = sqlx::query_scalar(
                    "select tablename::text from pg_tables where schemaname = 'public'",
                )
                .fetch_all(&mut connection)
                .await
                .unwrap();
                for table in tables {
                    let found: bool = sqlx::query(AssertSqlSafe(format!(
                        "select exists (
                            select 1 from {table} as r
                            where position($1 in r::text) > 0 or position($2 in r::text) > 0
                        )"
                    )))
                    .bind(&text)
                    .bind(&hex)
                    .fetch_one(&mut connection)
                    .await
                    .unwrap()
                    .get(0);
                    if found {
                        return true;
                    }
                }
                false
            }
        }
    }

    /// How many rows a table has.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        let sql = AssertSqlSafe(format!("select count(*) from {table}"));
        match &self.place {
            Place::Directory(_) => sqlx::query_scalar(sql)
                .fetch_one(&mut self.sqlite().await)
                .await
                .unwrap(),
            Place::Server { .. } => sqlx::query_scalar(sql)
                .fetch_one(&mut self.postgres().await)
                .await
                .unwrap(),
        }
    }

    /// Changes rows behind the program's back, for what a test cannot wait for or bring about.
    pub(crate) async fn tamper(&self, sql: &str) {
        let sql = AssertSqlSafe(sql.to_owned());
        match &self.place {
            Place::Directory(_) => {
                sqlx::raw_sql(sql)
                    .execute(&mut self.sqlite().await)
                    .await
                    .unwrap();
            }
            Place::Server { .. } => {
                sqlx::raw_sql(sql)
                    .execute(&mut self.postgres().await)
                    .await
                    .unwrap();
            }
        }
    }

    /// Closes both handles and removes the database.
    pub(crate) async fn remove(self) {
        self.store.close().await;
        self.replica.close().await;
        remove(self.place).await;
    }

    async fn sqlite(&self) -> SqliteConnection {
        SqliteConnection::connect(self.url().expose_secret())
            .await
            .unwrap()
    }

    async fn postgres(&self) -> PgConnection {
        PgConnection::connect(self.url().expose_secret())
            .await
            .unwrap()
    }
}

/// A database that nobody has opened yet.
pub(crate) struct Unmade(Place);

impl Unmade {
    /// Opens it, as a process that starts does.
    pub(crate) async fn open(&self) -> Result<Arc<dyn Store>> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        open(&self.0, KEY, &clock).await
    }

    /// Removes it.
    pub(crate) async fn remove(self) {
        remove(self.0).await;
    }
}

async fn open(place: &Place, key: u8, clock: &Arc<dyn Clock>) -> Result<Arc<dyn Store>> {
    let entropy = Entropy::system();
    let key = MasterKey::parse(&STANDARD.encode([key; 32])).unwrap();
    let vault = Vault::new(&key, entropy.clone());
    let clock = Arc::clone(clock);
    Ok(match place {
        Place::Directory(directory) => {
            let path = file_in(directory);
            Arc::new(SqliteStore::open(&path, 4, vault, clock).await?)
        }
        Place::Server { admin, database } => {
            let url = SecretString::from(url_of(admin, database));
            Arc::new(PostgresStore::connect(&url, 5, vault, clock, &entropy)?)
        }
    })
}

async fn create_database() -> Place {
    let admin = services::postgres_url().await;
    let database = format!(
        "test_{}",
        Uuid::from_bytes(Entropy::system().bytes()).simple()
    );
    administer(&admin, &format!("create database {database}")).await;
    Place::Server { admin, database }
}

async fn remove(place: Place) {
    if let Place::Server { admin, database } = place {
        administer(&admin, &format!("drop database {database} with (force)")).await;
    }
}

async fn administer(admin: &str, sql: &str) {
    let mut connection = PgConnection::connect(admin)
        .await
        .unwrap_or_else(|error| panic!("the tests need a Postgres: {error}"));
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

fn url_of(admin: &str, database: &str) -> String {
    let mut url = url::Url::parse(admin).unwrap();
    url.set_path(database);
    url.into()
}

fn file_in(directory: &TempDir) -> PathBuf {
    directory.path().join("forge-dispatch.db")
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}
