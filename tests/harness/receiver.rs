//! The receiver that all tests send to: real TCP (and TLS), every request recorded as it came,
//! every answer as the test says.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that cannot do its work ends the test"
)]

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

mod raw;
mod reply;

pub(crate) use raw::{RawReceiver, read_request, refusing};
pub(crate) use reply::Reply;

use reply::Script;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// Which connection it came over, counted from 0.
    pub(crate) connection: usize,
    /// When its last byte had arrived.
    pub(crate) arrived: Instant,
    /// `POST`, as a rule.
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// The headers; names in lower case.
    pub(crate) headers: HeaderMap,
    /// The body's exact bytes.
    pub(crate) body: Bytes,
}

impl Received {
    /// One header as text; empty if it is not there.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// The header that receivers dedupe on.
    pub(crate) fn webhook_id(&self) -> &str {
        self.header("webhook-id")
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether a receiver with the published Standard Webhooks library takes it.
    pub(crate) fn verify(&self, secret: &str) -> Result<(), standardwebhooks::WebhookError> {
        let webhook = if secret.starts_with("whsec_") {
            standardwebhooks::Webhook::new(secret)?
        } else {
            standardwebhooks::Webhook::from_bytes(secret.as_bytes().to_vec())?
        };
        webhook.verify(&self.body, &self.headers)
    }
}

type Behaviour = dyn Fn(&Received) -> Reply + Send + Sync;

/// The requests and connections so far.
struct Shared {
    behaviour: Mutex<Arc<Behaviour>>,
    requests: Mutex<Vec<Arc<Received>>>,
    arrival: Notify,
    connections: AtomicUsize,
    closed: AtomicUsize,
}

/// A running receiver; it stops when it is dropped.
pub(crate) struct Receiver {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    /// Ends the connections.
    stopping: CancellationToken,
    server: AbortOnDropHandle<()>,
}

impl Receiver {
    /// Answers `200` to everything.
    pub(crate) fn ok() -> Self {
        Self::start(|_| Reply::status(200))
    }

    /// Answers as the behaviour says.
    pub(crate) fn start(behaviour: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), behaviour)
    }

    /// The same at a given address, for a receiver that comes back where it was.
    pub(crate) fn start_at(
        address: SocketAddr,
        behaviour: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::serve(address, None, behaviour)
    }

    /// The same behind TLS, HTTP/1.1 and HTTP/2.
    pub(crate) fn start_tls(
        tls: rustls::ServerConfig,
        behaviour: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self::serve(address, Some(TlsAcceptor::from(Arc::new(tls))), behaviour)
    }

    fn serve(
        address: SocketAddr,
        tls: Option<TlsAcceptor>,
        behaviour: impl Fn(&Received) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = listen(address);
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            behaviour: Mutex::new(Arc::new(behaviour)),
            requests: Mutex::default(),
            arrival: Notify::new(),
            connections: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
        });
        let stopping = CancellationToken::new();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let accepting = accept(listener, tls, Arc::clone(&shared), stopping.clone());
        Self {
            address,
            scheme,
            shared,
            stopping,
            server: AbortOnDropHandle::new(tokio::spawn(accepting)),
        }
    }

    /// Stops listening and drops every connection. What was recorded stays readable.
    pub(crate) async fn stop(&self) {
        self.stopping.cancel();
        self.server.abort();
        wait_until(Duration::from_secs(5), || self.server.is_finished())
            .await
            .unwrap();
    }

    /// Behaves otherwise from now on.
    pub(crate) fn behave(&self, behaviour: impl Fn(&Received) -> Reply + Send + Sync + 'static) {
        *lock(&self.shared.behaviour) = Arc::new(behaviour);
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL that leads to it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// A URL that leads to it once `host` resolves to its address.
    pub(crate) fn url_at(&self, host: &str, path: &str) -> String {
        format!("{}://{host}:{}{path}", self.scheme, self.address.port())
    }

    /// What has arrived, in order of arrival.
    pub(crate) fn received(&self) -> Vec<Arc<Received>> {
        lock(&self.shared.requests).clone()
    }

    /// How many requests have arrived.
    pub(crate) fn count(&self) -> usize {
        lock(&self.shared.requests).len()
    }

    /// How many connections were accepted.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Waits until so many connections were accepted.
    pub(crate) async fn wait_for_connections(&self, count: usize) {
        wait_until(Duration::from_secs(10), || self.connections() >= count)
            .await
            .unwrap();
    }

    /// How many connections are open.
    pub(crate) fn open_connections(&self) -> usize {
        // Closed first: a connection is never seen closed before it is seen open.
        let closed = self.shared.closed.load(Ordering::SeqCst);
        self.connections() - closed
    }

    /// Waits until what has arrived satisfies the condition; the error says what had.
    pub(crate) async fn wait_for(
        &self,
        condition: impl Fn(&[Arc<Received>]) -> bool,
        deadline: Duration,
    ) -> Result<Vec<Arc<Received>>, Unmet> {
        let ends = Instant::now() + deadline;
        loop {
            let arrival = self.shared.arrival.notified();
            tokio::pin!(arrival);
            arrival.as_mut().enable();
            {
                let received = lock(&self.shared.requests);
                if condition(&received) {
                    return Ok(received.clone());
                }
            }
            if tokio::time::timeout_at(ends, arrival).await.is_err() {
                return Err(Unmet {
                    deadline,
                    received: self.received(),
                });
            }
        }
    }

    /// Waits for so many requests.
    pub(crate) async fn wait_for_count(
        &self,
        count: usize,
        deadline: Duration,
    ) -> Result<Vec<Arc<Received>>, Unmet> {
        self.wait_for(|received| received.len() >= count, deadline)
            .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.stopping.cancel();
    }
}

