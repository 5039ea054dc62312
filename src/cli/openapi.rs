//! `forge-dispatch openapi`

use std::io::Write;

use anyhow::Context as _;

use super::CliError;
use crate::app;

/// Prints the description of the API, as `/openapi.json` serves it.
pub fn run() -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", app::openapi()).context("standard output")?;
    Ok(())
}
