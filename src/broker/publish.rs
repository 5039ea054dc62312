//! Publishing an event or a snapshot as the core does it: for `events publish`.

use lapin::{BasicProperties, Connection};
use secrecy::SecretString;

use super::confirm::{ConfirmChannel, Placed};
use super::connection::{self, short};
use super::error::{AmqpError, NOT_FOUND, reply_code};
use super::{CLOUDEVENTS_JSON, PERSISTENT};
use crate::domain::filter::EventType;

/// Publishes one message to an exchange and waits until the broker has it on disk. Declares nothing: an exchange
/// that is missing, or that no queue is bound to, is an error.
pub async fn publish(
    url: &SecretString,
    exchange: &str,
    envelope: &[u8],
    event_type: &EventType,
) -> Result<(), AmqpError> {
    let publisher = Publisher::connect(url, exchange).await?;
    let outcome = publisher.publish(envelope, event_type).await;
    publisher.close().await;
    outcome
}

/// A connection that messages are published over.
#[derive(Debug)]
pub struct Publisher {
    connection: Connection,
    channel: ConfirmChannel,
    exchange: String,
}

impl Publisher {
    /// Connects to the broker, to publish to this exchange.
    pub async fn connect(url: &SecretString, exchange: &str) -> Result<Self, AmqpError> {
        let connection = connection::connect(url, "forge-dispatch publish").await?;
        let channel = ConfirmChannel::open(&connection).await?;
        Ok(Self {
            connection,
            channel,
            exchange: exchange.to_owned(),
        })
    }

    /// Publishes a message: persistent, confirmed, and refused where no queue would get it.
    pub async fn publish(&self, envelope: &[u8], event_type: &EventType) -> Result<(), AmqpError> {
        let properties = BasicProperties::default()
            .with_content_type(CLOUDEVENTS_JSON.into())
            .with_delivery_mode(PERSISTENT);
        let (exchange, key) = (short(&self.exchange)?, short(event_type.as_str())?);
        let sent = self.channel.send(exchange, key, envelope, properties);
        match sent.await.await {
            Placed::Kept => Ok(()),
            Placed::Returned(_) => Err(AmqpError::Unroutable {
                exchange: self.exchange.clone(),
                routing_key: event_type.to_string(),
            }),
            Placed::NotKept => Err(AmqpError::NotKept),
            Placed::Failed(error) if reply_code(&error) == Some(NOT_FOUND) => {
                Err(AmqpError::NoExchange(self.exchange.clone()))
            }
            Placed::Failed(error) => Err(error.into()),
        }
    }

    /// Says goodbye.
    pub async fn close(self) {
        connection::close(&self.connection).await;
    }
}
