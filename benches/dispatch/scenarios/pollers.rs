//! Clients that poll editions with entity tags while the core changes them over RabbitMQ: how long a
//! read takes at a steady rate, and how many there are a second, at which cost, where each client asks
//! again as soon as it is answered. What is read is checked as the tests do it: nothing torn, nothing
//! older than before, in the end everything.

use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::domain::api_key::Scope;
use forge_dispatch::domain::ids::{EditionId, WorkspaceId};
use forge_dispatch::domain::reach::Reach;
use tokio::sync::watch;

use crate::keys::key;
use crate::pollers::{Core, Pollers, Tally};
use crate::process::resident_mb;
use crate::program::until;
use crate::report::{Cost, Row, percentile_ms};
use crate::rig::{Bench, Database, Rig, Round, Way};

const CLIENTS: usize = 50;
const EDITIONS: usize = 200;
const EDITS_PER_SECOND: u32 = 20;
const MEASURED: Duration = Duration::from_secs(30);
/// How often each client asks at the steady rate, and what that comes to.
const PACE: Duration = Duration::from_millis(50);
const READS_PER_SECOND: usize = 1_000;
/// What the share of `304` is of.
const ALL_READS: &str = "all reads";

pub(super) async fn run(name: &str, rig: &mut Rig, database: Database) -> anyhow::Result<Vec<Row>> {
    let place = rig.place(database).await?;
    let mut keys = Vec::new();
    for _ in 0..CLIENTS {
        keys.push(key(&*place.store, &[Scope::ReadEditions]).await);
    }
    let bench = rig.start(place, Way::Amqp, database).await?;
    let mut core = Core::connect(&bench.program.amqp, EDITIONS).await;
    core.begin().await;
    known(&bench).await?;
    let base = format!("https://{}", bench.program.api);
    let mut pollers = Pollers::new(&base, &keys, EDITIONS);
    // Everything is read once: connections stand, and each client has its tags.
    pollers
        .poll(None, watch::channel(Some(core.states())).1)
        .await;

    let mut rows = Vec::new();
    let title = format!("{name} {database}, {READS_PER_SECOND}/s");
    let (tally, _) = measure(rig, &bench, &mut core, &mut pollers, Some(PACE)).await?;
    rows.push(Row {
        ratio: Some(tally.share_spared()),
        compared_with: Some(ALL_READS),
        ..percentiles(format!("{title}: 304"), &tally.spared)
    });
    rows.push(percentiles(format!("{title}: 200"), &tally.sent));
    let (tally, round) = measure(rig, &bench, &mut core, &mut pollers, None).await?;
    rows.push(Row {
        deliveries_per_second: Some(round.rate()),
        ratio: Some(tally.share_spared()),
        compared_with: Some(ALL_READS),
        rss_mb: Some(resident_mb(bench.program.id()).1),
        cost: Some(Cost::of(&[round])),
        ..percentiles(format!("{name} {database}, all"), &tally.took())
    });
    bench.program.stop().await?;
    Ok(rows)
}

/// Waits until the edition that was told of last can be read.
async fn known(bench: &Bench) -> anyhow::Result<()> {
    let reach = Reach::all(&WorkspaceId::default());
    let last = EditionId::new(&format!("ed_{}", EDITIONS - 1))?;
    until(MEASURED, "all editions are known", async || {
        Ok(bench.program.store.edition(&reach, &last).await?.is_some())
    })
    .await
}

/// Polls while the core makes edits, until every client has the last of them.
async fn measure(
    rig: &Rig,
    bench: &Bench,
    core: &mut Core,
    pollers: &mut Pollers,
    pace: Option<Duration>,
) -> anyhow::Result<(Tally, Round)> {
    let seconds = rig.scaled_time(MEASURED).as_secs();
    let edits = usize::try_from(seconds * u64::from(EDITS_PER_SECOND))?;
    let (told, end) = watch::channel(None);
    let (begun, before) = (SystemClock.monotonic(), rig.used_by(bench));
    let editing = async {
        core.edit(edits, EDITS_PER_SECOND).await;
        told.send_replace(Some(core.states()));
    };
    let (tally, ()) = tokio::join!(pollers.poll(pace, end), editing);
    let round = Round {
        deliveries: tally.took().len(),
        seconds: SystemClock.monotonic().saturating_sub(begun).as_secs_f64(),
        costs: rig.used_by(bench).since(before),
    };
    Ok((tally, round))
}

fn percentiles(scenario: String, took: &[Duration]) -> Row {
    let of = |share: f64| percentile_ms(took, share);
    Row {
        scenario,
        p50_ms: of(0.5),
        p95_ms: of(0.95),
        p99_ms: of(0.99),
        p999_ms: of(0.999),
        ..Row::default()
    }
}
