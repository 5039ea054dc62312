//! 20,000 rows, put over HTTP into an edition that has none, and then instead of those: as JSON and as
//! CSV. From the request to the last byte of its answer.

use std::time::Duration;

use anyhow::Context;
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::api_key::Scope;

use crate::keys::{client, key};
use crate::process::resident_mb;
use crate::program::Program;
use crate::report::{Row, percentile_ms};
use crate::rig::{Database, Rig, Way};
use crate::sheet;

const ROWS: usize = 20_000;
const CSV: &str = "text/csv";
const FORMS: [&str; 2] = ["application/json", CSV];

pub(super) async fn run(name: &str, rig: &mut Rig, database: Database) -> anyhow::Result<Vec<Row>> {
    let place = rig.place(database).await?;
    let key = key(&*place.store, &[Scope::WriteEditions]).await;
    let mut told = vec![sheet::blueprint()];
    let editions: Vec<String> = (0..rig.rounds).map(|round| format!("ed_{round}")).collect();
    told.extend(editions.iter().map(|id| sheet::draft(id)));
    told.extend(editions.iter().map(|id| sheet::draft(&of_csv(id))));
    place.store.apply(&told).await?;
    let bench = rig.start(place, Way::Amqp, database).await?;
    let client = client(&key);
    let mut rows = Vec::new();
    for form in FORMS {
        let (mut new, mut changed) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        for id in &editions {
            for (word, took) in [("Steel", &mut new), ("Glass", &mut changed)] {
                let (edition, body) = if form == CSV {
                    (of_csv(id), sheet::csv(ROWS, word))
                } else {
                    let rows = sheet::json_rows(ROWS, word);
                    (id.clone(), format!(r#"{{"rows":[{rows}]}}"#))
                };
                bytes = body.len();
                took.push(put(&client, &bench.program, &edition, form, body).await?);
            }
        }
        for (what, took) in [("new", new), ("each changed", changed)] {
            rows.push(Row {
                scenario: format!("{name} {database}, {form}: {what}"),
                data_bytes: bytes,
                p50_ms: percentile_ms(&took, 0.5),
                rss_mb: Some(resident_mb(bench.program.id()).1),
                ..Row::default()
            });
        }
    }
    bench.program.stop().await?;
    Ok(rows)
}

fn of_csv(edition: &str) -> String {
    format!("{edition}_csv")
}

async fn put(
    client: &reqwest::Client,
    program: &Program,
    edition: &str,
    form: &str,
    body: String,
) -> anyhow::Result<Duration> {
    let url = format!("https://{}{}", program.api, sheet::path(edition));
    let request = client.put(url).header("content-type", form).body(body);
    let begun = SystemClock.monotonic();
    let answer = request.send().await.context("a put")?;
    let status = answer.status();
    let receipt = answer.bytes().await?;
    anyhow::ensure!(status.is_success(), "{status}: {receipt:?}");
    Ok(SystemClock.monotonic().saturating_sub(begun))
}
