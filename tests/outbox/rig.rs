//! A relay, the exchange that it publishes to, and a queue on it: the core, as a test plays it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::config::Amqp;
use forge_dispatch::domain::event::Event;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::health::{Health, Part};
use forge_dispatch::outbox::{self, Pace, Parts};
use forge_dispatch::shutdown::Shutdown;
use forge_dispatch::store::Store;
use forge_dispatch::telemetry::Tracer;
use forge_dispatch::wake::Wake;
use lapin::message::Delivery;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind};
use secrecy::ExposeSecret;
use tokio::task::JoinHandle;

use crate::harness::events::{EventBuilder, event};
use crate::harness::eventually;

/// Generous: the machine may be running everything else at the same time.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// A lease that no stall of a busy machine outlasts: what is seen is not the end of a lease.
const STEADY: Pace = Pace {
    lease: Duration::from_mins(2),
    poll: Duration::from_millis(500),
    drain: PATIENCE,
};

/// A relay of its own process, as it were.
pub(super) struct Relay {
    pub(super) health: Arc<Health>,
    shutdown: Shutdown,
    running: JoinHandle<()>,
}

impl Relay {
    /// Starts one on this store, which it opens the outbox of.
    pub(super) fn start(store: &Arc<dyn Store>, settings: &Amqp) -> Self {
        Self::start_by(store, settings, Arc::new(SystemClock))
    }

    /// The same with a clock of the test's own to measure leases with.
    pub(super) fn start_by(store: &Arc<dyn Store>, settings: &Amqp, clock: Arc<dyn Clock>) -> Self {
        let bell = Arc::new(Wake::default());
        store.open_outbox(Arc::clone(&bell));
        let (health, shutdown) = (Arc::new(Health::default()), Shutdown::default());
        let entropy = Entropy::system();
        let parts = Parts {
            store: Arc::clone(store),
            clock,
            owner: entropy.id(SystemClock.now()),
            entropy,
            health: Arc::clone(&health),
            settings: settings.clone(),
            bell,
            pace: STEADY,
            tracer: Tracer::default(),
        };
        health.down(Part::Outbox, "not started yet");
        Self {
            running: tokio::spawn(outbox::run(parts, shutdown.clone())),
            health,
            shutdown,
        }
    }

    /// Stops it in good order.
    pub(super) async fn stop(self) {
        self.shutdown.begin();
        tokio::time::timeout(PATIENCE, self.running)
            .await
            .expect("it stops")
            .expect("it does not panic");
    }

    /// Ends it as a crash would, wherever it is.
    pub(super) async fn crash(self) {
        self.running.abort();
        self.running.await.expect_err("it is aborted");
    }

    /// Waits until a fault is told that holds this text.
    pub(super) async fn tells(&self, text: &str) {
        eventually(PATIENCE, &format!("`{text}` is told"), async || {
            let faults = self.health.faults();
            faults
                .iter()
                .any(|(part, reason)| *part == Part::Outbox && reason.contains(text))
        })
        .await;
    }

    /// Waits until it is connected and all is well.
    pub(super) async fn is_up(&self) {
        eventually(PATIENCE, "the relay is up", async || {
            self.health.faults().is_empty()
        })
        .await;
    }
}

/// Waits until nothing is left in the outbox.
pub(super) async fn until_empty(store: &Arc<dyn Store>) {
    eventually(PATIENCE, "the outbox is empty", async || {
        let depth = store.outbox_depth().await;
        depth.is_ok_and(|depth| depth.waiting == 0)
    })
    .await;
}

/// An event about an edition, with a number of its own.
pub(super) fn numbered(edition: &str, number: usize) -> EventBuilder {
    event()
        .id(&format!("{edition}/{number}"))
        .event_type("edition.changed")
        .data(&format!(
            r#"{{"edition_id":"{edition}","version":{number}}}"#
        ))
}

pub(super) async fn publish(store: &Arc<dyn Store>, events: &[EventBuilder]) {
    let events: Vec<Event> = events
        .iter()
        .map(|event| event.build().event().clone())
        .collect();
    store.publish(&events).await.unwrap();
}

