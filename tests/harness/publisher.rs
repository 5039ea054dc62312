//! The Report Forge core, as a test plays it: publishes and does not rest until the broker has
//! confirmed.

use std::time::Duration;

use forge_dispatch::config;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use secrecy::ExposeSecret;

use super::flow::Planned;

/// Messages on their way at once.
const WINDOW: usize = 100;

/// A message: its routing key, and its body.
pub(crate) type Message<'a> = (&'a str, &'a [u8]);

/// Publishes every event, in order, each until it is confirmed; across restarts of the broker.
pub(crate) async fn publish(settings: &config::Amqp, events: &[Planned]) {
    let messages: Vec<Message<'_>> = events
        .iter()
        .map(|event| (event.event_type, event.body.as_slice()))
        .collect();
    publish_to(settings, &settings.events_exchange, &messages).await;
}

/// The same of any messages, to any exchange.
pub(crate) async fn publish_to(settings: &config::Amqp, exchange: &str, messages: &[Message<'_>]) {
    let mut left = messages;
    while !left.is_empty() {
        match publish_some(settings, exchange, left).await {
            Ok(()) => return,
            // What was confirmed stays confirmed; the first unconfirmed one begins the next try.
            Err(confirmed) => left = &left[confirmed..],
        }
        look_again().await;
    }
}

/// Publishes until something fails; then says how many were confirmed before it.
async fn publish_some(
    settings: &config::Amqp,
    exchange: &str,
    messages: &[Message<'_>],
) -> Result<(), usize> {
    let url = settings.url.as_ref().expect("a broker").expose_secret();
    let connection = Connection::connect(url, ConnectionProperties::default())
        .await
        .map_err(|_| 0_usize)?;
    let channel = connection.create_channel().await.map_err(|_| 0_usize)?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await
        .map_err(|_| 0_usize)?;
    let mut confirmed = 0;
    for window in messages.chunks(WINDOW) {
        let mut confirms = Vec::new();
        for message in window {
            let sent = send(&channel, exchange, *message).await;
            confirms.push(sent.map_err(|_| confirmed)?);
        }
        for confirm in confirms {
            match confirm.await {
                Ok(confirmation) if confirmation.is_ack() => confirmed += 1,
                _ => return Err(confirmed),
            }
        }
    }
    drop(connection.close(200, "done".into()).await);
    Ok(())
}

async fn send(
    channel: &Channel,
    exchange: &str,
    (key, body): Message<'_>,
) -> lapin::Result<lapin::PublisherConfirm> {
    let properties = BasicProperties::default()
        .with_content_type("application/cloudevents+json".into())
        .with_delivery_mode(2);
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    channel
        .basic_publish(exchange.into(), key.into(), options, body, properties)
        .await
}

/// The pause between two tries.
#[expect(clippy::disallowed_methods, reason = "a helper that polls")]
async fn look_again() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
