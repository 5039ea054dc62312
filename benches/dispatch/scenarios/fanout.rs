//! One event to a thousand subscriptions, beside events to one.

use crate::process::resident_mb;
use crate::report::{Cost, Row, median, range};
use crate::rig::{Database, Rig, Round, Way};

const SUBSCRIPTIONS: usize = 1_000;
const EVENTS: usize = 100;
const DATA_BYTES: usize = 200;

pub(super) async fn run(name: &str, rig: &mut Rig, database: Database) -> anyhow::Result<Row> {
    let mut one = rig.bench(Way::Direct, database, "/ok/one").await?;
    let place = rig.place(database).await?;
    for _ in 0..SUBSCRIPTIONS {
        place.subscribe(&rig.url("/ok/many"), "*").await?;
    }
    let mut many = rig.start(place, Way::Direct, database).await?;
    let events = rig.scaled(EVENTS);
    rig.round(
        &mut one,
        events * SUBSCRIPTIONS / 5,
        DATA_BYTES,
        "/ok/one",
        1,
    )
    .await?;
    rig.round(&mut many, events / 5, DATA_BYTES, "/ok/many", SUBSCRIPTIONS)
        .await?;
    let (mut rounds, mut ratios) = (Vec::new(), Vec::new());
    for _ in 0..rig.rounds {
        let alone = rig
            .round(&mut one, events * SUBSCRIPTIONS, DATA_BYTES, "/ok/one", 1)
            .await?;
        let round = rig
            .round(&mut many, events, DATA_BYTES, "/ok/many", SUBSCRIPTIONS)
            .await?;
        ratios.push(round.rate() / alone.rate());
        rounds.push(round);
    }
    let rates: Vec<f64> = rounds.iter().map(Round::rate).collect();
    let row = Row {
        scenario: format!("{name} {database}"),
        data_bytes: DATA_BYTES,
        deliveries_per_second: Some(median(&rates)),
        ratio: Some(median(&ratios)),
        ratio_range: Some(range(&ratios)),
        compared_with: Some("one subscription"),
        rss_mb: Some(resident_mb(many.program.id()).1),
        cost: Some(Cost::of(&rounds)),
        ..Row::default()
    };
    one.program.stop().await?;
    many.program.stop().await?;
    Ok(row)
}
