//! From a message to a commit, and only then an acknowledgement.
//!
//! - [`sink`]: what the messages of a queue become, whatever they hold.
//! - [`acceptor`]: events, the first of such sinks; the way in for whoever has events already, with
//!   or without a broker. [`decode`]: bytes to an event, or the reason why they are none.
//! - [`snapshots`]: the core's state into the read model, the second.
//! - `batch`: items into a sink, a batch at a time.
//! - [`amqp`]: the way in from `RabbitMQ`, a consumer for each queue.

pub mod acceptor;
pub mod amqp;
mod batch;
pub mod decode;
pub mod sink;
pub mod snapshots;

pub use acceptor::{Acceptor, accept_all};
pub use decode::Decoder;
pub use sink::{Message, Outcome, Sink};
pub use snapshots::Applier;
