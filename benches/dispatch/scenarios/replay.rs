//! A million deliveries that failed for good, replayed by filter: how fast, in how much memory.

use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::audit::Act;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::domain::reach::Reach;
use forge_dispatch::domain::selection::{MAX_RATE, ReplayState, Selection};
use forge_dispatch::entropy::Entropy;
use forge_dispatch::store::NewReplay;

use crate::process::resident_mb;
use crate::program::until;
use crate::report::{Cost, Row};
use crate::rig::{Database, Rig, Way};
use crate::stock;

const FAILED: usize = 1_000_000;
const DATA_BYTES: usize = 200;
const PATH: &str = "/ok/replay";

pub(super) async fn run(name: &str, rig: &mut Rig, database: Database) -> anyhow::Result<Row> {
    let failed = rig.scaled(FAILED);
    let place = rig.place(database).await?;
    place.subscribe(&rig.url(PATH), "*").await?;
    stock::failed(&*place.store, failed, DATA_BYTES).await?;
    let (entropy, now) = (Entropy::system(), SystemClock.now());
    let replay = NewReplay {
        id: entropy.id(now),
        selection: Selection::default(),
        rate: MAX_RATE,
    };
    let reach = Reach::all(&WorkspaceId::default());
    let act = Act::on_command_line(entropy.id(now));
    let begun = place.store.create_replay(&reach, &replay, &act, None);
    anyhow::ensure!(begun.await?.is_some(), "the replay is begun");

    rig.forget()?;
    let begun = SystemClock.monotonic();
    let bench = rig.start(place, Way::Direct, database).await?;
    let before = rig.used_by(&bench);
    let sent = rig.delivered(&bench, before, begun, failed, PATH).await?;
    let (everything, store) = (Reach::all(&WorkspaceId::default()), &bench.program.store);
    until(Duration::from_mins(1), "the replay is done", async || {
        let found = store.replay(&everything, replay.id).await?;
        Ok(found.is_some_and(|it| it.state == ReplayState::Done && it.done == failed as u64))
    })
    .await?;
    let row = Row {
        scenario: format!("{name} {database}, {MAX_RATE}/s at most"),
        data_bytes: DATA_BYTES,
        deliveries_per_second: Some(sent.rate()),
        rss_mb: Some(resident_mb(bench.program.id()).1),
        cost: Some(Cost::of(&[sent])),
        ..Row::default()
    };
    bench.program.stop().await?;
    Ok(row)
}
