//! What this program originates, on its way to the exchange `report-forge.dispatch` (product.md §3).
//!
//! Whoever writes something that others should learn of appends its events to the store's outbox in
//! the same transaction; here one leader of all replicas publishes them, each until the broker has
//! confirmed it, and deletes them then. At least once, in order within a key (an edition): an event
//! waits for the confirm of the one before it, and behind one that cannot be published.
//!
//! - [`post`]: the connection, and a batch published over it.
//! - [`relay`]: from the outbox to the post, for as long as the leadership lasts.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::broker::AmqpError;
use crate::clock::Clock;
use crate::config;
use crate::domain::ids::OwnerId;
use crate::entropy::Entropy;
use crate::health::{Health, Part, Reporter};
use crate::reconnect::Reconnect;
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError};
use crate::telemetry::Tracer;
use crate::wake::Wake;

mod post;
mod relay;
mod traced;

use post::Post;
use relay::Relay;

/// What the relay is built of.
pub struct Parts {
    /// Where events wait.
    pub store: Arc<dyn Store>,
    /// Measures leases.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub entropy: Entropy,
    /// Where trouble is told.
    pub health: Arc<Health>,
    /// Under whose name the lease is taken.
    pub owner: OwnerId,
    /// The broker.
    pub settings: config::Amqp,
    /// Rung by those who append: what the outbox was opened with.
    pub bell: Arc<Wake>,
    /// How often, and for how long.
    pub pace: Pace,
    /// Tells of what was published.
    pub tracer: Tracer,
}

/// How the relay spends its time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// How long a lease holds: after a crash, others wait for its end.
    pub lease: Duration,
    /// How often the leader looks when nothing rings, which finds what another replica appended; and
    /// how often the others ask whether they can lead.
    pub poll: Duration,
    /// How long a graceful stop may go on publishing; the rest waits in the outbox.
    pub drain: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            poll: Duration::from_secs(1),
            drain: Duration::from_secs(5),
        }
    }
}

/// Why a session with the broker ended.
#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Broker(#[from] AmqpError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the lease ended before it could be renewed")]
    Deposed,
}

/// Publishes until the shutdown: softly, what is there is published first; hard, at once. Whatever else
/// happens, it goes on.
///
/// Without `amqp.url` there is no broker, and nothing to do.
pub async fn run(parts: Parts, shutdown: Shutdown) {
    let Some(url) = parts.settings.url.clone() else {
        return;
    };
    let mut reporter = Reporter::new(Arc::clone(&parts.health));
    let mut reconnect = Reconnect::default();
    let mut relay = Relay::new(&parts, &shutdown);
    parts.health.down(Part::Outbox, "not connected yet");
    while !shutdown.soft.is_cancelled() {
        let session = session(&parts, &url, &mut relay, &mut reporter, &mut reconnect);
        let ended = tokio::select! {
            ended = session => ended,
            () = shutdown.hard.cancelled() => Ok(()),
        };
        match ended {
            Ok(()) => break,
            Err(Fault::Store(error)) => reporter.down(Part::Outbox, in_our_words(&error)),
            Err(fault) => reporter.down(Part::Outbox, fault.to_string()),
        }
        tokio::select! {
            () = reconnect.pause() => {}
            () = shutdown.soft.cancelled() => {}
        }
    }
    tracing::info!("outbox: publishing stopped");
}

/// One connection, from its beginning to a fault or the end. Who wants to lead has a connection that
/// stands: a leader without one would keep the others from publishing.
async fn session(
    parts: &Parts,
    url: &SecretString,
    relay: &mut Relay<'_>,
    reporter: &mut Reporter,
    reconnect: &mut Reconnect,
) -> Result<(), Fault> {
    let post = tokio::select! {
        post = Post::connect(url, &parts.settings) => post?,
        () = relay.stop_asked() => return Ok(()),
    };
    reporter.up(Part::Outbox);
    tracing::info!(
        exchange = parts.settings.dispatch_exchange,
        "outbox: connected"
    );
    while let Some(leadership) = relay.lead(&post).await? {
        tracing::debug!(fence = leadership.lease().fence, "outbox: leading");
        let relayed = tokio::select! {
            biased;
            () = leadership.keep() => Err(Fault::Deposed),
            relayed = relay.publish(&post, &leadership, reporter, reconnect) => relayed,
        };
        leadership.give_up().await;
        if let relay::Ended::Stopped = relayed? {
            break;
        }
    }
    post.close().await;
    Ok(())
}

/// The database's own text may tell too much for `/readyz`; the log has it.
fn in_our_words(error: &StoreError) -> String {
    tracing::debug!(%error, "outbox: the database");
    "the database does not answer".to_owned()
}
