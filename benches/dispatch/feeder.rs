//! The program without a broker: the parts that `serve` is composed of, in a process of their own,
//! fed by the way in that `demo` uses. Everything behind that way in is as it is behind AMQP.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use forge_dispatch::app::{App, Entrance, Surroundings};
use forge_dispatch::config::{Config, load};
use forge_dispatch::shutdown::Shutdown;
use forge_dispatch::telemetry;

use crate::envelope::envelope_of;

/// The word that starts this executable as the program without a broker.
pub(crate) const ROLE: &str = "role:feeder";

/// Events handed in at once, as the consumer gathers them from a broker.
const BATCH: usize = 1_000;

/// Serves the configuration in a file; takes orders `RUN COUNT BYTES EDITIONS`, answered once that many
/// events are committed.
#[tokio::main]
pub(crate) async fn main() -> anyhow::Result<ExitCode> {
    let mut args = std::env::args().skip(2);
    let file = PathBuf::from(args.next().context("a configuration")?);
    let config = Config::load(Some(&file), load::environment(), &[])?;
    telemetry::log_to_stderr(&config.log)?;
    let shutdown = Shutdown::default();
    shutdown.watch_signals()?;
    let app = App::build(config, Surroundings::default(), shutdown.clone()).await?;
    let entrance = app.entrance();
    let runtime = tokio::runtime::Handle::current();
    std::thread::spawn(move || {
        for order in std::io::stdin().lines().map_while(Result::ok) {
            let fed = runtime.block_on(feed(&entrance, &order));
            println!(
                "{}",
                fed.map_or_else(|error| format!("{error:#}"), |()| "fed".to_owned())
            );
        }
        // Nobody can give any more orders.
        shutdown.begin();
    });
    app.run().await?;
    Ok(ExitCode::SUCCESS)
}

async fn feed(entrance: &Entrance, order: &str) -> anyhow::Result<()> {
    let mut words = order.split(' ');
    let run = words.next().context("a run")?.parse()?;
    let count: usize = words.next().context("a count")?.parse()?;
    let data_bytes = words.next().context("a size")?.parse()?;
    let editions = words.next().context("how many editions")?.parse()?;
    let mut number = 0;
    while number < count {
        let next = count.min(number + BATCH);
        let batch: Vec<Vec<u8>> = (number..next)
            .map(|number| envelope_of(editions, run, number, data_bytes))
            .collect();
        entrance.publish(&batch).await?;
        number = next;
    }
    Ok(())
}
