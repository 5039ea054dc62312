//! `forge-dispatch config`: is it right, and what is it.

use anyhow::Context as _;
use clap::Subcommand;
use secrecy::ExposeSecret;
use serde::Serialize;

use super::{CliError, Context};
use crate::store::vault::MasterKey;

/// What to do with the configuration.
#[derive(Clone, Copy, Debug, Subcommand)]
pub enum ConfigCommand {
    /// Check the configuration (exit code 2 and the keys' names when it is wrong).
    Check,
    /// Show the effective configuration, without its secrets.
    Show,
}

#[derive(Serialize)]
struct Checked {
    valid: bool,
}

/// Runs it. A wrong configuration never comes this far.
pub fn run(command: ConfigCommand, context: &Context) -> Result<(), CliError> {
    match command {
        ConfigCommand::Check => {
            // Its form is the vault's to judge, not the configuration's.
            if let Some(key) = &context.config.master_key {
                MasterKey::parse(key.expose_secret())?;
            }
            context.output.print(&Checked { valid: true }, |_| {
                "the configuration is right".to_owned()
            })
        }
        ConfigCommand::Show => {
            let text = toml::to_string(&context.config).context("writing TOML")?;
            context.output.print(&context.config, |_| text)
        }
    }
}