/// The condition that was waited for did not come about.
pub(crate) struct Unmet {
    deadline: Duration,
    received: Vec<Arc<Received>>,
}

impl fmt::Debug for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        writeln!(
            f,
            "not met within {:?}; {} requests had arrived, the last of them:",
            self.deadline,
            self.received.len()
        )?;
        for request in self.received.iter().rev().take(SHOWN).rev() {
            writeln!(
                f,
                "  #{} {} {} {} {}",
                request.connection,
                request.method,
                request.path,
                request.webhook_id(),
                String::from_utf8_lossy(&request.body[..request.body.len().min(200)])
            )?;
        }
        Ok(())
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    shared: Arc<Shared>,
    stopping: CancellationToken,
) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap();
        let connection = Connection {
            number: shared.connections.fetch_add(1, Ordering::SeqCst),
            shared: Arc::clone(&shared),
        };
        let (tls, stopping) = (tls.clone(), stopping.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = connection.serve(stream, tls) => {}
                () = stopping.cancelled() => {}
            }
        });
    }
}

struct Connection {
    number: usize,
    shared: Arc<Shared>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.closed.fetch_add(1, Ordering::SeqCst);
    }
}

impl Connection {
    async fn serve(&self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        match tls {
            None => self.http(stream).await,
            Some(tls) => {
                if let Ok(stream) = tls.accept(stream).await {
                    self.http(stream).await;
                }
            }
        }
    }

    async fn http(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let (number, shared) = (self.number, Arc::clone(&self.shared));
        let service =
            hyper::service::service_fn(move |request| answer(number, Arc::clone(&shared), request));
        // Clients that go away are what many tests are about.
        drop(
            auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await,
        );
    }
}

async fn answer(
    connection: usize,
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> io::Result<Response<Script>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let received = Arc::new(Received {
        connection,
        arrived: Instant::now(),
        method: head.method.to_string(),
        path: head
            .uri
            .path_and_query()
            .map_or_else(String::new, ToString::to_string),
        headers: head.headers,
        body,
    });
    let behaviour = Arc::clone(&lock(&shared.behaviour));
    let reply = behaviour(&received);
    lock(&shared.requests).push(received);
    shared.arrival.notify_waiters();
    reply.play().await
}

fn listen(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    // Connections of the one before may linger where a receiver comes back.
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(4096).unwrap()
}

fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks until the condition holds.
pub(crate) async fn wait_until(
    deadline: Duration,
    condition: impl Fn() -> bool,
) -> Result<(), tokio::time::error::Elapsed> {
    tokio::time::timeout(deadline, async {
        let mut look = tokio::time::interval(Duration::from_millis(2));
        while !condition() {
            look.tick().await;
        }
    })
    .await
}
