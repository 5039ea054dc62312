//! What both databases must do, in one suite: each scenario is a function over a database, and runs
//! on `SQLite` and on Postgres. A Postgres that is missing fails it; nothing is skipped.
//!
//! Postgres goes by its own clock, so scenarios do not wait for time to pass: leases of no length
//! are over at once, an hour never is.

#![cfg(test)]

/// Runs each scenario on a fresh database of either kind.
macro_rules! on_both_databases {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            use crate::harness::databases::{Kind, TestDatabase};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                let database = TestDatabase::new(Kind::Sqlite).await;
                super::$scenario(&database).await;
                database.remove().await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                let database = TestDatabase::new(Kind::Postgres).await;
                super::$scenario(&database).await;
                database.remove().await;
            }
        }
    )+};
}

mod accept;
mod claim;
mod fixture;
mod keys;
mod log;
mod model;
mod orphans;
mod schema;
mod settle;
mod sqlite;
mod subscriptions;
mod text;
