//! A gate in a table of a Postgres, so that a test can look around in the middle of a transaction.

use std::time::Duration;

use secrecy::ExposeSecret;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::databases::TestDatabase;

/// How long a test waits for others to come to the gate.
const PATIENCE: Duration = Duration::from_secs(20);

/// What is done to the rows of a table waits, while this is shut: from the start on, until it opens or
/// is dropped.
pub(crate) struct Gate(PgConnection);

impl Gate {
    /// Stands before, say, `delete on outbox`. Who waits there gives up after `lock_timeout`, which is
    /// written as Postgres reads it; `0` is never.
    pub(crate) async fn before(db: &TestDatabase, what: &str, lock_timeout: &str) -> Self {
        db.tamper(&format!(
            "create function wait_for_the_test() returns trigger language plpgsql
             set lock_timeout = '{lock_timeout}' as
             'begin perform pg_advisory_xact_lock(4711); return coalesce(new, old); end';
             create trigger wait_for_the_test before {what}
             for each row execute function wait_for_the_test()",
        ))
        .await;
        let url = db.url();
        let connection = PgConnection::connect(url.expose_secret()).await.unwrap();
        let mut gate = Self(connection);
        gate.shut().await;
        gate
    }

    pub(crate) async fn shut(&mut self) {
        self.run("select pg_advisory_lock(4711)").await;
    }

    pub(crate) async fn open(&mut self) {
        self.run("select pg_advisory_unlock(4711)").await;
    }

    async fn run(&mut self, sql: &'static str) {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut self.0)
            .await
            .unwrap();
    }

    /// Waits until so many wait in this database, here or behind those who do.
    pub(crate) async fn until_waiting(&mut self, count: i64) {
        let waiting = async {
            let mut interval = tokio::time::interval(Duration::from_millis(20));
            while self.waiting().await != count {
                interval.tick().await;
            }
        };
        let seen = tokio::time::timeout(PATIENCE, waiting).await;
        assert!(seen.is_ok(), "never did {count} wait");
    }

    async fn waiting(&mut self) -> i64 {
        sqlx::query_scalar(
            "select count(*) from pg_locks
             where not granted
               and database = (select oid from pg_database where datname = current_database())",
        )
        .fetch_one(&mut self.0)
        .await
        .unwrap()
    }
}
