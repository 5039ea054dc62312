//! What the tests stand on: real servers, started and ended by the tests themselves.

/// Makes two tests of each scenario, one on a fresh database of either kind.
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

pub(crate) mod collector;
pub(crate) mod databases;
pub(crate) mod events;
pub(crate) mod flow;
pub(crate) mod gate;
pub(crate) mod keys;
pub(crate) mod pollers;
pub(crate) mod program;
pub(crate) mod proxy;
pub(crate) mod publisher;
pub(crate) mod queues;
pub(crate) mod receiver;
pub(crate) mod rollups;
pub(crate) mod services;
mod services_tests;
pub(crate) mod sheet;
pub(crate) mod simple;
pub(crate) mod sums;

use std::time::Duration;

/// Looks every few milliseconds until the condition holds; panics, saying what was waited for,
/// when the deadline has passed.
pub(crate) async fn eventually(deadline: Duration, what: &str, condition: impl AsyncFn() -> bool) {
    let look = async {
        let mut interval = tokio::time::interval(Duration::from_millis(20));
        while !condition().await {
            interval.tick().await;
        }
    };
    let met = tokio::time::timeout(deadline, look).await;
    assert!(met.is_ok(), "not within {deadline:?}: {what}");
}
