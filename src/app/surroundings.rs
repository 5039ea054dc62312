//! What the program takes from outside of itself.

use std::sync::Arc;

use super::AppError;
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::dispatch::Tester;
use crate::egress::client::ClientError;
use crate::egress::{Lookup, SystemLookup, WebhookClient};
use crate::entropy::Entropy;
use crate::store::{Store, TestSend};

/// What the program takes from its surroundings, and what a test may replace.
#[derive(Clone)]
pub struct Surroundings {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Entropy,
    /// Name resolution.
    pub lookup: Arc<dyn Lookup>,
}

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            entropy: Entropy::system(),
            lookup: Arc::new(SystemLookup),
        }
    }
}

impl Surroundings {
    /// The client for webhooks, in these surroundings.
    pub(super) fn client(&self, config: &Config) -> Result<Arc<WebhookClient>, ClientError> {
        let (lookup, clock) = (Arc::clone(&self.lookup), Arc::clone(&self.clock));
        WebhookClient::new(&config.egress, lookup, clock).map(Arc::new)
    }

    pub(super) fn tester(&self, store: &Arc<dyn Store>, client: &Arc<WebhookClient>) -> Tester {
        let (store, client) = (Arc::clone(store), Arc::clone(client));
        Tester::new(store, client, Arc::clone(&self.clock), self.entropy.clone())
    }
}

/// What sends tests by the same road as the running program, for a command that sends one.
pub fn tester(
    config: &Config,
    surroundings: &Surroundings,
    store: &Arc<dyn Store>,
) -> Result<Arc<dyn TestSend>, AppError> {
    let client = surroundings.client(config)?;
    Ok(Arc::new(surroundings.tester(store, &client)))
}
