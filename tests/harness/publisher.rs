//! The Report Forge core, as a test plays it: publishes to the events exchange and does not rest
//! until the broker has confirmed.

use std::time::Duration;

use forge_dispatch::config;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use secrecy::ExposeSecret;

use super::flow::Planned;

/// Messages on their way at once.
const WINDOW: usize = 100;

/// Publishes every event, in order, each until it is confirmed; across restarts of the broker.
pub(crate) async fn publish(settings: &config::Amqp, events: &[Planned]) {
    let mut left = events;
    while !left.is_empty() {
        match publish_some(settings, left).await {
            Ok(()) => return,
            // What was confirmed stays confirmed; the first unconfirmed one begins the next try.
            Err(confirmed) => left = &left[confirmed..],
        }
        look_again().await;
    }
}

/// Publishes until something fails; then says how many were confirmed before it.
async fn publish_some(settings: &config::Amqp, events: &[Planned]) -> Result<(), usize> {
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
    for window in events.chunks(WINDOW) {
        let mut confirms = Vec::new();
        for event in window {
            confirms.push(
                send(&channel, settings, event)
                    .await
                    .map_err(|_| confirmed)?,
            );
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
    settings: &config::Amqp,
    event: &Planned,
) -> lapin::Result<lapin::PublisherConfirm> {
    let properties = BasicProperties::default()
        .with_content_type("application/cloudevents+json".into())
        .with_delivery_mode(2);
    let options = BasicPublishOptions {
        mandatory: true,
        ..BasicPublishOptions::default()
    };
    channel
        .basic_publish(
            settings.events_exchange.as_str().into(),
            event.event_type.into(),
            options,
            &event.body,
            properties,
        )
        .await
}

/// The pause between two tries.
#[expect(clippy::disallowed_methods, reason = "a helper that polls")]
async fn look_again() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}
