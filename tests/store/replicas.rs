//! How many processes send.

use std::time::Duration;

use forge_dispatch::store::Leasing;

use super::fixture::{HOUR, owner};
use crate::harness::databases::{Kind, TestDatabase};

on_both_databases!(
    those_that_send_are_counted_until_they_leave,
    one_that_died_is_counted_no_more_when_its_time_is_over,
);

/// How many there are at most: one process serves a file.
fn counted(db: &TestDatabase, replicas: u32) -> u32 {
    match db.kind {
        Kind::Sqlite => 1,
        Kind::Postgres => replicas,
    }
}

async fn those_that_send_are_counted_until_they_leave(db: &TestDatabase) {
    let [first, second] = [owner(), owner()].map(|owner| Leasing { owner, lease: HOUR });
    assert_eq!(db.store.beat(first).await.unwrap().get(), 1);
    assert_eq!(db.replica.beat(second).await.unwrap().get(), counted(db, 2));
    assert_eq!(db.store.beat(first).await.unwrap().get(), counted(db, 2));
    db.replica.leave(second.owner).await.unwrap();
    db.replica.leave(second.owner).await.unwrap();
    assert_eq!(db.store.beat(first).await.unwrap().get(), 1);
}

async fn one_that_died_is_counted_no_more_when_its_time_is_over(db: &TestDatabase) {
    let dead = Leasing {
        owner: owner(),
        lease: Duration::ZERO,
    };
    assert_eq!(db.store.beat(dead).await.unwrap().get(), 1);
    let alive = Leasing {
        owner: owner(),
        lease: HOUR,
    };
    assert_eq!(db.replica.beat(alive).await.unwrap().get(), 1);
    assert_eq!(db.count("replica").await, i64::from(counted(db, 2)) - 1);
}
