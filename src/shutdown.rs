//! Stopping, in two steps: the first signal asks to drain, the second ends at once.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The two tokens that every part watches. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    /// Take nothing new, finish what is begun, flush, go.
    pub soft: CancellationToken,
    /// Drop everything: what was leased runs out and is taken over.
    pub hard: CancellationToken,
}

impl Shutdown {
    /// Asks for a graceful stop.
    pub fn begin(&self) {
        self.soft.cancel();
    }

    /// Ends at once; also asks for the graceful stop, so that watchers of either see it.
    pub fn abort(&self) {
        self.soft.cancel();
        self.hard.cancel();
    }

    /// Turns SIGINT and SIGTERM into the two steps, for as long as the program runs.
    pub fn watch_signals(&self) -> std::io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if shutdown.soft.is_cancelled() {
                    shutdown.abort();
                    tracing::warn!("second signal: ending at once");
                    return;
                }
                shutdown.begin();
                tracing::info!(
                    "stopping: finishing what is in flight (a second signal ends at once)"
                );
            }
        });
        Ok(())
    }
}
