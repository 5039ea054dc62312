//! Telling other processes that there may be work, or that a feed moved, by `NOTIFY`.
//!
//! A `NOTIFY` makes its transaction queue for a lock that all notifying commits share, so it never
//! rides on an accept or a settle: it has a transaction of its own, at most ten times a second. A
//! notice that is lost costs nothing but time, since everyone looks by themselves now and then anyway.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
use crate::store::feed::FeedBell;
use crate::wake::Wake;

/// The shortest time between two notices of one process.
const GAP: Duration = Duration::from_millis(100);

/// How long one notice may take. Others look by themselves, only later.
const SEND_TIMEOUT: Duration = Duration::from_secs(2);

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Topic {
    /// Deliveries that anybody may claim.
    Work,
    /// A feed that moved.
    Feed,
}

impl Topic {
    const ALL: [Self; 2] = [Self::Work, Self::Feed];

    fn channel(self) -> &'static str {
        match self {
            Self::Work => "forge_dispatch_work",
            Self::Feed => "forge_dispatch_feed",
        }
    }
}

/// What there is to tell, gathered until it is sent.
#[derive(Debug, Default)]
struct Pending {
    bell: Wake,
    work: AtomicBool,
    feed: AtomicBool,
}

impl Pending {
    fn of(&self, topic: Topic) -> &AtomicBool {
        match topic {
            Topic::Work => &self.work,
            Topic::Feed => &self.feed,
        }
    }

    fn add(&self, topic: Topic) {
        self.of(topic).store(true, Ordering::Release);
        self.bell.ring();
    }

    fn take(&self) -> Vec<&'static str> {
        Topic::ALL
            .into_iter()
            .filter(|topic| self.of(*topic).swap(false, Ordering::AcqRel))
            .map(Topic::channel)
            .collect()
    }
}

/// Both directions of the channels.
pub(super) struct Notices {
    /// A connection of its own: one held for ever would be missing from the others.
    listening: PgPool,
    /// What our own notices carry, so that we do not wake ourselves.
    sender: String,
    pending: Arc<Pending>,
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
            pending: Arc::default(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        notices.tasks.spawn(send_all(
            pool,
            notices.sender.clone(),
            Arc::clone(&notices.pending),
            notices.stop.clone(),
        ));
        notices
    }

    /// Has a notice sent, soon; many calls make one.
    pub(super) fn announce(&self, topic: Topic) {
        self.pending.add(topic);
    }

    /// Rings at every notice of another process, and whenever some may have been missed.
    pub(super) async fn listen(&self, wake: &Wake, feed: &FeedBell) {
        let mut reconnect = Reconnect::default();
        while !self.listening.is_closed() {
            if let Err(error) = self.listen_once(wake, feed, &mut reconnect).await
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

    async fn listen_once(
        &self,
        wake: &Wake,
        feed: &FeedBell,
        reconnect: &mut Reconnect,
    ) -> sqlx::Result<()> {
        let ring = |topic| match topic {
            Topic::Work => wake.ring(),
            Topic::Feed => feed.ring(),
        };
        let mut listener = PgListener::connect_with(&self.listening).await?;
        listener.listen_all(Topic::ALL.map(Topic::channel)).await?;
        reconnect.reset();
        Topic::ALL.into_iter().for_each(ring);
        loop {
            match listener.try_recv().await? {
                Some(notice) if notice.payload() == self.sender => {}
                Some(notice) => {
                    let about = |topic: &Topic| topic.channel() == notice.channel();
                    Topic::ALL.into_iter().filter(about).for_each(ring);
                }
                // The connection was lost and made again, what was said meanwhile is unknown.
                None => Topic::ALL.into_iter().for_each(ring),
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
async fn send_all(pool: PgPool, sender: String, pending: Arc<Pending>, stop: CancellationToken) {
    let mut pace = tokio::time::interval(GAP);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = pending.bell.rung() => {}
            () = stop.cancelled() => break,
        }
        tokio::select! {
            _ = pace.tick() => {}
            () = stop.cancelled() => {}
        }
        send(&pool, &sender, &pending.take()).await;
    }
    if pending.bell.rung().now_or_never().is_some() {
        send(&pool, &sender, &pending.take()).await;
    }
}

async fn send(pool: &PgPool, sender: &str, channels: &[&str]) {
    let notify = sqlx::query(
        "-- postgres::notices::send
        select pg_notify(channel, $2) from unnest($1::text[]) as told (channel)",
    )
    .bind(channels)
    .bind(sender)
    .execute(pool);
    match tokio::time::timeout(SEND_TIMEOUT, notify).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::debug!(%error, "a notice was not sent"),
        Err(_) => tracing::debug!("a notice was not sent in time"),
    }
}
