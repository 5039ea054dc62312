//! `forge-dispatch demo`

use std::path::PathBuf;

use clap::Args;

use super::{CliError, Context};

/// How much to show.
#[derive(Clone, Debug, Args)]
pub struct DemoArgs {
    /// Keep the database in this directory (a temporary one otherwise).
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// Send this many events (without end otherwise).
    #[arg(long, value_name = "N")]
    pub events: Option<u64>,

    /// End when all is settled, and say what came of it.
    #[arg(long, requires = "events")]
    pub exit: bool,
}

/// Runs the demo.
#[expect(clippy::unused_async, reason = "it will wait for the service's end")]
pub async fn run(_args: DemoArgs, _context: &Context) -> Result<(), CliError> {
    Err(CliError::Failure(anyhow::anyhow!("not built in yet")))
}
