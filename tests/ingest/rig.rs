//! A broker's corner of its own, a database, and the consumer between them.

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::clock::SystemClock;
use forge_dispatch::config::Amqp;
use forge_dispatch::domain::ids::WorkspaceId;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::health::{Health, Part};
use forge_dispatch::ingest::amqp::{self, Source};
use forge_dispatch::ingest::{Acceptor, Decoder};
use forge_dispatch::shutdown::Shutdown;
use forge_dispatch::store::intake::{Intake, NoDispatch};
use forge_dispatch::store::{Leasing, Store};
use forge_dispatch::telemetry::Tracer;
use futures::future::join_all;
use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Queue};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{Connection as _, SqliteConnection};
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::harness::databases::{Kind, TestDatabase};
use crate::harness::services;

/// Names that no other test has, on the broker of this URL.
pub(super) fn settings(url: &str) -> Amqp {
    let test = Uuid::from_bytes(Entropy::system().bytes()).simple();
    Amqp {
        url: Some(SecretString::from(url)),
        events_exchange: format!("{test}.events"),
        events_queue: format!("{test}.queue"),
        snapshots_exchange: format!("{test}.snapshots"),
        snapshots_queue: format!("{test}.snapshots.queue"),
        dispatch_exchange: format!("{test}.dispatch"),
        dead_letter_exchange: format!("{test}.dead-letter"),
        dead_letter_queue: format!("{test}.dead-letters"),
        ..Amqp::default()
    }
}

/// A consumer, and what a test needs around it.
pub(super) struct Rig {
    pub(super) settings: Amqp,
    pub(super) db: TestDatabase,
    pub(super) health: Arc<Health>,
    /// The test's own connection, past any proxy.
    pub(super) broker: Operator,
    acceptor: Acceptor,
    running: Option<(Shutdown, JoinHandle<()>)>,
}

impl Rig {
    /// On the shared broker, with a database on `SQLite`; nothing runs yet.
    pub(super) async fn new() -> Self {
        let url = services::amqp_url().await;
        let db = TestDatabase::new(Kind::Sqlite).await;
        let store = Arc::clone(&db.store);
        Self::with(settings(&url), db, store).await
    }

    /// With these settings, into this store.
    pub(super) async fn with(settings: Amqp, db: TestDatabase, store: Arc<dyn Store>) -> Self {
        let broker = Operator::connect(settings.url.as_ref().unwrap().expose_secret()).await;
        Self {
            acceptor: acceptor(store),
            settings,
            db,
            health: Arc::new(Health::default()),
            broker,
            running: None,
        }
    }

    /// Hands committed deliveries to another dispatcher than none.
    pub(super) fn intake(&mut self, intake: Arc<dyn Intake>) {
        self.acceptor.intake = intake;
    }

    /// Starts the consumer and waits until it consumes.
    pub(super) async fn start(&mut self) {
        self.launch();
        eventually("the consumer consumes", async || {
            self.health.faults().is_empty()
        })
        .await;
    }

    /// Starts the consumer where it cannot consume, and answers what is told of the part.
    pub(super) async fn start_and_hear_of(&mut self, part: Part) -> String {
        self.launch();
        let mut told = None;
        eventually("a fault is told", async || {
            let faults = self.health.faults();
            told = faults
                .into_iter()
                .find(|(faulty, reason)| *faulty == part && !reason.starts_with("not "));
            told.is_some()
        })
        .await;
        told.expect("it was found").1
    }

    fn launch(&mut self) {
        let shutdown = Shutdown::default();
        self.health.down(Part::Broker, "not started yet");
        let running = amqp::run(
            self.settings.url.clone().expect("there is a broker"),
            Source::events(&self.settings),
            self.acceptor.clone(),
            Arc::new(SystemClock),
            Arc::clone(&self.health),
            shutdown.clone(),
        );
        self.running = Some((shutdown, tokio::spawn(running)));
    }

    /// The shared or the test's own broker, past any proxy.
    pub(super) fn broker_url(&self) -> String {
        let url = self.settings.url.as_ref().expect("there is a broker");
        url.expose_secret().to_owned()
    }

