//! `forge-dispatch serve`

use clap::Args;

use super::{CliError, Context, open_files};
use crate::app::{App, Surroundings};
use crate::shutdown::Shutdown;

/// Everything else is in the configuration.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {
    /// Which part of the work this process does: all, api, dispatch or ingest (the key `role`).
    #[arg(long)]
    pub role: Option<String>,
}

/// Runs the service until it is told to stop: the first SIGINT or SIGTERM drains, the second ends
/// at once (and the exit code says so).
pub async fn run(_args: ServeArgs, context: &Context) -> Result<(), CliError> {
    open_files::allow(&context.config);
    let shutdown = Shutdown::default();
    shutdown.watch_signals().map_err(anyhow::Error::from)?;
    let surroundings = Surroundings {
        clock: context.clock.clone(),
        entropy: context.entropy.clone(),
        ..Surroundings::default()
    };
    let app = App::build(context.config.clone(), surroundings, shutdown.clone()).await?;
    let ops = app.ops_address().map_err(anyhow::Error::from)?;
    let api = app.api_address().map_err(anyhow::Error::from)?;
    let api = api.map(|address| address.to_string());
    let certificate = app.api_fingerprint().map(|print| print.to_string());
    let role = context.config.role;
    tracing::info!(api, certificate, %ops, %role, version = env!("CARGO_PKG_VERSION"), "starting");
    app.run().await?;
    if shutdown.hard.is_cancelled() {
        return Err(CliError::Failure(anyhow::anyhow!(
            "ended before everything in flight was written; it will be sent again"
        )));
    }
    Ok(())
}
