//! `forge-dispatch serve`

use clap::Args;

use super::{CliError, Context};

/// Everything is in the configuration.
#[derive(Clone, Debug, Args)]
pub struct ServeArgs {}

/// Runs the service until it is told to stop.
#[expect(clippy::unused_async, reason = "it will wait for the service's end")]
pub async fn run(_args: ServeArgs, _context: &Context) -> Result<(), CliError> {
    Err(CliError::Failure(anyhow::anyhow!("not built in yet")))
}
