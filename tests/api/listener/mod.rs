//! The listener of the API, with real sockets.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it should be"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY};
use axum::response::IntoResponse;
use axum::routing::{any, get, post};
use axum::{Extension, Router};
use forge_dispatch::api::listener::{self, ClientAddress, Front, Limits, ListenError};
use forge_dispatch::clock::{Clock, SystemClock};
use forge_dispatch::config::Api;
use forge_dispatch::entropy::Entropy;
use forge_dispatch::shutdown::Shutdown;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::sync::CancellationToken;

mod certificate;
mod clear;
mod proxy;
mod slow;
mod stopping;
mod tls;

/// How long anything may take that is to happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many bytes `/big` answers with: more than all buffers on the way hold.
const BIG: usize = 32 * 1024 * 1024;

/// What a test watches of the handlers, and holds them by.
#[derive(Clone, Debug, Default)]
struct Hands {
    /// `/hold` has begun.
    held: CancellationToken,
    /// `/hold` may go on.
    gate: CancellationToken,
    /// `/hold` was given up, or `/big` is out of our hands.
    gone: CancellationToken,
}

/// A running listener.
struct Port {
    address: SocketAddr,
    hands: Hands,
    shutdown: Shutdown,
    served: JoinHandle<Result<(), ListenError>>,
    dir: TempDir,
}

impl Port {
    /// With a self-signed certificate.
    async fn start() -> Self {
        Self::with(|_| {}, |_| {}).await
    }

    async fn with(settings: impl FnOnce(&mut Api), limits: impl FnOnce(&mut Limits)) -> Self {
        Self::at(Arc::new(SystemClock), settings, limits).await
    }

    /// By this clock.
    async fn at(
        clock: Arc<dyn Clock>,
        settings: impl FnOnce(&mut Api),
        limits: impl FnOnce(&mut Limits),
    ) -> Self {
        let mut api = Api::default();
        settings(&mut api);
        let dir = tempfile::tempdir().unwrap();
        let front = Front::prepare(&api, dir.path(), clock, &Entropy::system()).unwrap();
        let front = front.with_limits(|limited| {
            // Slow connections are looked at as often as the shortest of these asks.
            limited.linger = Duration::from_millis(500);
            limits(limited);
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let hands = Hands::default();
        let shutdown = Shutdown::default();
        let router = router(hands.clone());
        let served = tokio::spawn(listener::serve(listener, front, router, shutdown.clone()));
        Self {
            address,
            hands,
            shutdown,
            served,
            dir,
        }
    }

    /// The certificate that it made.
    fn certificate(&self) -> CertificateDer<'static> {
        certificate(&self.dir.path().join("api-cert.pem"))
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.address.port())
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// A connection that has shaken hands, and would speak this.
    async fn shaken(&self, protocol: &str) -> TlsStream<TcpStream> {
        let tls = trusting(&[self.certificate()], &[protocol]);
        shake(self.connect().await, tls).await.unwrap()
    }

    /// A client that trusts its certificate, and prefers HTTP/2.
    fn client(&self) -> reqwest::Client {
        client(trusting(&[self.certificate()], &["h2", "http/1.1"]))
    }

    /// One that does not know HTTP/2.
    fn http1_client(&self) -> reqwest::Client {
        client(trusting(&[self.certificate()], &["http/1.1"]))
    }

    /// Waits for the end of serving.
    async fn ended(self) -> Result<(), ListenError> {
        soon(self.served).await.unwrap()
    }
}

fn prepare(api: &Api, dir: &Path) -> Result<Front, ListenError> {
    Front::prepare(api, dir, Arc::new(SystemClock), &Entropy::system())
}

fn certificate(path: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(path).unwrap()
}

/// TLS that takes just these certificates.
fn trusting(certificates: &[CertificateDer<'static>], protocols: &[&str]) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = protocols
        .iter()
        .map(|protocol| protocol.as_bytes().to_vec())
        .collect();
    tls
}

async fn shake(stream: TcpStream, tls: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    soon(TlsConnector::from(Arc::new(tls)).connect(name, stream)).await
}

#[expect(
    clippy::disallowed_methods,
    reason = "a client of the API, which is on this machine"
)]
fn client(tls: ClientConfig) -> reqwest::Client {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .no_proxy()
        .timeout(PATIENCE)
        .build()
        .unwrap()
}

/// Waits, but not for ever.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it took too long")
}

/// Sends a text and reads all that comes until the end, which may be a reset.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    rest(stream).await
}

/// All that comes until the end, which may be a reset.
async fn rest<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut read = Vec::new();
    drop(soon(stream.read_to_end(&mut read)).await);
    String::from_utf8_lossy(&read).into_owned()
}

/// One answer of HTTP/1, whose body is `ok`.
async fn ok<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\nok") {
        let count = soon(stream.read_buf(&mut read)).await.unwrap();
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&read));
    }
    String::from_utf8(read).unwrap()
}

/// The head and the JSON body of an answer of HTTP/1.
fn problem(answer: &str) -> (&str, serde_json::Value) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
    (head, serde_json::from_str(body).expect("JSON"))
}

fn router(hands: Hands) -> Router {
    let own = [
        (CACHE_CONTROL, "max-age=5"),
        (CONTENT_SECURITY_POLICY, "default-src 'self'"),
    ];
    Router::new()
        .route("/", any(|| async { "ok" }))
        .route("/own", get(move || async move { (own, "ok") }))
        .route("/who", get(who))
        .route(
            "/early",
            post(|| async { (StatusCode::PAYLOAD_TOO_LARGE, "ok") }),
        )
        .route("/echo", post(|body: Bytes| async { body }))
        .route("/big", get(big))
        .route("/hold", get(hold))
        .with_state(hands)
}

async fn who(Extension(ClientAddress(address)): Extension<ClientAddress>) -> String {
    address.to_string()
}

async fn hold(State(hands): State<Hands>) -> &'static str {
    let gone = hands.gone.drop_guard();
    hands.held.cancel();
    hands.gate.cancelled().await;
    drop(gone.disarm());
    "ok"
}

async fn big(State(hands): State<Hands>) -> impl IntoResponse {
    struct Held(
        Vec<u8>,
        #[expect(dead_code, reason = "told when it is dropped")] Guard,
    );
    type Guard = tokio_util::sync::DropGuard;
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let bytes = Bytes::from_owner(Held(vec![b'x'; BIG], hands.gone.drop_guard()));
    Body::from(bytes)
}
