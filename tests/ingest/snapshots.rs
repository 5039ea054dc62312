//! The second queue: state, in messages that may be large, consumed like the first.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use forge_dispatch::clock::SystemClock;
use forge_dispatch::config::Amqp;
use forge_dispatch::health::{Health, Part};
use forge_dispatch::ingest::amqp::{self, Source};
use forge_dispatch::ingest::{Message, Outcome, Sink};
use forge_dispatch::shutdown::Shutdown;
use forge_dispatch::store;
use lapin::types::AMQPValue;
use tokio::task::JoinHandle;

use super::rig::{Operator, PATIENCE, eventually, settings};
use crate::harness::services;

/// The largest message that the core sends (product.md §3).
const LARGEST: usize = 16 * 1024 * 1024;

/// Takes whatever does not begin with a `!`, and remembers how long it was.
#[derive(Clone, Default)]
struct Lengths(Arc<Mutex<Vec<usize>>>);

impl Lengths {
    fn sorted(&self) -> Vec<usize> {
        let mut lengths = self.0.lock().unwrap().clone();
        lengths.sort_unstable();
        lengths
    }
}

#[async_trait]
impl Sink for Lengths {
    type Item = usize;

    fn decode(&self, Message { bytes, .. }: Message<'_>) -> Result<usize, String> {
        match bytes.first() {
            Some(b'!') => Err("begins with a `!`".to_owned()),
            _ => Ok(bytes.len()),
        }
    }

    async fn keep(&self, items: &[usize]) -> store::Result<Vec<Outcome>> {
        // One at a time, as a store may: the rest is offered again.
        self.0.lock().unwrap().push(items[0]);
        Ok(vec![Outcome::Stored])
    }

    async fn ready(&self) -> store::Result<()> {
        Ok(())
    }
}

struct Consumer {
    settings: Amqp,
    kept: Lengths,
    broker: Operator,
    health: Arc<Health>,
    shutdown: Shutdown,
    running: JoinHandle<()>,
}

impl Consumer {
    async fn start() -> Self {
        let url = services::amqp_url().await;
        let settings = Amqp {
            snapshots_prefetch: 2,
            ..settings(&url)
        };
        let (kept, health, shutdown) = (Lengths::default(), Arc::default(), Shutdown::default());
        let running = amqp::run(
            url.as_str().into(),
            Source::snapshots(&settings),
            kept.clone(),
            Arc::new(SystemClock),
            Arc::clone(&health),
            shutdown.clone(),
        );
        let consumer = Self {
            broker: Operator::connect(&url).await,
            settings,
            kept,
            running: tokio::spawn(running),
            health,
            shutdown,
        };
        eventually("it consumes", async || {
            let parts = consumer.health.parts();
            parts.contains(&(Part::Snapshots, None))
        })
        .await;
        consumer
    }

    async fn publish(&self, key: &str, bodies: &[Vec<u8>]) {
        let exchange = &self.settings.snapshots_exchange;
        self.broker.publish(exchange, key, bodies).await;
    }

    async fn stop_and_find_nothing_left(self) {
        self.shutdown.begin();
        tokio::time::timeout(PATIENCE, self.running)
            .await
            .expect("it stops")
            .expect("it does not panic");
        assert_eq!(self.broker.ready(&self.settings.snapshots_queue).await, 0);
    }
}

#[tokio::test]
async fn state_of_any_kind_comes_by_a_queue_of_its_own() {
    let consumer = Consumer::start().await;
    for (length, key) in [
        (1, "edition.snapshot"),
        (2, "project.deleted"),
        (3, "x.y.z"),
    ] {
        consumer.publish(key, &[vec![b'.'; length]]).await;
    }
    eventually("all are kept", async || consumer.kept.sorted() == [1, 2, 3]).await;
    consumer.stop_and_find_nothing_left().await;
}

#[tokio::test]
async fn the_largest_messages_are_taken_and_more_of_them_than_are_held_at_once() {
    let consumer = Consumer::start().await;
    let count = usize::from(consumer.settings.snapshots_prefetch) + 2;
    for _ in 0..count {
        let large = vec![b'.'; LARGEST];
        consumer.publish("edition.snapshot", &[large]).await;
    }
    eventually("all are kept", async || {
        consumer.kept.sorted().len() == count
    })
    .await;
    assert_eq!(consumer.kept.sorted(), vec![LARGEST; count]);
    consumer.stop_and_find_nothing_left().await;
}

#[tokio::test]
async fn what_cannot_be_used_goes_to_the_dead_letters_under_the_name_of_this_queue() {
    let consumer = Consumer::start().await;
    consumer
        .publish("edition.snapshot", &[b"!".to_vec(), b".".to_vec()])
        .await;
    let queue = &consumer.settings.dead_letter_queue;
    let letter = consumer.broker.take(queue).await;
    let headers = letter.delivery.properties.headers().clone().unwrap();
    let header = |name: &str| headers.inner().get(name).cloned();
    let text = |text: &str| Some(AMQPValue::LongString(text.into()));
    assert_eq!(header("x-forge-reason"), text("begins with a `!`"));
    let queue = text(&consumer.settings.snapshots_queue);
    assert_eq!(header("x-forge-queue"), queue);
    eventually("the other is kept", async || consumer.kept.sorted() == [1]).await;
    consumer.stop_and_find_nothing_left().await;
}
