//! Rollups that fell behind.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::config::Retention;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::maintenance::Pace;

use super::rig::{BUSY, Keeper, PATIENCE, deliver};
use crate::harness::databases::TestDatabase;
use crate::harness::events::{register, registration, spec};
use crate::harness::eventually;
use crate::harness::rollups::wait_to_be_folded;

on_both_databases!(what_waits_is_folded_step_by_step_without_a_wait_between);

async fn what_waits_is_folded_step_by_step_without_a_wait_between(db: &TestDatabase) {
    let new = registration(&WorkspaceId::default(), spec(&["*"]));
    register(&*db.store, &new).await.unwrap();
    deliver(&db.store, 1, SystemClock.now()).await;
    wait_to_be_folded(db, 500).await;
    let pace = Pace {
        fold_every: Duration::from_hours(1),
        fold_step: 40,
        ..BUSY
    };
    let settings = Retention::default();
    let keeper = Keeper::start(&db.store, Arc::new(SystemClock), settings, pace);
    eventually(PATIENCE, "all is folded", async || {
        db.count("rollup_delta").await == 0
    })
    .await;
    keeper.stop().await;
    let told = "rollup where succeeded = 500";
    assert_eq!(db.count(told).await, 2, "a minute and an hour");
}
