//! The command line: one file a subcommand.
//!
//! Data goes to standard output, as a table or, with `--json`, as one JSON document; logs and
//! errors go to standard error. Exit codes mean something ([`error`]).

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Log};
use crate::telemetry;

pub mod config;
pub mod context;
pub mod deliveries;
pub mod demo;
pub mod error;
pub mod events;
pub mod keys;
pub mod list;
pub mod migrate;
mod open_files;
pub mod openapi;
pub mod output;
pub mod parse;
pub mod serve;
pub mod subscriptions;

pub use context::Context;
pub use error::CliError;
use output::{Form, Output};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed
  2  wrong usage, wrong configuration, or a value that breaks a rule (which is named)
  3  no such subscription, delivery, key or dead letter";

/// Webhook dispatcher for Report Forge: events in from RabbitMQ, signed webhooks out.
#[derive(Debug, Parser)]
#[command(name = "forge-dispatch", version, after_help = EXIT_CODES)]
pub struct Cli {
    /// What every subcommand takes.
    #[command(flatten)]
    pub global: GlobalArgs,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every subcommand takes.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct GlobalArgs {
    /// Read the configuration from this TOML file (or the one that `FORGE_CONFIG` names).
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Set one key of the configuration (`dispatch.concurrency=100`); may be repeated.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,

    /// Print one JSON document instead of a table.
    #[arg(long, global = true)]
    pub json: bool,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service.
    Serve(serve::ServeArgs),
    /// Bring the database's schema up to this version.
    Migrate,
    /// Show the whole thing on this machine: database, receiver, events, nothing to install.
    Demo(demo::DemoArgs),
    /// Register, list and delete webhook subscriptions.
    #[command(subcommand)]
    Subscriptions(subscriptions::SubscriptionsCommand),
    /// Make, list and take back API keys.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// See what was and is delivered.
    #[command(subcommand)]
    Deliveries(deliveries::DeliveriesCommand),
    /// Publish events; see to those that could not be used.
    #[command(subcommand)]
    Events(events::EventsCommand),
    /// Print the OpenAPI description of the API, as JSON.
    Openapi,
    /// Check and show the configuration.
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

/// Runs the program: arguments (the program's name first) and environment in, exit code out.
pub async fn run(
    args: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (String, String)>,
) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for: clap prints them to standard output, and knows the
            // exit code. A reader that went away is no fault of ours.
            let code = if error.use_stderr() { error::USAGE } else { 0 };
            drop(error.print());
            return ExitCode::from(code);
        }
    };
    match execute(cli, environment).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            ExitCode::from(error.code())
        }
    }
}

async fn execute(
    cli: Cli,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Result<(), CliError> {
    let GlobalArgs {
        config,
        mut set,
        json,
    } = cli.global;
    if let Command::Serve(serve::ServeArgs { role: Some(role) }) = &cli.command {
        set.push(format!("role={role}"));
    }
    let config = Config::load(config.as_deref(), environment, &set)?;
    log(&cli.command, &config)?;
    let form = if json { Form::Json } else { Form::Human };
    let context = Context::new(config, Output::new(form));
    match cli.command {
        Command::Serve(args) => Box::pin(serve::run(args, &context)).await,
        Command::Migrate => migrate::run(&context).await,
        Command::Demo(args) => Box::pin(demo::run(args, &context)).await,
        Command::Subscriptions(command) => subscriptions::run(command, &context).await,
        Command::Keys(command) => keys::run(command, &context).await,
        Command::Deliveries(command) => deliveries::run(command, &context).await,
        Command::Events(command) => events::run(command, &context).await,
        Command::Openapi => openapi::run(),
        Command::Config(command) => config::run(command, &context),
    }
}

/// The service logs as it is configured to; a command that ends by itself only what went wrong.
fn log(command: &Command, config: &Config) -> Result<(), CliError> {
    let log = match command {
        Command::Serve(_) => config.log.clone(),
        _ => Log {
            filter: "warn".to_owned(),
            ..config.log.clone()
        },
    };
    telemetry::log_to_stderr(&log).map_err(|error| CliError::Failure(error.into()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
