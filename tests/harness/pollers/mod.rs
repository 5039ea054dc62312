//! Clients that poll editions with entity tags while the core changes them, and what each of them must
//! find: no answer is torn, none is older than one before it, and in the end each has everything.
//!
//! - [`core`]: Report Forge, which tells of the editions over RabbitMQ. Each state of an edition says
//!   its version wherever it says anything, so that an answer made of two states shows.
//! - [`client`]: one that polls.
//!
//! The bench polls with them too.

#![expect(
    clippy::expect_used,
    reason = "a poller ends where something is not as it should be"
)]

use std::sync::Arc;
use std::time::Duration;

use forge_dispatch::domain::key_text::KeyText;
use tokio::sync::watch;
use tokio::task::JoinSet;

mod client;
mod core;

pub(crate) use self::client::Tally;
pub(crate) use self::core::{Core, State};

use self::client::Client;
use super::keys::client;

/// Clients to be.
pub(crate) struct Pollers {
    /// Where the API is, as `https://host:port`.
    pub(crate) base: String,
    /// A key for each client.
    pub(crate) keys: Vec<KeyText>,
    /// How many editions there are.
    pub(crate) editions: usize,
    /// How often a client asks for anything; as soon as it is answered where nothing is said.
    pub(crate) pace: Option<Duration>,
}

/// What the editions come to, once the core tells no more.
pub(crate) type End = watch::Receiver<Option<Arc<[State]>>>;

impl Pollers {
    /// Polls until each client has read all that the editions come to; ends where one finds what must
    /// not be.
    pub(crate) async fn poll(self, end: End) -> Tally {
        let mut clients = JoinSet::new();
        for (number, key) in self.keys.iter().enumerate() {
            let client = Client::new(&self.base, client(key), self.editions, self.pace);
            // Each begins elsewhere, so that they do not walk in step.
            let first = number * self.editions / self.keys.len();
            clients.spawn(client.poll(first, end.clone()));
        }
        let mut tally = Tally::default();
        while let Some(ended) = clients.join_next().await {
            tally.add(ended.expect("a client found what must not be"));
        }
        tally
    }
}
