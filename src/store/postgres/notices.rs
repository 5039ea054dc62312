//! Telling other processes that there may be work, by `NOTIFY`.
//!
//! A `NOTIFY` makes its transaction queue for a lock that all notifying commits share, so it never
//! rides on an accept or a settle: it has a transaction of its own, at most ten times a second. A
//! notice that is lost costs nothing but time, since everyone looks at the queue now and then anyway.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::entropy::Entropy;
use crate::reconnect::Reconnect;
use crate::wake::Wake;

const CHANNEL: &str = "forge_dispatch_work";

/// The shortest time between two notices of one process.
const GAP: Duration = Duration::from_millis(100);

/// How long one notice may take. Others look at the queue by themselves, only later.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// Both directions of the channel.
pub(super) struct Notices {
    /// A connection of its own: one held for ever would be missing from the others.
    listening: PgPool,
    /// What our own notices carry, so that we do not wake ourselves.
    sender: String,
    bell: Arc<Wake>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Notices {
    /// Starts the task that sends notices.
    pub(super) fn start(pool: PgPool, options: PgConnectOptions, entropy: &Entropy) -> Self {
        let notices = Self {
            listening: PgPoolOptions::new()
                .max_connections(1)
                .idle_timeout(None)
                .max_lifetime(None)
                .connect_lazy_with(options),
            sender: Uuid::from_bytes(entropy.bytes()).to_string(),
            bell: Arc::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        notices.tasks.spawn(send_all(
            pool,
            notices.sender.clone(),
            Arc::clone(&notices.bell),
            notices.stop.clone(),
        ));
        notices
    }

    /// Has a notice sent, soon; many calls make one.
    pub(super) fn announce(&self) {
        self.bell.ring();
    }

    /// Rings at every notice of another process, and whenever some may have been missed.
    pub(super) async fn listen(&self, wake: &Wake) {
        let mut reconnect = Reconnect::default();
        while !self.listening.is_closed() {
            if let Err(error) = self.listen_once(wake, &mut reconnect).await
                && !self.listening.is_closed()
            {
                tracing::debug!(%error, "listening for notices: connecting again");
                tokio::select! {
                    () = reconnect.pause() => {}
                    () = self.listening.close_event() => {}
                }
            }
        }
    }

    async fn listen_once(&self, wake: &Wake, reconnect: &mut Reconnect) -> sqlx::Result<()> {
        let mut listener = PgListener::connect_with(&self.listening).await?;
        listener.listen(CHANNEL).await?;
        reconnect.reset();
        wake.ring();
        loop {
            match listener.try_recv().await? {
                Some(notice) if notice.payload() == self.sender => {}
                // `None`: the connection was lost and made again, what was said meanwhile is unknown.
                _ => wake.ring(),
            }
        }
    }

    /// Sends what is left to send, then ends both directions.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.listening.close().await;
    }
}

impl Drop for Notices {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Sends one notice for all rings of the last [`GAP`], and the last one without waiting for it.
async fn send_all(pool: PgPool, sender: String, bell: Arc<Wake>, stop: CancellationToken) {
    let mut pace = tokio::time::interval(GAP);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = bell.rung() => {}
            () = stop.cancelled() => break,
        }
        tokio::select! {
            _ = pace.tick() => {}
            () = stop.cancelled() => {}
        }
        send(&pool, &sender).await;
    }
    if bell.rung().now_or_never().is_some() {
        send(&pool, &sender).await;
    }
}

async fn send(pool: &PgPool, sender: &str) {
    let notify = sqlx::query(
        "-- postgres::notices::send
        select pg_notify($1, $2)",
    )
    .bind(CHANNEL)
    .bind(sender)
    .execute(pool);
    match tokio::time::timeout(SEND_TIMEOUT, notify).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a notice was not sent"),
        Err(_) => tracing::debug!("a notice was not sent in time"),
    }
}
