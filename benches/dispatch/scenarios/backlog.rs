//! Much that waits: a million due deliveries to drain, and a hundred thousand retries due at once
//! while fresh events arrive.

use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};

use super::latency;
use crate::process::resident_mb;
use crate::report::{Cost, Row, median, range};
use crate::rig::{Database, Rig, Round, Way};
use crate::stock;

const DUE: usize = 1_000_000;
const RETRIES: usize = 100_000;
const DATA_BYTES: usize = 200;
const PATH: &str = "/ok/backlog";

/// Drains a backlog, in turns with events that nothing waits before.
pub(super) async fn drain(name: &str, rig: &mut Rig, database: Database) -> anyhow::Result<Row> {
    let due = rig.scaled(DUE);
    let mut empty = rig.bench(Way::Direct, database, "/ok/empty").await?;
    rig.round(&mut empty, rig.scaled(20_000), DATA_BYTES, "/ok/empty", 1)
        .await?;
    let (mut drains, mut ratios) = (Vec::new(), Vec::new());
    let (mut resident, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..rig.rounds {
        let place = rig.place(database).await?;
        place.subscribe(&rig.url(PATH), "*").await?;
        stock::due(&*place.store, due, DATA_BYTES).await?;
        // Before and after, since a drain takes half a minute of a machine that changes its speed.
        let mut without = Vec::new();
        let events = rig.scaled(100_000);
        let round = rig.round(&mut empty, events, DATA_BYTES, "/ok/empty", 1);
        without.push(round.await?.rate());

        rig.forget()?;
        let begun = SystemClock.monotonic();
        let bench = rig.start(place, Way::Direct, database).await?;
        let before = rig.used_by(&bench);
        let drained = rig.delivered(&bench, before, begun, due, PATH).await?;
        resident.push(resident_mb(bench.program.id()).1);
        starts.push(bench.program.start.as_secs_f64() * 1_000.0);
        bench.program.stop().await?;

        let round = rig.round(&mut empty, events, DATA_BYTES, "/ok/empty", 1);
        without.push(round.await?.rate());
        ratios.push(drained.rate() / median(&without));
        drains.push(drained);
    }
    empty.program.stop().await?;
    let rates: Vec<f64> = drains.iter().map(Round::rate).collect();
    Ok(Row {
        scenario: format!("{name} {database}"),
        data_bytes: DATA_BYTES,
        deliveries_per_second: Some(median(&rates)),
        ratio: Some(median(&ratios)),
        ratio_range: Some(range(&ratios)),
        compared_with: Some("the rate without it"),
        rss_mb: Some(resident.iter().copied().fold(0.0, f64::max)),
        cost: Some(Cost::of(&drains)),
        start_ms: Some(median(&starts)),
        ..Row::default()
    })
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
