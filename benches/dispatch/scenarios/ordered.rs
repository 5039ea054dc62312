//! Order per edition: events of many editions, and of one alone, beside the same without order.

use crate::process::resident_mb;
use crate::report::{Cost, Row, median, range};
use crate::rig::{Database, Rig, Round, Way};

const DATA_BYTES: usize = 200;
const PATH: &str = "/ok/ordered";
const FREE: &str = "/ok/one";

/// Over so many editions, so many events.
const SPREADS: [(usize, usize); 2] = [(1_000, 50_000), (1, 500)];

pub(super) async fn run(name: &str, rig: &mut Rig, database: Database) -> anyhow::Result<Vec<Row>> {
    let mut free = rig.bench(Way::Direct, database, FREE).await?;
    let place = rig.place(database).await?;
    place.subscribe_in_order(&rig.url(PATH), "*").await?;
    let mut ordered = rig.start(place, Way::Direct, database).await?;
    let mut rows = Vec::new();
    for (editions, events) in SPREADS {
        let events = rig.scaled(events);
        ordered.program.editions = editions;
        rig.round(&mut free, events / 5, DATA_BYTES, FREE, 1)
            .await?;
        rig.round(&mut ordered, events / 5, DATA_BYTES, PATH, 1)
            .await?;
        let (mut rounds, mut ratios) = (Vec::<Round>::new(), Vec::new());
        for _ in 0..rig.rounds {
            let alone = rig.round(&mut free, events, DATA_BYTES, FREE, 1).await?;
            let round = rig.round(&mut ordered, events, DATA_BYTES, PATH, 1).await?;
            ratios.push(round.rate() / alone.rate());
            rounds.push(round);
        }
        let rates: Vec<f64> = rounds.iter().map(Round::rate).collect();
        rows.push(Row {
            scenario: format!("{name} {database} {editions}"),
            data_bytes: DATA_BYTES,
            deliveries_per_second: Some(median(&rates)),
            ratio: Some(median(&ratios)),
            ratio_range: Some(range(&ratios)),
            compared_with: Some("without order"),
            rss_mb: Some(resident_mb(ordered.program.id()).1),
            cost: Some(Cost::of(&rounds)),
            ..Row::default()
        });
    }
    free.program.stop().await?;
    ordered.program.stop().await?;
    Ok(rows)
}
