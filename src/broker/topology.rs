//! The exchanges, queues and bindings that this program needs: what is missing is declared, what
//! conflicts is told. Nothing is ever deleted or changed; a binding that was taken out of the
//! configuration is left to the operator.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ExchangeKind};

use super::connection::short;
use super::error::{ACCESS_REFUSED, AmqpError, PRECONDITION_FAILED, reply_code};

/// A queue of ours on an exchange of the core's, and where its dead letters go.
#[derive(Clone, Debug)]
pub struct Inbox {
    /// The topic exchange that the core publishes to.
    pub exchange: String,
    /// Our quorum queue on it.
    pub queue: String,
    /// The routing patterns that the queue is bound with.
    pub bindings: Vec<String>,
    /// Where messages go that cannot be used.
    pub dead_letter_exchange: String,
    /// The quorum queue that keeps them.
    pub dead_letter_queue: String,
}

/// Declares all of it.
pub(crate) async fn declare(connection: &Connection, inbox: &Inbox) -> Result<(), AmqpError> {
    // Dead letters first: there is no moment in which our queue has nowhere to put one.
    declare_dead_letters(connection, inbox).await?;
    let exchange = &inbox.exchange;
    let queue = &inbox.queue;
    Object::Exchange(exchange).ensure(connection).await?;
    Object::Queue(queue, dead_lettering(&inbox.dead_letter_exchange))
        .ensure(connection)
        .await?;
    for pattern in &inbox.bindings {
        bind(connection, queue, exchange, pattern).await?;
    }
    Ok(())
}

/// Declares the exchange and the queue of the dead letters.
pub(crate) async fn declare_dead_letters(
    connection: &Connection,
    inbox: &Inbox,
) -> Result<(), AmqpError> {
    let exchange = &inbox.dead_letter_exchange;
    let queue = &inbox.dead_letter_queue;
    Object::Exchange(exchange).ensure(connection).await?;
    Object::Queue(queue, FieldTable::default())
        .ensure(connection)
        .await?;
    bind(connection, queue, exchange, "#").await
}

/// Declares an exchange that we publish to. Its queues are others'.
pub(crate) async fn declare_exchange(
    connection: &Connection,
    exchange: &str,
) -> Result<(), AmqpError> {
    Object::Exchange(exchange).ensure(connection).await
}

/// What makes a rejected message safe. By default RabbitMQ dead-letters at most once: with the
/// target missing or full, the message is gone. "At least once" (3.10 and later) keeps it until
/// the target has confirmed it, and demands that a full queue refuses new messages instead of
/// dropping old ones. No delivery limit is set: 3.10 drops a message at its first return under
/// `-1`, and the default of later versions protects the queue.
fn dead_lettering(exchange: &str) -> FieldTable {
    let mut arguments = FieldTable::default();
    for (name, value) in [
        ("x-dead-letter-exchange", exchange),
        ("x-dead-letter-strategy", "at-least-once"),
        ("x-overflow", "reject-publish"),
    ] {
        arguments.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    arguments
}

/// Something that is declared.
enum Object<'a> {
    /// A durable topic exchange.
    Exchange(&'a str),
    /// A durable quorum queue, with further arguments.
    Queue(&'a str, FieldTable),
}

#[derive(Clone, Copy)]
enum Look {
    /// Made if it is missing, compared if it is there.
    Declare,
    /// Only looked at.
    Passive,
}

impl Object<'_> {
    /// Sees to it that the object is there, as it should be.
    async fn ensure(&self, connection: &Connection) -> Result<(), AmqpError> {
        let Err(error) = self.declare(connection, Look::Declare).await else {
            return Ok(());
        };
        let AmqpError::Broker(told) = &error else {
            return Err(error);
        };
        match reply_code(told) {
            Some(PRECONDITION_FAILED) => Err(AmqpError::Conflict {
                object: self.to_string(),
                told: told.to_string(),
            }),
            // A user that may only use what an operator made: its being there is all we can see.
            Some(ACCESS_REFUSED) if self.declare(connection, Look::Passive).await.is_ok() => Ok(()),
            Some(ACCESS_REFUSED) => Err(AmqpError::NotPermitted {
                object: self.to_string(),
                told: told.to_string(),
            }),
            _ => Err(error),
        }
    }

    /// On a channel of its own, since the broker closes the channel of a declaration that fails.
    async fn declare(&self, connection: &Connection, look: Look) -> Result<(), AmqpError> {
        let passive = matches!(look, Look::Passive);
        let channel = connection.create_channel().await?;
        match self {
            Self::Exchange(name) => {
                let options = ExchangeDeclareOptions {
                    passive,
                    durable: true,
                    ..ExchangeDeclareOptions::default()
                };
                let arguments = FieldTable::default();
                channel
                    .exchange_declare(short(name)?, ExchangeKind::Topic, options, arguments)
                    .await?;
            }
            Self::Queue(name, arguments) => {
                let options = QueueDeclareOptions {
                    passive,
                    durable: true,
                    ..QueueDeclareOptions::default()
                };
                let mut arguments = arguments.clone();
                let quorum = AMQPValue::LongString("quorum".into());
                arguments.insert("x-queue-type".into(), quorum);
                channel
                    .queue_declare(short(name)?, options, arguments)
                    .await?;
            }
        }
        close(&channel).await
    }
}

impl std::fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exchange(name) => write!(f, "exchange `{name}`"),
            Self::Queue(name, _) => write!(f, "queue `{name}`"),
        }
    }
}

async fn bind(
    connection: &Connection,
    queue: &str,
    exchange: &str,
    pattern: &str,
) -> Result<(), AmqpError> {
    let channel = connection.create_channel().await?;
    let bound = channel
        .queue_bind(
            short(queue)?,
            short(exchange)?,
            short(pattern)?,
            QueueBindOptions::default(),
            FieldTable::default(),
        )
        .await;
    match bound {
        Ok(()) => close(&channel).await,
        // Whether an operator has bound it cannot be seen over AMQP; nothing would come in if not.
        Err(error) if reply_code(&error) == Some(ACCESS_REFUSED) => {
            tracing::warn!(
                queue,
                exchange,
                pattern,
                "broker: not permitted to bind; the operator must have done it"
            );
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

async fn close(channel: &Channel) -> Result<(), AmqpError> {
    Ok(channel.close(200, "done".into()).await?)
}
