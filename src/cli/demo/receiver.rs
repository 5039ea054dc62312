//! The demo's receiver: verifies every signature with the published Standard Webhooks library, and
//! now and then refuses a first attempt, so that retries are seen.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use standardwebhooks::{HEADER_WEBHOOK_ID, Webhook};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// One in this many deliveries has its first attempt refused.
const REFUSE_ONE_IN: u64 = 10;

/// What one hook of the receiver saw.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    /// Deliveries that were verified and taken; a second receipt is not counted again.
    pub(super) verified: u64,
    /// First attempts refused on purpose.
    pub(super) refused: u64,
    /// Requests whose signature did not verify.
    pub(super) forged: u64,
}

struct Hook {
    verifier: Webhook,
    refused: HashSet<String>,
    taken: HashSet<String>,
    tally: Tally,
}

/// A local receiver with a hook per subscription. Clones share it.
#[derive(Clone)]
pub(super) struct Receiver {
    hooks: Arc<Mutex<HashMap<String, Hook>>>,
    address: SocketAddr,
}

impl Receiver {
    /// Listens on a free port of the loopback until the token is cancelled.
    pub(super) async fn start(end: CancellationToken) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let receiver = Self {
            hooks: Arc::default(),
            address: listener.local_addr()?,
        };
        let router = Router::new()
            .route("/hooks/{name}", post(receive))
            .with_state(receiver.clone());
        tokio::spawn(async move {
            let served =
                axum::serve(listener, router).with_graceful_shutdown(end.cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!(%error, "the demo's receiver ended");
            }
        });
        Ok(receiver)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn url(&self, name: &str) -> String {
        format!("http://{}/hooks/{name}", self.address)
    }

    /// Opens a hook that expects this secret.
    pub(super) fn expect(&self, name: &str, secret: &str) -> anyhow::Result<()> {
        let hook = Hook {
            verifier: Webhook::new(secret)?,
            refused: HashSet::new(),
            taken: HashSet::new(),
            tally: Tally::default(),
        };
        self.lock().insert(name.to_owned(), hook);
        Ok(())
    }

    pub(super) fn tally(&self, name: &str) -> Tally {
        self.lock()
            .get(name)
            .map(|hook| hook.tally)
            .unwrap_or_default()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Hook>> {
        self.hooks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn receive(
    State(receiver): State<Receiver>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    let mut hooks = receiver.lock();
    let Some(hook) = hooks.get_mut(&name) else {
        return StatusCode::NOT_FOUND;
    };
    let id = headers
        .get(HEADER_WEBHOOK_ID)
        .and_then(|id| id.to_str().ok());
    let (Some(id), Ok(())) = (id, hook.verifier.verify(&body, &headers)) else {
        hook.tally.forged += 1;
        return StatusCode::UNAUTHORIZED;
    };
    if unlucky(id) && hook.refused.insert(id.to_owned()) {
        hook.tally.refused += 1;
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    if hook.taken.insert(id.to_owned()) {
        hook.tally.verified += 1;
    }
    StatusCode::NO_CONTENT
}

/// Whether this delivery's first attempt is to fail: a property of the id, so that a run can be
/// told about afterwards.
fn unlucky(id: &str) -> bool {
    let sum: u64 = id.bytes().map(u64::from).sum();
    sum.is_multiple_of(REFUSE_ONE_IN)
}
