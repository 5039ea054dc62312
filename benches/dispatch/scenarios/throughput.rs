//! How many deliveries per second, from the publication of the first event to the settling of the
//! last, in turns with the limit.

use crate::process::resident_mb;
use crate::report::{Cost, Row, median, range};
use crate::rig::{Database, Rig, Round, Way};

/// The sizes of `data` that are measured, and how many events of each make a round.
const SIZES: [(usize, usize); 2] = [(200, 100_000), (10_000, 20_000)];

/// Where the events go.
const PATH: &str = "/ok/one";

fn sizes(rig: &Rig) -> Vec<(usize, usize)> {
    let mut sizes = SIZES.to_vec();
    sizes.retain(|(data_bytes, _)| rig.measures(*data_bytes));
    sizes
}

/// The limit alone.
pub(super) fn raw(name: &str, rig: &mut Rig) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (data_bytes, _) in sizes(rig) {
        let rates = (0..rig.rounds)
            .map(|_| rig.raw(data_bytes))
            .collect::<anyhow::Result<Vec<f64>>>()?;
        rows.push(Row {
            scenario: name.to_owned(),
            data_bytes,
            deliveries_per_second: Some(median(&rates)),
            raw_per_second: Some(median(&rates)),
            ratio: Some(1.0),
            ..Row::default()
        });
    }
    Ok(rows)
}

/// One subscription, one receiver, as fast as it goes.
pub(super) async fn run(
    name: &str,
    rig: &mut Rig,
    way: Way,
    database: Database,
) -> anyhow::Result<Vec<Row>> {
    let mut bench = rig.bench(way, database, PATH).await?;
    let mut rows = Vec::new();
    for (data_bytes, events) in sizes(rig) {
        let events = rig.scaled(events);
        // Connections, caches and the broker's window are as they are after a minute of work.
        rig.round(&mut bench, events / 5, data_bytes, PATH, 1)
            .await?;
        let (mut limits, mut rounds, mut ratios) = (Vec::new(), Vec::<Round>::new(), Vec::new());
        for _ in 0..rig.rounds {
            let raw = rig.raw(data_bytes)?;
            let round = rig.round(&mut bench, events, data_bytes, PATH, 1).await?;
            ratios.push(round.rate() / raw);
            limits.push(raw);
            rounds.push(round);
        }
        let rates: Vec<f64> = rounds.iter().map(Round::rate).collect();
        rows.push(Row {
            scenario: name.to_owned(),
            data_bytes,
            deliveries_per_second: Some(median(&rates)),
            raw_per_second: Some(median(&limits)),
            ratio: Some(median(&ratios)),
            ratio_range: Some(range(&ratios)),
            compared_with: Some("raw"),
            rss_mb: Some(resident_mb(bench.program.id()).1),
            cost: Some(Cost::of(&rounds)),
            ..Row::default()
        });
    }
    bench.program.stop().await?;
    Ok(rows)
}
