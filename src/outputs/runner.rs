//! Runs the jobs of outputs: takes what is due, makes or takes its file, and settles.
//!
//! A few at a time, each under a lease that is renewed for as long as it is worked on: a job whose
//! process ended is taken over by any other. What is begun when the program stops gets a little time to
//! end, and is given back then.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use super::job::Worker;
use super::{Fetcher, FileStore, Renderer, Stored};
use crate::clock::{Clock, pause};
use crate::config;
use crate::entropy::Entropy;
use crate::reconnect::Reconnect;
use crate::shutdown::Shutdown;
use crate::store::intake::Intake;
use crate::store::{FileReferences, Leasing, Store};
use crate::wake::Wake;

/// What the runner is built of.
pub struct Parts {
    /// Where jobs are, and the editions.
    pub store: Arc<dyn Store>,
    /// Where files are kept.
    pub files: Arc<FileStore>,
    /// Makes them.
    pub renderer: Renderer,
    /// Takes those of the core's.
    pub fetcher: Fetcher,
    /// Measures how long they take.
    pub clock: Arc<dyn Clock>,
    /// Ids of files and events.
    pub entropy: Entropy,
    /// Leases the deliveries of `output.generated`; its owner leases jobs too.
    pub leasing: Leasing,
    /// Sends those deliveries.
    pub intake: Arc<dyn Intake>,
    /// `[outputs]`.
    pub settings: config::Outputs,
    /// Where clients reach the API.
    pub public_url: Option<Url>,
    /// Rung where a job was made: what the store's jobs were opened with.
    pub bell: Arc<Wake>,
    /// How long and how often.
    pub pace: Pace,
}

/// How the runner spends its time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long the lease of a job holds: after a crash, others wait for its end.
    pub lease: Duration,
    /// How often it is looked for jobs when nothing rings: those that another replica made, and those
    /// whose time has come.
    pub poll: Duration,
    /// How long a graceful stop waits for what is begun.
    pub drain: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            lease: Duration::from_mins(1),
            poll: Duration::from_secs(1),
            drain: Duration::from_secs(5),
        }
    }
}

/// Runs jobs until the shutdown. Whatever else happens, it goes on.
pub async fn run(parts: Parts, shutdown: Shutdown) {
    let _sweeping = AbortOnDropHandle::new(tokio::spawn(sweep(
        Arc::clone(&parts.files),
        Arc::clone(&parts.store),
    )));
    let slots = parts.settings.concurrency;
    let (bell, pace_of, entropy) = (Arc::clone(&parts.bell), parts.pace, parts.entropy.clone());
    let worker = Arc::new(Worker {
        source: Stored::new(Arc::clone(&parts.store)),
        parts,
        given_up: CancellationToken::new(),
    });
    let mut running = JoinSet::new();
    let mut reconnect = Reconnect::default();
    let working = async {
        while !shutdown.soft.is_cancelled() {
            let free = slots - running.len();
            let mut wait = pace_of.poll.mul_f64(0.75 + 0.5 * entropy.unit());
            match worker.take(free).await {
                Ok(jobs) => {
                    reconnect.reset();
                    for job in jobs {
                        running.spawn(Arc::clone(&worker).work(job));
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "outputs: jobs cannot be taken");
                    wait = reconnect.next_delay();
                }
            }
            tokio::select! {
                () = bell.rung(), if running.len() < slots => {}
                Some(_) = running.join_next() => {}
                () = pause(wait) => {}
                () = shutdown.soft.cancelled() => {}
            }
        }
        let all = async { while running.join_next().await.is_some() {} };
        if tokio::time::timeout(pace_of.drain, all).await.is_err() {
            worker.given_up.cancel();
            while running.join_next().await.is_some() {}
        }
    };
    tokio::select! {
        () = working => {}
        () = shutdown.hard.cancelled() => {}
    }
    tracing::info!("outputs: stopped");
}

/// Takes away the files that nobody refers to.
async fn sweep(files: Arc<FileStore>, store: Arc<dyn Store>) {
    let references: &dyn FileReferences = &*store;
    match files.sweep(references).await {
        Ok(swept) => tracing::info!(?swept, "outputs: swept"),
        Err(error) => tracing::warn!(%error, "outputs: files could not be swept"),
    }
}
