//! The listener of the API: TLS and nothing but TLS, and clients that keep to their time.
//!
//! A [`Front`] is how clients get in: by TLS of our own, with a certificate that is configured or
//! made ([`self_signed`]) and exchanged while we serve ([`certificates`]); or in clear through
//! trusted proxies ([`proxy`]) that say that they took the request over https. Who speaks in clear
//! otherwise is told so ([`clear`]).
//!
//! [`serve`] accepts as many connections as there are [`seats`], and a [`connection`] lives as long
//! as it does something: what it does is noted by its [`stream`] and its [`answer`]s in its
//! [`watch`]. Bodies of requests must keep coming ([`pace`]).

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::clock::{Clock, pause};
use crate::config::Api;
use crate::entropy::Entropy;
use crate::shutdown::Shutdown;

mod answer;
mod certificates;
mod clear;
mod connection;
mod error;
mod fingerprint;
mod headers;
mod limits;
mod pace;
mod problem;
mod proxy;
mod seats;
mod self_signed;
mod stream;
mod watch;

pub use error::ListenError;
pub use fingerprint::Fingerprint;
pub use headers::secured;
pub use limits::Limits;
pub use pace::on_time;

use certificates::{Certificates, Source};
use connection::{Connections, Door};
use proxy::Trusted;
use seats::Seats;
use self_signed::SelfSigned;

/// How long to wait where the system has nothing left for a new connection.
const EXHAUSTED: Duration = Duration::from_millis(200);

/// The client's address, found in every request's extensions: that of the connection, or behind
/// trusted proxies the one that they vouch for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// How clients get in: by TLS of our own, or in clear through trusted proxies.
pub struct Front {
    door: Door,
    limits: Limits,
    clock: Arc<dyn Clock>,
}

impl Front {
    /// Reads the certificate, and makes a self-signed one in `data_directory` where none is
    /// configured; behind proxies, neither. Errors name the file and the key of the configuration.
    pub fn prepare(
        settings: &Api,
        data_directory: &Path,
        clock: Arc<dyn Clock>,
        entropy: &Entropy,
    ) -> Result<Self, ListenError> {
        let door = if settings.behind_proxy.is_empty() {
            let source = match (&settings.certificate_file, &settings.key_file) {
                (Some(certificate), Some(key)) => Source::Named {
                    certificate: certificate.clone(),
                    key: key.clone(),
                },
                _ => Source::Made(SelfSigned::new(
                    settings,
                    data_directory,
                    Arc::clone(&clock),
                    entropy.clone(),
                )),
            };
            Door::Tls(Arc::new(Certificates::open(source)?))
        } else {
            Door::Proxied(Arc::new(Trusted::new(&settings.behind_proxy)))
        };
        Ok(Self {
            door,
            limits: Limits::new(settings),
            clock,
        })
    }

    /// Other limits than those of the configuration, for tests that cannot wait for them.
    #[must_use]
    pub fn with_limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// The fingerprint of the certificate in use; `None` behind proxies.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        match &self.door {
            Door::Tls(certificates) => Some(certificates.fingerprint()),
            Door::Proxied(_) => None,
        }
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Front")
            .field("fingerprint", &self.fingerprint())
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// Serves the API until `shutdown.soft`, then lets requests under way end, for a bounded time;
/// `shutdown.hard` ends at once. Every request that reaches the router has a [`ClientAddress`], and
/// every answer the headers of [`secured`].
pub async fn serve(
    listener: TcpListener,
    front: Front,
    router: Router,
    shutdown: Shutdown,
) -> Result<(), ListenError> {
    let limits = front.limits;
    let end = shutdown.hard.child_token();
    // Whoever stops waiting for us stops the connections too.
    let _ended_with_us = end.clone().drop_guard();
    let _watching = match &front.door {
        Door::Tls(certificates) => Some(AbortOnDropHandle::new(tokio::spawn(
            Arc::clone(certificates).watch(limits.reload),
        ))),
        Door::Proxied(_) => None,
    };
    let connections = Connections {
        door: front.door,
        limits,
        router: secured(pace::paced(router, limits)),
        clock: front.clock,
        soft: shutdown.soft.child_token(),
        end: end.clone(),
    };
    let open = TaskTracker::new();
    let outcome = tokio::select! {
        () = connections.soft.cancelled() => Ok(()),
        () = end.cancelled() => Ok(()),
        error = accept(&listener, &connections, &open) => Err(error),
    };
    drop(listener);
    connections.soft.cancel();
    open.close();
    tokio::select! {
        () = open.wait() => {}
        () = end.cancelled() => {}
        () = pause(limits.goodbye) => {
            tracing::warn!(connections = open.len(), "requests under way took too long: dropped");
        }
    }
    end.cancel();
    open.wait().await;
    outcome
}

/// Accepts connections until the listener is broken.
async fn accept(
    listener: &TcpListener,
    connections: &Connections,
    open: &TaskTracker,
) -> ListenError {
    let limits = &connections.limits;
    let seats = Seats::new(limits.connections, limits.connections_per_address);
    loop {
        let mut seat = seats.free().await;
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_of_the_connection(&error) => continue,
            Err(error) if is_exhaustion(&error) => {
                tracing::warn!(%error, "no connection can be accepted");
                pause(EXHAUSTED).await;
                continue;
            }
            Err(error) => return ListenError::Accept(error),
        };
        let counts = match &connections.door {
            Door::Tls(_) => true,
            Door::Proxied(trusted) => !trusted.covers(peer.ip().to_canonical()),
        };
        if counts && seats.count(&mut seat, peer.ip()).is_err() {
            tracing::debug!(%peer, "too many connections from one address: closed");
            continue;
        }
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "a connection broke");
            continue;
        }
        let attending = connections.clone().attend(stream, peer);
        open.spawn(async move {
            attending.await;
            drop(seat);
        });
    }
}

/// The connection was gone before it was accepted.
fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::PermissionDenied
    )
}

/// Files or memory have run out for the moment.
fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;

    matches!(
        Errno::from_io_error(error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM)
    )
}
