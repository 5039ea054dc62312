//! The queues that are consumed, and how.

use std::time::Duration;

use crate::broker::topology::Inbox;
use crate::config;
use crate::health::Part;
use crate::telemetry::metric;

/// A queue of ours. Each has a consumer with a connection of its own, so that large state does not
/// hold up small events.
#[derive(Clone, Debug)]
pub struct Source {
    /// What it is called in metrics and in the name of its connection.
    pub name: &'static str,
    /// The queue, its exchange and its dead letters.
    pub inbox: Inbox,
    /// Messages unacknowledged at once.
    pub prefetch: u16,
    /// The most messages that one transaction takes.
    pub batch: usize,
    /// How long a batch waits for more.
    pub linger: Duration,
    /// Whose line in the health report is written.
    pub part: Part,
    /// What became of its messages is counted under this name.
    pub counter: &'static str,
}

impl Source {
    /// Events.
    pub fn events(settings: &config::Amqp) -> Self {
        Self {
            name: "events",
            inbox: Inbox {
                exchange: settings.events_exchange.clone(),
                queue: settings.events_queue.clone(),
                bindings: settings.bindings.clone(),
                dead_letter_exchange: settings.dead_letter_exchange.clone(),
                dead_letter_queue: settings.dead_letter_queue.clone(),
            },
            prefetch: settings.prefetch,
            batch: settings.batch_events,
            linger: settings.batch_linger,
            part: Part::Broker,
            counter: metric::EVENTS,
        }
    }

    /// State, in messages that may be large: few at once.
    pub fn snapshots(settings: &config::Amqp) -> Self {
        Self {
            name: "snapshots",
            inbox: Inbox {
                exchange: settings.snapshots_exchange.clone(),
                queue: settings.snapshots_queue.clone(),
                bindings: settings.snapshots_bindings.clone(),
                dead_letter_exchange: settings.dead_letter_exchange.clone(),
                dead_letter_queue: settings.dead_letter_queue.clone(),
            },
            prefetch: settings.snapshots_prefetch,
            batch: usize::from(settings.snapshots_prefetch),
            linger: settings.batch_linger,
            part: Part::Snapshots,
            counter: metric::SNAPSHOTS,
        }
    }
}
