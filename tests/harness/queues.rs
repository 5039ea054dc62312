//! Queues on the shared broker: names of a test's own, and looks at what they hold.

use std::time::Duration;

use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::config;
use forge_dispatch::domain::ids::OwnerId;
use forge_dispatch::entropy::Entropy;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use secrecy::{ExposeSecret, SecretString};

use super::services::amqp_url;
use super::{eventually, simple};

/// Settings for the shared broker with exchanges and queues that nobody else has.
pub(crate) async fn unique() -> config::Amqp {
    let run: OwnerId = Entropy::system().id(SystemClock.now());
    config::Amqp {
        url: Some(SecretString::from(amqp_url().await)),
        events_exchange: format!("{run}.events"),
        events_queue: format!("{run}.queue"),
        snapshots_exchange: format!("{run}.snapshots"),
        snapshots_queue: format!("{run}.snapshots.queue"),
        dispatch_exchange: format!("{run}.dispatch"),
        dead_letter_exchange: format!("{run}.dead-letter"),
        dead_letter_queue: format!("{run}.dead-letter.queue"),
        ..config::Amqp::default()
    }
}

/// The queues that the program consumes.
fn consumed(settings: &config::Amqp) -> [&str; 2] {
    [&settings.events_queue, &settings.snapshots_queue]
}

/// Waits until the program has declared its queues and listens to them.
pub(crate) async fn declared(settings: &config::Amqp) {
    for queue in consumed(settings) {
        let what = format!("{queue} has a consumer");
        eventually(simple::PATIENCE, &what, async || {
            look(settings, queue)
                .await
                .is_some_and(|(_, consumers)| consumers > 0)
        })
        .await;
    }
}

/// Waits until the program's queues have no message ready.
pub(crate) async fn drained(settings: &config::Amqp, deadline: Duration) {
    for queue in consumed(settings) {
        let what = format!("{queue} is empty");
        eventually(deadline, &what, async || {
            look(settings, queue)
                .await
                .is_some_and(|(messages, _)| messages == 0)
        })
        .await;
    }
}

/// After the program has stopped: nothing is left in its queues (what was unacknowledged would be
/// ready again) and nothing in the dead letters.
pub(crate) async fn check_empty(settings: &config::Amqp) {
    for queue in consumed(settings) {
        let what = format!("the consumers of {queue} are gone");
        eventually(simple::PATIENCE, &what, async || {
            look(settings, queue)
                .await
                .is_some_and(|(_, consumers)| consumers == 0)
        })
        .await;
    }
    let left = async |queue: &str| look(settings, queue).await.map(|(messages, _)| messages);
    assert_eq!(
        (
            left(&settings.events_queue).await,
            left(&settings.snapshots_queue).await,
            left(&settings.dead_letter_queue).await
        ),
        (Some(0), Some(0), Some(0)),
        "(events left, snapshots left, dead letters)"
    );
}

/// Messages ready and consumers of a queue; `None` if there is no such queue, or no broker.
pub(crate) async fn look(settings: &config::Amqp, queue: &str) -> Option<(u32, u32)> {
    let url = settings.url.as_ref()?.expose_secret();
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .ok()?;
    let channel = connection.create_channel().await.ok()?;
    let options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::default()
    };
    let found = channel
        .queue_declare(queue.into(), options, FieldTable::default())
        .await
        .ok()
        .map(|queue| (queue.message_count(), queue.consumer_count()));
    drop(connection.close(200, "done".into()).await);
    found
}
