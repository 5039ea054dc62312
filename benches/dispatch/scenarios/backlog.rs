//! Much that waits: a million due deliveries to drain, and a hundred thousand retries due at once
//! while fresh events arrive.

use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};

use super::latency;
use crate::process::resident_mb;
use crate::report::{Cost, Row, median};
use crate::rig::{Database, Rig, Round, Way};
use crate::stock;

const DUE: usize = 1_000_000;
const RETRIES: usize = 100_000;
const DATA_BYTES: usize = 200;
const PATH: &str = "/ok/backlog";

/// Drains a backlog, in turns with events that nothing waits before.
pub(super) async fn drain(name: &str, rig: &mut Rig, database: Database) -> anyhow::Result<Row> {
    let due = rig.scaled(DUE);
    let place = rig.place(database).await?;
    place.subscribe(&rig.url(PATH), "*").await?;
    stock::due(&*place.store, due, DATA_BYTES).await?;

    let mut empty = rig.bench(Way::Direct, database, "/ok/empty").await?;
    let mut without = Vec::new();
    rig.round(&mut empty, rig.scaled(20_000), DATA_BYTES, "/ok/empty", 1)
        .await?;
    let round = rig.round(&mut empty, rig.scaled(200_000), DATA_BYTES, "/ok/empty", 1);
    without.push(round.await?.rate());

    rig.forget()?;
    let begun = SystemClock.monotonic();
    let bench = rig.start(place, Way::Direct, database).await?;
    let before = rig.used_by(&bench);
    let drained = rig.delivered(&bench, before, begun, due, PATH).await?;
    let round = rig.round(&mut empty, rig.scaled(200_000), DATA_BYTES, "/ok/empty", 1);
    without.push(round.await?.rate());

    let row = Row {
        scenario: format!("{name} {database}"),
        data_bytes: DATA_BYTES,
        deliveries_per_second: Some(drained.rate()),
        ratio: Some(drained.rate() / median(&without)),
        compared_with: Some("the rate without it"),
        rss_mb: Some(resident_mb(bench.program.id()).1),
        cost: Some(Cost::of(&[drained])),
        start_ms: Some(bench.program.start.as_secs_f64() * 1_000.0),
        ..Row::default()
    };
    empty.program.stop().await?;
    bench.program.stop().await?;
    Ok(row)
}

/// Fresh events while a storm of retries is worked off.
pub(super) async fn retry_storm(name: &str, rig: &mut Rig) -> anyhow::Result<Vec<Row>> {
    const RATE: u32 = 500;
    let database = Database::Postgres;
    let retries = rig.scaled(RETRIES);
    let place = rig.place(database).await?;
    place.subscribe(&rig.url("/ok/storm"), "*").await?;
    stock::retries(&*place.store, retries, DATA_BYTES).await?;
    // From now on there is a subscription to which the storm is a neighbour.
    place.subscribe(&rig.url("/ok/fresh"), "*").await?;

    rig.forget()?;
    let begun = SystemClock.monotonic();
    let mut bench = rig.start(place, Way::Amqp, database).await?;
    let before = rig.used_by(&bench);
    let duration = rig.scaled_time(Duration::from_secs(30));
    let events = bench.program.feed_at(RATE, duration, DATA_BYTES).await?;
    rig.arrived("/ok/fresh", events).await?;
    let fresh = rig.report("/ok/fresh")?;
    let deliveries = retries + events;
    let storm: Round = rig
        .delivered(&bench, before, begun, deliveries, "/ok/storm")
        .await?;
    let rows = vec![
        Row {
            rss_mb: Some(resident_mb(bench.program.id()).1),
            ..latency::row(format!("{name}: fresh events, {RATE}/s"), &[fresh])
        },
        Row {
            scenario: format!("{name}: {retries} retries, and the fresh ones"),
            data_bytes: DATA_BYTES,
            deliveries_per_second: Some(storm.rate()),
            ..Row::default()
        },
    ];
    bench.program.stop().await?;
    Ok(rows)
}
