//! What both databases must do, in one suite: each scenario is a function over a database, and runs
//! on `SQLite` and on Postgres. A Postgres that is missing fails it; nothing is skipped.
//!
//! Postgres goes by its own clock, so scenarios do not wait for time to pass: leases of no length
//! are over at once, an hour never is.

/// Makes a test of each scenario on `SQLite` alone: edition data is not kept by Postgres yet.
macro_rules! on_sqlite {
    ($($scenario:ident),+ $(,)?) => {$(
        mod $scenario {
            use crate::harness::databases::{Kind, TestDatabase};

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                let database = TestDatabase::new(Kind::Sqlite).await;
                super::$scenario(&database).await;
                database.remove().await;
            }
        }
    )+};
}

mod accept;
mod api_keys;
mod audit;
mod claim;
mod convergence;
mod deliveries_in_reach;
mod editions;
mod event;
mod fixture;
mod headers;
mod idempotency;
mod keys;
mod log;
mod model;
mod orphans;
mod postgres;
mod projection;
mod projects;
mod races;
mod rates;
mod reach;
mod schema;
mod search;
mod settle;
mod snapshots;
mod sqlite;
mod state;
mod stats;
mod subscriptions;
mod text;
