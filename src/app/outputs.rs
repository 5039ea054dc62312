//! Outputs as a part of the program: where their files are kept, and what makes them.

use std::path::Path;
use std::sync::Arc;

use super::{AppError, Surroundings};
use crate::api;
use crate::config::Config;
use crate::egress::WebhookClient;
use crate::outputs::files::FilesError;
use crate::outputs::runner::{self, Pace};
use crate::outputs::{Fetcher, FileStore, Renderer};
use crate::shutdown::Shutdown;
use crate::store::intake::Intake;
use crate::store::{CoreFiles, Leasing, Store};
use crate::wake::Wake;

/// The place for files, and the bell that tells of what is to be made.
pub(super) struct OutputRoom {
    files: Arc<FileStore>,
    bell: Arc<Wake>,
    fetcher: Fetcher,
}

/// What a room works with, that it shares with the other parts.
pub(super) struct Shared {
    pub(super) store: Arc<dyn Store>,
    pub(super) leasing: Leasing,
    pub(super) intake: Arc<dyn Intake>,
}

impl OutputRoom {
    /// Opens the place for files, and has the store tell of jobs. `None` where nothing names a place and
    /// the usual one cannot be used: then nothing is made, and all else goes on.
    pub(super) fn open(
        config: &Config,
        surroundings: &Surroundings,
        store: &Arc<dyn Store>,
        client: &Arc<WebhookClient>,
    ) -> Result<Option<Self>, AppError> {
        let directory = config.outputs_directory();
        let Some(files) = files(config, surroundings, &directory)? else {
            return Ok(None);
        };
        let bell = Arc::new(Wake::default());
        // Without a broker too, events come in: by the command line.
        let core = if config.outputs.core_hosts.is_empty() {
            CoreFiles::LeftAlone
        } else {
            CoreFiles::Fetched
        };
        store.open_output_jobs(Arc::clone(&bell), core);
        Ok(Some(Self {
            fetcher: Fetcher::new(&config.outputs, Arc::clone(client), Arc::clone(&files)),
            files,
            bell,
        }))
    }

    /// What the API needs of it.
    pub(super) fn for_api(&self, config: &Config) -> api::Outputs {
        let core_timeout = asks_the_core(config).then_some(config.outputs.core_timeout);
        api::Outputs {
            files: Arc::clone(&self.files) as _,
            core_timeout,
        }
    }

    /// Makes what is asked for, until the shutdown.
    pub(super) async fn run(
        self,
        config: &Config,
        surroundings: &Surroundings,
        shared: Shared,
        shutdown: Shutdown,
    ) {
        let parts = runner::Parts {
            store: shared.store,
            files: self.files,
            renderer: Renderer::new(&config.outputs, config.outputs_directory()),
            fetcher: self.fetcher,
            clock: Arc::clone(&surroundings.clock),
            entropy: surroundings.entropy.clone(),
            leasing: shared.leasing,
            intake: shared.intake,
            settings: config.outputs.clone(),
            public_url: config.api.public_url.clone(),
            bell: self.bell,
            pace: Pace::default(),
        };
        runner::run(parts, shutdown).await;
    }
}

/// Whether the core is asked for what only it can make: it hears of that over the broker, and its file is
/// fetched from a host that is named.
fn asks_the_core(config: &Config) -> bool {
    config.amqp.url.is_some() && !config.outputs.core_hosts.is_empty()
}

fn files(
    config: &Config,
    surroundings: &Surroundings,
    directory: &Path,
) -> Result<Option<Arc<FileStore>>, AppError> {
    let settings = &config.outputs;
    let clock = Arc::clone(&surroundings.clock);
    match FileStore::open(settings, directory, &config.egress, clock) {
        Ok(files) => Ok(Some(Arc::new(files))),
        Err(error @ FilesError::Directory { .. })
            if settings.directory.is_none() && settings.s3.bucket.is_none() =>
        {
            tracing::warn!(%error, "no outputs are made: name a directory or a bucket for their files");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}
