//! `RabbitMQ`, for those who take from it (`ingest`) and those who give to it (`outbox`).
//!
//! - [`connection`]: the one place that reads the broker's URL.
//! - [`topology`]: exchanges, queues and bindings, declared where they are missing.
//! - [`confirm`]: publishing, and what the broker says of each message.
//! - [`publish`](mod@publish): an event published as the core does it, for `events publish`.
//! - [`dead_letters`]: the queue of what could not be used, read by people.
//! - [`copy`](mod@copy): a message published a second time.
//! - [`error`]: what can go wrong.

pub mod confirm;
pub mod connection;
pub(crate) mod copy;
pub mod dead_letters;
pub mod error;
pub mod publish;
pub mod topology;

pub use dead_letters::{DeadLetter, DeadLetters, Requeued};
pub use error::AmqpError;
pub use publish::{Publisher, publish};

/// AMQP's "delivery mode" of a message that survives the broker's restart.
pub(crate) const PERSISTENT: u8 = 2;

/// The content type of a `CloudEvents` envelope in structured mode.
pub(crate) const CLOUDEVENTS_JSON: &str = "application/cloudevents+json";
