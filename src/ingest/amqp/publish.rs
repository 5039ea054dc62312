//! Publishing an event as the core does it: for `events publish`.

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, Connection};
use secrecy::SecretString;

use super::connection::{self, short};
use super::error::{AmqpError, NOT_FOUND, reply_code};
use crate::config;
use crate::domain::filter::EventType;

/// Publishes one event and waits until the broker has it on disk. Declares nothing: an exchange
/// that is missing, or that no queue is bound to, is an error.
pub async fn publish(
    url: &SecretString,
    settings: &config::Amqp,
    envelope: &[u8],
    event_type: &EventType,
) -> Result<(), AmqpError> {
    let publisher = Publisher::connect(url, settings).await?;
    let outcome = publisher.publish(envelope, event_type).await;
    publisher.close().await;
    outcome
}

/// A connection that events are published over.
#[derive(Debug)]
pub struct Publisher {
    connection: Connection,
    channel: Channel,
    exchange: String,
}

impl Publisher {
    /// Connects to the broker.
    pub async fn connect(url: &SecretString, settings: &config::Amqp) -> Result<Self, AmqpError> {
        let connection = connection::connect(url, "forge-dispatch publish").await?;
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            connection,
            channel,
            exchange: settings.events_exchange.clone(),
        })
    }

    /// Publishes an event: persistent, confirmed, and refused where no queue would get it.
    pub async fn publish(&self, envelope: &[u8], event_type: &EventType) -> Result<(), AmqpError> {
        let properties = BasicProperties::default()
            .with_content_type("application/cloudevents+json".into())
            .with_delivery_mode(super::PERSISTENT);
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let (exchange, key) = (short(&self.exchange)?, short(event_type.as_str())?);
        let sent = self
            .channel
            .basic_publish(exchange, key, options, envelope, properties);
        let confirmed = match sent.await {
            Ok(confirm) => confirm.await,
            Err(error) => Err(error),
        };
        match confirmed {
            Ok(Confirmation::Ack(None)) => Ok(()),
            Ok(Confirmation::Ack(Some(_)) | Confirmation::Nack(Some(_))) => {
                Err(AmqpError::Unroutable {
                    exchange: self.exchange.clone(),
                    routing_key: event_type.to_string(),
                })
            }
            Ok(Confirmation::Nack(None) | Confirmation::NotRequested) => Err(AmqpError::NotKept),
            Err(error) if reply_code(&error) == Some(NOT_FOUND) => {
                Err(AmqpError::NoExchange(self.exchange.clone()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Says goodbye.
    pub async fn close(self) {
        connection::close(&self.connection).await;
    }
}