    /// The projects of the stored events, in the order of the feed.
    pub(super) async fn projects_in_feed(&self) -> Vec<String> {
        let path = self.db.path();
        let mut connection = SqliteConnection::connect(&format!("sqlite://{}", path.display()))
            .await
            .unwrap();
        sqlx::query_scalar(
            "select event.project from event_feed join event on event.id = event_feed.event_id
             order by event_feed.position",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap()
    }

    /// Stops it in good order.
    pub(super) async fn stop(&mut self) {
        let (shutdown, running) = self.running.take().expect("it runs");
        shutdown.begin();
        tokio::time::timeout(PATIENCE, running)
            .await
            .expect("it stops")
            .expect("it does not panic");
    }

    /// Ends it as a crash would, wherever it is.
    pub(super) async fn crash(&mut self) {
        let (_, running) = self.running.take().expect("it runs");
        running.abort();
        running.await.expect_err("it is aborted");
    }

    /// Publishes to the events exchange and waits for the broker's confirms.
    pub(super) async fn publish(&self, bodies: impl IntoIterator<Item = impl AsRef<[u8]>>) {
        let exchange = &self.settings.events_exchange;
        self.broker
            .publish(exchange, "edition.archived", bodies)
            .await;
    }

    /// How many events are stored.
    pub(super) async fn stored(&self) -> usize {
        self.db.feed(&WorkspaceId::default()).await.len()
    }

    /// Waits until so many events are stored.
    pub(super) async fn until_stored(&self, count: usize) {
        eventually(&format!("{count} events are stored"), async || {
            self.stored().await == count
        })
        .await;
    }

    /// Messages in our queue that no consumer has.
    pub(super) async fn waiting(&self) -> u32 {
        self.broker.ready(&self.settings.events_queue).await
    }

    /// Messages in our queue after the consumer stopped. What it held is back when the queue knows it
    /// no longer, which can take the broker a moment longer than the closing of the connection.
    pub(super) async fn left(&self) -> u32 {
        let queue = &self.settings.events_queue;
        eventually("the queue's consumer is gone", async || {
            self.broker.look(queue).await.consumer_count() == 0
        })
        .await;
        self.waiting().await
    }

    /// Checks that nothing was left on the broker: not in our queue, and not unacknowledged. Then
    /// cleans up.
    pub(super) async fn stop_and_find_nothing_left(mut self) {
        self.stop().await;
        assert_eq!(self.left().await, 0, "messages are left in the queue");
        self.find_no_dead_letters().await;
        self.remove().await;
    }

    /// The same after a fault: what was acknowledged in vain comes again, though it is stored, so
    /// that the consumer is given the time to take it.
    pub(super) async fn come_to_rest_and_find_nothing_left(mut self) {
        eventually("the queue is empty once the consumer is gone", async || {
            self.stop().await;
            let empty = self.left().await == 0;
            if !empty {
                self.start().await;
            }
            empty
        })
        .await;
        self.find_no_dead_letters().await;
        self.remove().await;
    }

    async fn find_no_dead_letters(&self) {
        let letters = self.broker.ready(&self.settings.dead_letter_queue).await;
        assert_eq!(letters, 0, "there are dead letters");
    }

    /// Takes its things off the shared servers.
    pub(super) async fn remove(self) {
        let channel = self.broker.channel().await;
        for queue in [
            &self.settings.events_queue,
            &self.settings.snapshots_queue,
            &self.settings.dead_letter_queue,
        ] {
            channel
                .queue_delete(queue.as_str().into(), QueueDeleteOptions::default())
                .await
                .unwrap();
        }
        for exchange in [
            &self.settings.events_exchange,
            &self.settings.snapshots_exchange,
            &self.settings.dead_letter_exchange,
        ] {
            channel
                .exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default())
                .await
                .unwrap();
        }
        self.db.remove().await;
    }
}

/// Into this store, without a dispatcher.
pub(super) fn acceptor(store: Arc<dyn Store>) -> Acceptor {
    Acceptor {
        decoder: Decoder::new(Arc::new(SystemClock), Entropy::system()),
        store,
        intake: Arc::new(NoDispatch),
        leasing: Leasing {
            owner: Entropy::system().id(chrono::DateTime::UNIX_EPOCH),
            lease: Duration::from_mins(1),
        },
        tracer: Tracer::default(),
    }
}

/// The broker, as a person with a client sees it.
pub(super) struct Operator(Connection);

impl Operator {
    pub(super) async fn connect(url: &str) -> Self {
        let connection = Connection::connect(url, ConnectionProperties::default()).await;
        Self(connection.expect("the broker serves"))
    }

    /// A new channel: a refused request closes the one that it was made on.
    pub(super) async fn channel(&self) -> Channel {
        self.0.create_channel().await.unwrap()
    }

    /// Publishes, and waits for the confirms.
    pub(super) async fn publish(
        &self,
        exchange: &str,
        key: &str,
        bodies: impl IntoIterator<Item = impl AsRef<[u8]>>,
    ) {
        let channel = self.channel().await;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await
            .unwrap();
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_message_id("m1".into());
        let mut confirms = Vec::new();
        for body in bodies {
            let sent = channel.basic_publish(
                exchange.into(),
                key.into(),
                options,
                body.as_ref(),
                properties.clone(),
            );
            confirms.push(sent.await.unwrap());
        }
        for confirmation in join_all(confirms).await {
            assert_eq!(confirmation.unwrap(), Confirmation::Ack(None));
        }
        channel.close(200, "done".into()).await.unwrap();
    }

    /// How many messages of a queue no consumer has.
    pub(super) async fn ready(&self, queue: &str) -> u32 {
        self.look(queue).await.message_count()
    }

    /// What the broker says of a queue.
    async fn look(&self, queue: &str) -> Queue {
        let channel = self.channel().await;
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let state = channel
            .queue_declare(queue.into(), options, FieldTable::default())
            .await
            .unwrap();
        channel.close(200, "done".into()).await.unwrap();
        state
    }

    /// Takes the next message off a queue; waits for one.
    pub(super) async fn take(&self, queue: &str) -> BasicGetMessage {
        let channel = self.channel().await;
        let mut taken = None;
        eventually(&format!("a message in {queue}"), async || {
            let options = BasicGetOptions { no_ack: true };
            taken = channel.basic_get(queue.into(), options).await.unwrap();
            taken.is_some()
        })
        .await;
        channel.close(200, "done".into()).await.unwrap();
        taken.unwrap()
    }
}

/// Generous: the machine may be running everything else at the same time.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

/// Looks until it is so, and tells what was waited for if it never is.
#[expect(
    clippy::disallowed_methods,
    reason = "looks at servers that tell nobody when something changed"
)]
pub(super) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, looking).await;
    assert!(found.is_ok(), "not within {PATIENCE:?}: {what}");
}
