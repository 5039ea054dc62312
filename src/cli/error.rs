//! Why a command did not do its work, and the exit code that says so.

use std::io::Write;

use super::parse::WorkspaceArgs;
use crate::app::AppError;
use crate::config::ConfigError;
use crate::domain::subscription::FieldError;
use crate::store::StoreError;

/// Something failed on the way.
pub const FAILURE: u8 = 1;
/// The command, its values or the configuration are wrong: trying again will not help.
pub const USAGE: u8 = 2;
/// What was asked for does not exist.
pub const NOT_FOUND: u8 = 3;

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The configuration is wrong.
    #[error("the configuration is wrong\n{0}")]
    Config(#[from] ConfigError),

    /// A value breaks a rule.
    #[error("{0}")]
    Field(#[from] FieldError),

    /// What was asked for does not exist.
    #[error("no {what} {id} in workspace {workspace}")]
    NotFound {
        /// What it would be.
        what: &'static str,
        /// Its id.
        id: String,
        /// Where it was looked for.
        workspace: String,
    },

    /// No such dead letter; they have no workspace.
    #[error("no dead letter {which} in queue {queue}")]
    NoDeadLetter {
        /// Its id or number, as it was asked for.
        which: String,
        /// Where it was looked for.
        queue: String,
    },

    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),

    /// The program itself.
    #[error(transparent)]
    App(#[from] AppError),

    /// Anything else.
    #[error("{0:#}")]
    Failure(#[from] anyhow::Error),
}

impl CliError {
    /// What was asked for does not exist in this workspace.
    pub fn not_found(what: &'static str, id: &str, workspace: &WorkspaceArgs) -> Self {
        Self::NotFound {
            what,
            id: id.to_owned(),
            workspace: workspace.to_string(),
        }
    }

    /// The exit code of the program.
    pub fn code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Field(_) => USAGE,
            Self::NotFound { .. } | Self::NoDeadLetter { .. } => NOT_FOUND,
            Self::Store(error) | Self::App(AppError::Store(error)) => store_code(error),
            Self::App(_) | Self::Failure(_) => FAILURE,
        }
    }

    /// Tells it on standard error.
    pub fn print(&self) {
        // Where standard error is closed there is nobody left to tell.
        drop(writeln!(std::io::stderr(), "error: {self}"));
    }
}

/// Whether it is the configuration that is wrong, or something on the way.
fn store_code(error: &StoreError) -> u8 {
    match error {
        StoreError::MasterKey(_) | StoreError::Configuration(_) => USAGE,
        _ => FAILURE,
    }
}
