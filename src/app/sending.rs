//! What goes out: webhooks to subscribers, and what we originate to the broker; and what is removed
//! behind it.

use std::sync::Arc;

use futures::FutureExt;

use crate::dispatch::{self, Broken, Dispatcher, Settlements};
use crate::maintenance;
use crate::outbox;
use crate::shutdown::Shutdown;
use crate::store::intake::Intake;

/// All of it, built and not yet running.
pub(super) struct Sending {
    dispatcher: Dispatcher,
    settlements: Settlements,
    relay: outbox::Parts,
    upkeep: maintenance::Parts,
    /// Begun after that of the ways in, so that what those hand over last is still sent.
    shutdown: Shutdown,
}

impl Sending {
    pub(super) fn new(
        parts: dispatch::Parts,
        relay: outbox::Parts,
        upkeep: maintenance::Parts,
        shutdown: Shutdown,
    ) -> Self {
        let (dispatcher, settlements) = Dispatcher::new(parts, shutdown.clone());
        Self {
            dispatcher,
            settlements,
            relay,
            upkeep,
            shutdown,
        }
    }

    /// What those who write hand leased deliveries to.
    pub(super) fn intake(&self) -> Arc<dyn Intake> {
        Arc::new(self.dispatcher.clone())
    }

    /// Sends until the shutdown; an error means that dispatch broke.
    pub(super) async fn run(self) -> Result<(), Broken> {
        let relay = outbox::run(self.relay, self.shutdown.clone());
        let upkeep = maintenance::run(self.upkeep, self.shutdown);
        let dispatch = self.dispatcher.run(self.settlements);
        tokio::try_join!(dispatch, relay.map(Ok), upkeep.map(Ok)).map(|_| ())
    }
}
