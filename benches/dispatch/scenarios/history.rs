//! Five million settled deliveries that are kept: what they cost the next one, and a start.

use crate::process::resident_mb;
use crate::report::{Cost, Row, median, range};
use crate::rig::{Database, Rig, Round, Way};
use crate::stock;

const SETTLED: usize = 5_000_000;
const EVENTS: usize = 100_000;
const DATA_BYTES: usize = 200;

pub(super) async fn run(name: &str, rig: &mut Rig, database: Database) -> anyhow::Result<Row> {
    let place = rig.place(database).await?;
    place.subscribe(&rig.url("/ok/old"), "*").await?;
    stock::history(&*place.store, rig.scaled(SETTLED), DATA_BYTES).await?;
    let mut old = rig.start(place, Way::Direct, database).await?;
    let mut new = rig.bench(Way::Direct, database, "/ok/new").await?;

    let events = rig.scaled(EVENTS);
    rig.round(&mut new, events / 5, DATA_BYTES, "/ok/new", 1)
        .await?;
    rig.round(&mut old, events / 5, DATA_BYTES, "/ok/old", 1)
        .await?;
    let (mut rounds, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..rig.rounds {
        let without = rig
            .round(&mut new, events, DATA_BYTES, "/ok/new", 1)
            .await?;
        let with = rig
            .round(&mut old, events, DATA_BYTES, "/ok/old", 1)
            .await?;
        ratios.push(with.rate() / without.rate());
        rounds.push(with);
    }
    let rates: Vec<f64> = rounds.iter().map(Round::rate).collect();
    let row = Row {
        scenario: format!("{name} {database}"),
        data_bytes: DATA_BYTES,
        deliveries_per_second: Some(median(&rates)),
        ratio: Some(median(&ratios)),
        ratio_range: Some(range(&ratios)),
        compared_with: Some("the rate without it"),
        rss_mb: Some(resident_mb(old.program.id()).1),
        cost: Some(Cost::of(&rounds)),
        start_ms: Some(old.program.start.as_secs_f64() * 1_000.0),
        ..Row::default()
    };
    new.program.stop().await?;
    old.program.stop().await?;
    Ok(row)
}
