//! From a message to a commit, and only then an acknowledgement.
//!
//! - [`decode`]: bytes to an event, or the reason why they are none.
//! - [`batch`]: events into the store, a batch at a time; the way in for whoever has events
//!   already, with or without a broker.
//! - [`amqp`]: the way in from RabbitMQ.

pub mod amqp;
pub mod batch;
pub mod decode;

pub use batch::{Acceptor, Outcome, accept_all};
pub use decode::Decoder;
