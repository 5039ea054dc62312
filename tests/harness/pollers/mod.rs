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

/// Clients.
pub(crate) struct Pollers(Vec<Client>);

/// What the editions come to, once the core tells no more.
pub(crate) type End = watch::Receiver<Option<Arc<[State]>>>;

impl Pollers {
    /// One for each key, of an API at `https://host:port`, which is to know so many editions.
    pub(crate) fn new(base: &str, keys: &[KeyText], editions: usize) -> Self {
        // Each begins elsewhere, so that they do not walk in step.
        let first = |number: usize| number * editions / keys.len();
        let clients = keys.iter().enumerate();
        let clients =
            clients.map(|(number, key)| Client::new(base, client(key), first(number), editions));
        Self(clients.collect())
    }

    /// Polls until each client has read all that the editions come to: each as soon as it is answered,
    /// or once in this time. Ends where one finds what must not be.
    pub(crate) async fn poll(&mut self, pace: Option<Duration>, end: End) -> Tally {
        let mut polling = JoinSet::new();
        for client in self.0.drain(..) {
            polling.spawn(client.poll(pace, end.clone()));
        }
        let mut tally = Tally::default();
        while let Some(ended) = polling.join_next().await {
            let (client, of_client) = ended.expect("a client found what must not be");
            self.0.push(client);
            tally.add(of_client);
        }
        tally
    }
}
