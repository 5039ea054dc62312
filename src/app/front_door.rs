//! The API as a part of the program: its port, its handlers, and what they leave for the audit log.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;

use super::AppError;
use crate::api::listener::{self, Fingerprint, Front};
use crate::api::{Api, Parts, Recorder, router};
use crate::config::{self, Config};
use crate::shutdown::Shutdown;
use crate::store::{Store, StoreError};

/// The API, its port open, and not yet served.
pub(super) struct FrontDoor {
    listener: TcpListener,
    front: Front,
    api: Api,
    store: Arc<dyn Store>,
}

/// Opens the port. Where the system was to choose it, the address that clients are told learns of it.
pub(super) async fn listen(settings: &mut config::Api) -> Result<TcpListener, AppError> {
    let address = settings.listen;
    let refused = |source| AppError::Listen {
        key: "api.listen",
        address,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let port = listener.local_addr().map_err(refused)?.port();
    if let Some(url) = &mut settings.public_url
        && url.port() == Some(0)
        && url.set_port(Some(port)).is_err()
    {
        tracing::warn!(%url, "api.public_url: it cannot name a port");
    }
    Ok(listener)
}

impl FrontDoor {
    /// Reads, or makes, the certificate, for the port that is open.
    pub(super) fn open(
        listener: TcpListener,
        config: &Config,
        parts: Parts,
    ) -> Result<Self, AppError> {
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
