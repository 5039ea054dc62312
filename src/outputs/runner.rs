//! Runs the jobs of outputs: takes what is due, makes or takes its file, and settles.
//!
//! A few at a time of each share (what is made here, what is taken from the core), each under a lease that
//! is renewed for as long as it is worked on: a job whose process ended is taken over by any other. What is
//! begun when the program stops gets a little time to end, and is given back then.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join;
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
use crate::store::{self, FileReferences, JobShare, Leasing, Store};
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
    let mut making = Crew::new(JobShare::Made, parts.settings.concurrency);
    let mut fetching = Crew::new(JobShare::Fetched, parts.settings.fetch_concurrency);
    let (bell, pace_of, entropy) = (Arc::clone(&parts.bell), parts.pace, parts.entropy.clone());
    let worker = Arc::new(Worker {
        source: Stored::new(Arc::clone(&parts.store)),
        parts,
        given_up: CancellationToken::new(),
    });
    let mut reconnect = Reconnect::default();
    let working = async {
        while !shutdown.soft.is_cancelled() {
            let mut wait = pace_of.poll.mul_f64(0.75 + 0.5 * entropy.unit());
            let filled = async {
                making.fill(&worker).await?;
                fetching.fill(&worker).await
            };
            match filled.await {
                Ok(()) => reconnect.reset(),
                Err(error) => {
                    tracing::warn!(%error, "outputs: jobs cannot be taken");
                    wait = reconnect.next_delay();
                }
            }
            tokio::select! {
                () = bell.rung(), if making.has_room() || fetching.has_room() => {}
                Some(_) = making.running.join_next() => {}
                Some(_) = fetching.running.join_next() => {}
                () = pause(wait) => {}
                () = shutdown.soft.cancelled() => {}
            }
        }
        let ended = join(making.ended(), fetching.ended());
        if tokio::time::timeout(pace_of.drain, ended).await.is_err() {
            worker.given_up.cancel();
            join(making.ended(), fetching.ended()).await;
        }
    };
    tokio::select! {
        () = working => {}
        () = shutdown.hard.cancelled() => {}
    }
    tracing::info!("outputs: stopped");
}

/// Those who do the jobs of one share.
struct Crew {
    share: JobShare,
    slots: usize,
    running: JoinSet<()>,
}

impl Crew {
    fn new(share: JobShare, slots: usize) -> Self {
        Self {
            share,
            slots,
            running: JoinSet::new(),
        }
    }

    fn has_room(&self) -> bool {
        self.running.len() < self.slots
    }

    /// Begins what is due, as far as there is room.
    async fn fill(&mut self, worker: &Arc<Worker>) -> store::Result<()> {
        let free = self.slots - self.running.len();
        for job in worker.take(self.share, free).await? {
            self.running.spawn(Arc::clone(worker).work(job));
        }
        Ok(())
    }

    /// Waits until nothing is under way.
    async fn ended(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

/// Takes away the files that nobody refers to.
async fn sweep(files: Arc<FileStore>, store: Arc<dyn Store>) {
    let references: &dyn FileReferences = &*store;
    match files.sweep(references).await {
        Ok(swept) => tracing::info!(?swept, "outputs: swept"),
        Err(error) => tracing::warn!(%error, "outputs: files could not be swept"),
    }
}
