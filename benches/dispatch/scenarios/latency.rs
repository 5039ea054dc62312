//! From the publication of an event to its receipt, over RabbitMQ and Postgres: at steady rates, and
//! with a neighbour that hangs.

use std::time::Duration;

use crate::process::resident_mb;
use crate::receiver::Seen;
use crate::report::{Row, median, range};
use crate::rig::{Bench, Database, Rig, Way};
use crate::stock;

const DATA_BYTES: usize = 200;
const PATH: &str = "/ok/prompt";
const WARM_UP: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(20);

/// One subscription at each rate.
pub(super) async fn rates(name: &str, rig: &mut Rig, rates: &[u32]) -> anyhow::Result<Vec<Row>> {
    let mut bench = rig.bench(Way::Amqp, Database::Postgres, PATH).await?;
    let mut rows = Vec::new();
    for rate in rates {
        let mut seen = Vec::new();
        for _ in 0..rig.rounds {
            seen.push(measure(rig, &mut bench, *rate).await?);
        }
        rows.push(Row {
            rss_mb: Some(resident_mb(bench.program.id()).1),
            ..row(format!("{name} {rate}/s"), &seen)
        });
    }
    bench.program.stop().await?;
    Ok(rows)
}

/// The same events with and without a second subscription that never answers, and for which many wait.
pub(super) async fn neighbour(name: &str, rig: &mut Rig) -> anyhow::Result<Vec<Row>> {
    const RATE: u32 = 500;
    const DUE: usize = 20_000;
    let database = Database::Postgres;
    let mut alone = rig.bench(Way::Amqp, database, PATH).await?;
    let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let mut resident = Vec::new();
    for _ in 0..rig.rounds {
        let quiet = measure(rig, &mut alone, RATE).await?;
        // Anew in each round: what hangs would be tried again while the others are measured alone.
        let mut place = rig.place(database).await?;
        // It hangs all the time: left alone after its first failures, it would be nobody's neighbour.
        place.without_circuits();
        place.subscribe(&rig.url("/hang/neighbour"), "*").await?;
        stock::due(&*place.store, rig.scaled(DUE), DATA_BYTES).await?;
        place.subscribe(&rig.url(PATH), "*").await?;
        let mut beside = rig.start(place, Way::Amqp, database).await?;
        let loud = measure(rig, &mut beside, RATE).await?;
        resident.push(resident_mb(beside.program.id()).1);
        // Not stopped in good order: what hangs would hold that up to its deadline.
        drop(beside);
        ratios.push(loud.p99_ms / quiet.p99_ms);
        without.push(quiet);
        with.push(loud);
    }
    let rows = vec![
        row(format!("{name}: without, {RATE}/s"), &without),
        Row {
            ratio: Some(median(&ratios)),
            ratio_range: Some(range(&ratios)),
            compared_with: Some("the p99 without"),
            rss_mb: Some(median(&resident)),
            ..row(format!("{name}: with, {RATE}/s"), &with)
        },
    ];
    alone.program.stop().await?;
    Ok(rows)
}

async fn measure(rig: &mut Rig, bench: &mut Bench, rate: u32) -> anyhow::Result<Seen> {
    for duration in [WARM_UP, rig.scaled_time(MEASURED)] {
        rig.forget()?;
        let events = bench.program.feed_at(rate, duration, DATA_BYTES).await?;
        rig.arrived(PATH, events).await?;
    }
    rig.report(PATH)
}

/// The medians of each figure.
pub(super) fn row(scenario: String, seen: &[Seen]) -> Row {
    let of = |figure: fn(&Seen) -> f64| {
        let figures: Vec<f64> = seen.iter().map(figure).collect();
        Some(median(&figures))
    };
    Row {
        scenario,
        data_bytes: DATA_BYTES,
        p50_ms: of(|seen| seen.p50_ms),
        p95_ms: of(|seen| seen.p95_ms),
        p99_ms: of(|seen| seen.p99_ms),
        p999_ms: of(|seen| seen.p999_ms),
        ..Row::default()
    }
}