/// What the core has of it: a queue on the exchange, made before the relay starts.
pub(crate) struct Core {
    channel: Channel,
    queue: String,
    _connection: Connection,
}

impl Core {
    /// Binds a durable queue with these arguments to the exchange, which it declares.
    pub(crate) async fn bound(settings: &Amqp, pattern: &str, arguments: FieldTable) -> Self {
        let core = Self::at(settings, pattern).await;
        let exchange = settings.dispatch_exchange.as_str();
        let durable = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let none = FieldTable::default;
        core.channel
            .exchange_declare(exchange.into(), ExchangeKind::Topic, durable, none())
            .await
            .unwrap();
        let durable = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        core.channel
            .queue_declare(core.queue.as_str().into(), durable, arguments)
            .await
            .unwrap();
        core.channel
            .queue_bind(
                core.queue.as_str().into(),
                exchange.into(),
                pattern.into(),
                QueueBindOptions::default(),
                none(),
            )
            .await
            .unwrap();
        core
    }

    /// A queue for everything.
    pub(crate) async fn all(settings: &Amqp) -> Self {
        Self::bound(settings, "#", FieldTable::default()).await
    }

    /// The queue that was bound with this pattern, over a new connection.
    pub(crate) async fn at(settings: &Amqp, pattern: &str) -> Self {
        let url = settings.url.as_ref().expect("a broker").expose_secret();
        let connection = Connection::connect(url, ConnectionProperties::default());
        let connection = connection.await.expect("the broker serves");
        Self {
            channel: connection.create_channel().await.unwrap(),
            queue: format!("{}.core.{pattern}", settings.dispatch_exchange),
            _connection: connection,
        }
    }

    /// The next message, if there is one now.
    pub(crate) async fn next(&self) -> Option<Delivery> {
        let options = BasicGetOptions { no_ack: true };
        let got = self
            .channel
            .basic_get(self.queue.as_str().into(), options)
            .await
            .unwrap();
        got.map(|message| message.delivery)
    }

    /// Takes messages until this holds of what was taken so far.
    pub(crate) async fn take_until(
        &self,
        what: &str,
        taken: &mut Vec<Delivery>,
        enough: impl Fn(&[Delivery]) -> bool,
    ) {
        let taking = async {
            let mut interval = tokio::time::interval(Duration::from_millis(20));
            while !enough(taken) {
                match self.next().await {
                    Some(message) => taken.push(message),
                    None => {
                        interval.tick().await;
                    }
                }
            }
        };
        let done = tokio::time::timeout(PATIENCE, taking).await;
        assert!(
            done.is_ok(),
            "not within {PATIENCE:?}: {what}; {} messages came",
            taken.len()
        );
    }

    /// Publishes an envelope to the events exchange, as the core does.
    pub(crate) async fn tell(&self, settings: &Amqp, envelope: &[u8]) {
        self.channel
            .basic_publish(
                settings.events_exchange.as_str().into(),
                "edition.changed".into(),
                BasicPublishOptions::default(),
                envelope,
                BasicProperties::default(),
            )
            .await
            .unwrap();
    }

    /// Takes so many messages.
    pub(crate) async fn take(&self, count: usize) -> Vec<Delivery> {
        let mut taken = Vec::new();
        let what = format!("{count} messages");
        self.take_until(&what, &mut taken, |taken| taken.len() >= count)
            .await;
        taken
    }
}

/// The ids of messages.
pub(crate) fn ids(messages: &[Delivery]) -> Vec<String> {
    messages
        .iter()
        .map(|message| {
            let id = message.properties.message_id().as_ref();
            id.expect("every message has an id").to_string()
        })
        .collect()
}

/// Checks that of [`numbered`] events each edition's came in their order, copies left aside.
pub(crate) fn check_order(messages: &[Delivery]) {
    let mut next: HashMap<String, usize> = HashMap::new();
    for id in ids(messages) {
        let (edition, number) = id.split_once('/').expect("numbered");
        let number: usize = number.parse().unwrap();
        let next = next.entry(edition.to_owned()).or_default();
        assert!(number <= *next, "{id} came where {next} was due");
        *next = (*next).max(number + 1);
    }
}
