//! The API as a part of the program: its port, its handlers, and what they leave for the audit log.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::AppError;
use crate::api::listener::{self, Fingerprint, Front};
use crate::api::{Api, Parts, Recorder, router};
use crate::config::Config;
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError};

/// The API, its port open, and not yet served.
pub(super) struct FrontDoor {
    listener: TcpListener,
    front: Front,
    api: Api,
    store: Arc<dyn Store>,
}

impl FrontDoor {
    /// Opens the port and reads, or makes, the certificate.
    pub(super) async fn open(config: &Config, parts: Parts) -> Result<Self, AppError> {
        let address = config.api.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| AppError::Listen {
                key: "api.listen",
                address,
                source,
            })?;
        let front = Front::prepare(
            &config.api,
            &config.data_directory(),
            Arc::clone(&parts.clock),
            &parts.entropy,
        )?;
        let store = Arc::clone(&parts.store);
        Ok(Self {
            listener,
            front,
            api: Api::new(parts),
            store,
        })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// By what clients know its certificate; `None` behind proxies.
    pub(super) fn fingerprint(&self) -> Option<Fingerprint> {
        self.front.fingerprint()
    }

    /// Serves until the soft token, lets requests under way end, and writes whose clients hung up, and
    /// writes the uses of keys.
    pub(super) async fn serve(self, shutdown: Shutdown) -> Result<(), AppError> {
        invite(&*self.store).await?;
        let (recorder, recording) = Recorder::new();
        let router = router(self.api.clone(), recorder);
        let serving = async {
            let served = listener::serve(self.listener, self.front, router, shutdown.clone()).await;
            tokio::select! {
                () = self.api.written() => {}
                () = shutdown.hard.cancelled() => {}
            }
            served
        };
        let (served, ()) = tokio::join!(serving, recording.run(self.store, shutdown.clone()),);
        Ok(served?)
    }
}

/// Says how to make the first key, while there is none: without one, nobody can ask for anything.
async fn invite(store: &dyn Store) -> Result<(), StoreError> {
    match store.has_api_keys().await {
        Ok(true) => {}
        Ok(false) => tracing::info!(
            "there is no API key yet; make the first: \
             forge-dispatch keys create --name admin --scope admin"
        ),
        Err(error) if error.is_unavailable() => {}
        Err(error) => return Err(error),
    }
    Ok(())
}
