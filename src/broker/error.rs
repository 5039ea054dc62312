//! What can go wrong between this program and the broker. No message holds the broker's URL.

use std::time::Duration;

use lapin::ErrorKind;

/// An error of the broker, or of what is configured about it.
#[derive(Debug, thiserror::Error)]
pub enum AmqpError {
    /// `amqp.url` is not set.
    #[error("amqp.url is not set")]
    NoUrl,

    /// The URL cannot be read. It is not repeated: it may hold a password.
    #[error("amqp.url is no AMQP URL (amqp://USER:PASSWORD@HOST:PORT/VHOST)")]
    BadUrl,

    /// A name that AMQP cannot carry.
    #[error("the name `{0:.40}…` is longer than 255 bytes")]
    NameTooLong(String),

    /// Nothing came in time.
    #[error("the broker does not answer within {0:?}")]
    Silent(Duration),

    /// The object is there, but not as this program needs it.
    #[error("{object} exists with other properties than ours: {told}")]
    Conflict {
        /// What it is, with its name.
        object: String,
        /// The broker's words: which property, what is asked for and what is there.
        told: String,
    },

    /// The user may not make or look at the object.
    #[error("{object}: not permitted: {told}")]
    NotPermitted {
        /// What it is, with its name.
        object: String,
        /// The broker's words.
        told: String,
    },

    /// A published message that no queue gets.
    #[error(
        "no queue is bound to exchange `{exchange}` for `{routing_key}`: the message went nowhere"
    )]
    Unroutable {
        /// Where it was published.
        exchange: String,
        /// What it was published with.
        routing_key: String,
    },

    /// There is no exchange of that name.
    #[error("there is no exchange `{0}`")]
    NoExchange(String),

    /// There is no queue of that name.
    #[error("there is no queue `{0}`")]
    NoQueue(String),

    /// The broker took a message and could not keep it.
    #[error("the broker could not keep the message (is a queue full?)")]
    NotKept,

    /// The broker ended the subscription.
    #[error("the broker cancelled the consumer of queue `{0}` (was the queue deleted?)")]
    Cancelled(String),

    /// Anything else that the broker or the connection says.
    #[error("{0}")]
    Broker(#[from] lapin::Error),
}

/// The reply code of AMQP, where the broker closed a channel or connection with one.
pub(crate) fn reply_code(error: &lapin::Error) -> Option<u16> {
    match error.kind() {
        ErrorKind::ProtocolError(error) => Some(error.get_id()),
        _ => None,
    }
}

/// "Not found": an exchange or a queue that is not there.
pub(crate) const NOT_FOUND: u16 = 404;

/// "Access refused": the user's permissions do not reach.
pub(crate) const ACCESS_REFUSED: u16 = 403;

/// "Precondition failed": declared otherwise than it is.
pub(crate) const PRECONDITION_FAILED: u16 = 406;
