//! A connection to the broker, and a batch published over it.

use std::collections::HashSet;
use std::time::Duration;

use futures::future::join_all;
use lapin::BasicProperties;
use lapin::types::ShortString;
use metrics::counter;
use secrecy::SecretString;

use super::Fault;
use crate::broker::confirm::{ConfirmChannel, Placed};
use crate::broker::connection::{self, Line, short};
use crate::broker::{AmqpError, CLOUDEVENTS_JSON, PERSISTENT, topology};
use crate::config;
use crate::domain::ids::{EditionId, WorkspaceId};
use crate::store::Outgoing;
use crate::store::leadership::Leadership;
use crate::telemetry::metric;

/// How long the broker may take to confirm what was sent at once. One that is out of memory or disk
/// takes nothing and says nothing.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

/// Where events go.
pub(super) struct Post {
    line: Line,
    channel: ConfirmChannel,
    exchange: ShortString,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(super) struct Posted {
    /// The broker has these.
    pub(super) confirmed: Vec<i64>,
    /// The broker could not keep these; the later ones of their keys were not sent.
    pub(super) failed: Vec<i64>,
    /// What ended it early: the rest was not sent, or may have arrived all the same.
    pub(super) fault: Option<Fault>,
}

/// What events are in order within.
type Key<'a> = (&'a WorkspaceId, &'a EditionId);

fn key(event: &Outgoing) -> Option<Key<'_>> {
    event.key.as_ref().map(|key| (&event.workspace, key))
}

impl Post {
    /// Connects, and declares the exchange if it is missing.
    pub(super) async fn connect(
        url: &SecretString,
        settings: &config::Amqp,
    ) -> Result<Self, AmqpError> {
        let line = Line::new(connection::connect(url, "forge-dispatch outbox").await?);
        topology::declare_exchange(&line, &settings.dispatch_exchange).await?;
        let channel = ConfirmChannel::open(&line).await?;
        Ok(Self {
            line,
            channel,
            exchange: short(&settings.dispatch_exchange)?,
        })
    }

    /// Whether it still stands, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        self.line.status().connected() && self.channel.is_open()
    }

    /// Publishes a batch, in waves: an event is sent once the one before it of its key is confirmed,
    /// since a broker that refuses the first may well take the second. Most batches are of many keys
    /// and one wave.
    pub(super) async fn publish(&self, batch: &[Outgoing], leadership: &Leadership) -> Posted {
        let mut posted = Posted::default();
        let mut left: Vec<&Outgoing> = batch.iter().collect();
        while !left.is_empty() {
            if !leadership.holds() {
                posted.fault = Some(Fault::Deposed);
                return posted;
            }
            let mut keys = HashSet::new();
            let (wave, later): (Vec<_>, Vec<_>) = left
                .into_iter()
                .partition(|&event| key(event).is_none_or(|key| keys.insert(key)));
            let sending = self.send(&wave);
            let Ok(placed) = tokio::time::timeout(CONFIRM_TIMEOUT, sending).await else {
                posted.fault = Some(AmqpError::Silent(CONFIRM_TIMEOUT).into());
                return posted;
            };
            let mut blocked = HashSet::new();
            for (event, placed) in wave.into_iter().zip(placed) {
                if posted.take(event, placed) == Taken::Failed {
                    blocked.extend(key(event));
                }
            }
            if posted.fault.is_some() {
                return posted;
            }
            left = later;
            left.retain(|event| key(event).is_none_or(|key| !blocked.contains(&key)));
        }
        posted
    }

    /// Sends all, and waits for the confirms together.
    async fn send(&self, wave: &[&Outgoing]) -> Vec<Placed> {
        let mut confirms = Vec::with_capacity(wave.len());
        for event in wave {
            let routing_key = event.event_type.as_str().into();
            let body = event.body.as_bytes();
            let sent =
                self.channel
                    .send(self.exchange.clone(), routing_key, body, properties(event));
            confirms.push(sent.await);
        }
        join_all(confirms).await
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        connection::close(&self.line).await;
    }
}

/// Whether later events of the same key may follow.
#[derive(PartialEq, Eq)]
enum Taken {
    Confirmed,
    Failed,
}

impl Posted {
    fn take(&mut self, event: &Outgoing, placed: Placed) -> Taken {
        let (taken, outcome) = match placed {
            Placed::Kept => {
                self.confirmed.push(event.seq);
                (Taken::Confirmed, "published")
            }
            // Nobody wants to know: the exchange is there for those who bind a queue to it.
            Placed::Returned(told) => {
                self.confirmed.push(event.seq);
                let routing_key = event.event_type.as_str();
                tracing::debug!(routing_key, told, "outbox: no queue is bound for an event");
                (Taken::Confirmed, "unroutable")
            }
            Placed::NotKept => {
                self.failed.push(event.seq);
                (Taken::Failed, "failed")
            }
            Placed::Failed(error) => {
                self.fault = Some(AmqpError::from(error).into());
                (Taken::Failed, "failed")
            }
        };
        counter!(metric::OUTBOX_PUBLISHED, "outcome" => outcome).increment(1);
        taken
    }
}

fn properties(event: &Outgoing) -> BasicProperties {
    let properties = BasicProperties::default()
        .with_content_type(CLOUDEVENTS_JSON.into())
        .with_delivery_mode(PERSISTENT);
    // Ids of our own are short; AMQP could not carry every id that an envelope may have.
    match short(&event.message_id) {
        Ok(id) => properties.with_message_id(id),
        Err(_) => properties,
    }
}
