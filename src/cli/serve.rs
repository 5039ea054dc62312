//! `serve`: the program itself.

use clap::Args;

use crate::app::{App, Surroundings};
use crate::config::Config;
use crate::shutdown::Shutdown;

/// Takes events in, delivers them, and answers operators, until it is told to stop.
///
/// SIGINT and SIGTERM drain: nothing new is taken in, what is in flight ends, what was answered is
/// written. A second signal ends at once.
#[derive(Args, Debug)]
pub struct Serve {}

impl Serve {
    /// Runs until a signal.
    pub async fn run(&self, config: Config) -> anyhow::Result<()> {
        let shutdown = Shutdown::default();
        shutdown.watch_signals()?;
        let app = App::build(config, Surroundings::default(), shutdown).await?;
        tracing::info!(ops = %app.ops_address()?, version = env!("CARGO_PKG_VERSION"), "starting");
        app.run().await?;
        Ok(())
    }
}
