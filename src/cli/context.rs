//! What every subcommand works with.

use std::sync::Arc;

use super::{CliError, output::Output};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::domain::audit::Act;
use crate::entropy::Entropy;
use crate::store::{self, Store};

/// Configuration, output, time and randomness.
#[derive(Clone, Debug)]
pub struct Context {
    /// The effective configuration.
    pub config: Config,
    /// Standard output.
    pub output: Output,
    /// The machine's clock.
    pub clock: Arc<dyn Clock>,
    /// The system's randomness.
    pub entropy: Entropy,
}

impl Context {
    /// The program's own, outside tests.
    pub fn new(config: Config, output: Output) -> Self {
        Self {
            config,
            output,
            clock: Arc::new(SystemClock),
            entropy: Entropy::system(),
        }
    }

    /// The circumstances of what this command changes.
    pub fn act(&self) -> Act {
        Act::on_command_line(self.entropy.id(self.clock.now()))
    }

    /// The store, before its schema is looked at.
    pub async fn open_store(&self) -> Result<Arc<dyn Store>, CliError> {
        let store = store::open(&self.config, Arc::clone(&self.clock), &self.entropy).await?;
        Ok(store)
    }

    /// Lends the store, ready to be used, and closes it afterwards.
    ///
    /// A database file is ours alone and is brought up to date by the way. A shared database is
    /// not: replicas of an older version may be running on it, so its schema changes only when
    /// somebody says so (`migrate`, `serve`).
    pub async fn with_store<T>(
        &self,
        work: impl AsyncFnOnce(&Arc<dyn Store>) -> Result<T, CliError>,
    ) -> Result<T, CliError> {
        let store = self.open_store().await?;
        if store.kind() == "postgres" {
            store.ready().await?;
        }
        // On a schema that is up to date this only checks the master key: nothing may be sealed
        // under another one.
        store.migrate().await?;
        let result = work(&store).await;
        store.close().await;
        result
    }
}
