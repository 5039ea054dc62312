//! Publishing with confirms: a message counts once the broker says that it has it.

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation, Connection};

use super::error::AmqpError;

/// What became of a message.
#[derive(Debug)]
pub(crate) enum Placed {
    /// Every queue that it belongs to has it, on disk.
    Kept,
    /// No queue is bound for it; the broker's words.
    Returned(String),
    /// The broker could not keep it: a queue is full, or has lost its majority.
    NotKept,
    /// The channel or the connection is gone, or the exchange is not there; perhaps it was kept.
    Failed(lapin::Error),
}

/// A channel whose messages are confirmed. A publish to an exchange that is missing closes it, so
/// that it should be used for nothing else.
#[derive(Clone, Debug)]
pub(crate) struct ConfirmChannel(Channel);

impl ConfirmChannel {
    /// Opens one.
    pub(crate) async fn open(connection: &Connection) -> Result<Self, AmqpError> {
        let channel = connection.create_channel().await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self(channel))
    }

    /// Whether it can still be used.
    pub(crate) fn is_open(&self) -> bool {
        self.0.status().connected()
    }

    /// Sends a message. What this answers with waits for the confirm: a round trip for all that were
    /// sent, where they are awaited together, and not for each.
    pub(crate) async fn send(
        &self,
        exchange: ShortString,
        routing_key: ShortString,
        body: &[u8],
        properties: BasicProperties,
    ) -> impl Future<Output = Placed> + Send + use<> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let sent = self
            .0
            .basic_publish(exchange, routing_key, options, body, properties)
            .await;
        async move {
            match sent {
                Ok(confirm) => judge(confirm.await),
                Err(error) => Placed::Failed(error),
            }
        }
    }
}

/// A message that no queue is bound for comes back, and is confirmed all the same.
fn judge(confirmation: lapin::Result<Confirmation>) -> Placed {
    match confirmation {
        Ok(Confirmation::Ack(None)) => Placed::Kept,
        Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) => {
            Placed::Returned(returned.reply_text.to_string())
        }
        // The channel was opened for confirms: "not requested" is an answer that cannot be.
        Ok(Confirmation::Nack(None) | Confirmation::NotRequested) => Placed::NotKept,
        Err(error) => Placed::Failed(error),
    }
}
