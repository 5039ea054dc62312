//! What the program costs when nothing happens.

use std::time::Duration;

use forge_dispatch::clock::pause;

use crate::process::{Usage, resident_mb};
use crate::report::Row;
use crate::rig::{Database, Rig, Way};

const SETTLING: Duration = Duration::from_secs(3);
const MEASURED: Duration = Duration::from_secs(20);

pub(super) async fn run(
    name: &str,
    rig: &mut Rig,
    way: Way,
    database: Database,
) -> anyhow::Result<Row> {
    let bench = rig.bench(way, database, "/ok/idle").await?;
    let id = bench.program.id();
    pause(SETTLING).await;
    let before = Usage::of_tree(id);
    pause(MEASURED).await;
    let used = Usage::of_tree(id) - before;
    let row = Row {
        scenario: name.to_owned(),
        rss_mb: Some(resident_mb(id).0),
        cpu_percent: Some(100.0 * used.cpu_secs / MEASURED.as_secs_f64()),
        start_ms: Some(bench.program.start.as_secs_f64() * 1_000.0),
        ..Row::default()
    };
    bench.program.stop().await?;
    Ok(row)
}
