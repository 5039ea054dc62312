//! The HTTP client for webhooks: one pool of connections, no redirects, no proxy, no retries of
//! its own, and no connection to an address that the guard does not allow.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use reqwest::header::HeaderMap;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use url::{Host, Url};

use super::guard::{Blocked, Guard, PortClass};
use super::lookup::{Lookup, SharedLookup};
use super::outcome::{Answer, SendError, Sent};
use super::resolver::Resolver;
use crate::clock::Clock;
use crate::config;
use crate::domain::attempt::{ErrorClass, MAX_EXCERPT_BYTES};

/// How long an unused connection is kept. Longer than the pause between two bursts of events,
/// short enough that a deployment with many receivers does not sit on all their connections.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(20);

/// The most unused connections kept for one host.
const POOL_IDLE_PER_HOST: usize = 256;

/// How often an HTTP/2 connection with requests on it is asked whether it still lives: many
/// requests share it, so a dead one must not take each of them through its whole deadline.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(5);

/// How long a configured host may say nothing in the middle of an answer.
const STANDSTILL: Duration = Duration::from_mins(1);

/// The client could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file with further certificate authorities cannot be used.
    #[error("egress.ca_file {path}: {reason}")]
    CaFile {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The TLS settings contradict each other.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The HTTP client refuses its settings.
    #[error("HTTP client: {0}")]
    Http(#[from] reqwest::Error),
}

/// Sends webhooks. Made once and shared.
pub struct WebhookClient {
    pub(super) guard: Arc<Guard>,
    pub(super) lookup: Arc<dyn Lookup>,
    clock: Arc<dyn Clock>,
    /// One client for each class of ports that the rules tell apart; without rules that name a
    /// port there is one. See [`Resolver`] for why.
    clients: BTreeMap<PortClass, reqwest::Client>,
    pub(super) allow_http: bool,
    deadline: Duration,
    pub(super) lookup_limit: Duration,
}

impl fmt::Debug for WebhookClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookClient")
            .field("guard", &self.guard)
            .finish_non_exhaustive()
    }
}

impl WebhookClient {
    /// A client under these limits. `lookup` is [`super::SystemLookup`] outside tests.
    pub fn new(
        config: &config::Egress,
        lookup: Arc<dyn Lookup>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ClientError> {
        let guard = Arc::new(Guard::new(config));
        let lookup: Arc<dyn Lookup> = Arc::new(SharedLookup::new(lookup));
        // A name server that does not answer is told from a host that does not: the name has half
        // of the time, and an address that was found has at least the other half.
        let lookup_limit = config.connect_timeout / 2;
        let tls = tls(config.ca_file.as_deref())?;
        let mut clients = BTreeMap::new();
        for class in guard.classes() {
            let resolver = Resolver {
                lookup: Arc::clone(&lookup),
                guard: Arc::clone(&guard),
                class,
                limit: lookup_limit,
            };
            clients.insert(class, http(config, resolver, tls.clone())?);
        }
        Ok(Self {
            guard,
            lookup,
            clock,
            clients,
            allow_http: config.allow_http,
            deadline: config.timeout,
            lookup_limit,
        })
    }

    /// Sends one request and reads the answer, all within the deadline. The body goes out as it
    /// is; of the headers only `accept`, `host` and `content-length` are added.
    pub async fn post(&self, url: &Url, headers: HeaderMap, body: Bytes) -> Sent {
        let at = self.clock.now();
        let began = self.clock.monotonic();
        let answer = self.exchange(url, headers, body).await;
        Sent {
            at,
            duration: self.clock.monotonic().saturating_sub(began),
            answer,
        }
    }

    async fn exchange(
        &self,
        url: &Url,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Answer, SendError> {
        let client = self.client_for(url)?;
        let ends = tokio::time::Instant::now() + self.deadline;
        let request = client.post(url.clone()).headers(headers).body(body);
        let response = match tokio::time::timeout_at(ends, request.send()).await {
            Ok(response) => response.map_err(SendError::sending)?,
            Err(_) => return Err(too_late("no answer", self.deadline)),
        };
        let answer = Answer::head(response.status().as_u16(), response.headers());
        let mut read = BytesMut::new();
        match tokio::time::timeout_at(ends, read_excerpt(response, &mut read)).await {
            Ok(Ok(())) => Ok(answer.with_excerpt(&read)),
            Ok(Err(error)) => Err(SendError::reading(error).after(answer.with_excerpt(&read))),
            Err(_) => Err(too_late("the answer was not complete", self.deadline)
                .after(answer.with_excerpt(&read))),
        }
    }

    /// The client for this URL, if its scheme and, where it is written as an address, its address
    /// may be dialled. Names are checked when they are resolved; addresses never are.
    fn client_for(&self, url: &Url) -> Result<&reqwest::Client, SendError> {
        let blocked = |detail: String| SendError::new(ErrorClass::BlockedAddress, detail);
        match url.scheme() {
            "https" => {}
            "http" if self.allow_http => {}
            scheme => return Err(blocked(format!("{scheme} is not allowed"))),
        }
        let port = url.port_or_known_default().unwrap_or_default();
        self.check_literal(url, port)
            .map_err(|error| blocked(error.to_string()))?;
        self.clients
            .get(&self.guard.class(port))
            .ok_or_else(|| SendError::new(ErrorClass::Internal, "no client for the port"))
    }

    /// Checks a host that is written as an address; `url` has made one form of all spellings.
    pub(super) fn check_literal(&self, url: &Url, port: u16) -> Result<(), Blocked> {
        match url.host() {
            Some(Host::Ipv4(address)) => self.guard.check(address.into(), port),
            Some(Host::Ipv6(address)) => self.guard.check(address.into(), port),
            Some(Host::Domain(_)) | None => Ok(()),
        }
    }
}

/// An answer whose body is taken piece by piece.
#[derive(Debug)]
pub struct Download {
    /// The status code.
    pub status: u16,
    /// How long the body says it is.
    pub length: Option<u64>,
    response: Response,
    limit: Duration,
    ends: tokio::time::Instant,
}

impl Download {
    /// The next piece, within the download's deadline; `None` behind the last one. A body that ends
    /// before its length is an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, SendError> {
        match tokio::time::timeout_at(self.ends, self.response.chunk()).await {
            Ok(piece) => piece.map_err(SendError::reading),
            Err(_) => Err(too_late("the answer was not complete", self.limit)),
        }
    }
}

impl WebhookClient {
    /// Asks for a file. `limit` is for all of it, to the last byte of the body. Of headers only
    /// `accept` and `host` are sent.
    pub async fn download(&self, url: &Url, limit: Duration) -> Result<Download, SendError> {
        let client = self.client_for(url)?;
        let ends = tokio::time::Instant::now() + limit;
        let response = match tokio::time::timeout_at(ends, client.get(url.clone()).send()).await {
            Ok(response) => response.map_err(SendError::sending)?,
            Err(_) => return Err(too_late("no answer", limit)),
        };
        Ok(Download {
            status: response.status().as_u16(),
            length: response.content_length(),
            response,
            limit,
            ends,
        })
    }
}

fn too_late(what: &str, limit: Duration) -> SendError {
    SendError::new(ErrorClass::Timeout, format!("{what} within {limit:?}"))
}

/// Reads the body up to its cap. Dropping the response afterwards ends the transfer.
async fn read_excerpt(mut response: Response, read: &mut BytesMut) -> Result<(), reqwest::Error> {
    while let Some(chunk) = response.chunk().await? {
        let room = MAX_EXCERPT_BYTES - read.len();
        read.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if read.len() == MAX_EXCERPT_BYTES {
            break;
        }
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one client that goes out to receivers, behind the guard"
)]
fn http(
    config: &config::Egress,
    resolver: Resolver,
    tls: rustls::ClientConfig,
) -> Result<reqwest::Client, reqwest::Error> {
    reqwest::Client::builder()
        .dns_resolver(resolver)
        .tls_backend_preconfigured(tls)
        .connect_timeout(config.connect_timeout)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_proxy()
        .tcp_nodelay(true)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(POOL_IDLE_PER_HOST)
        .http2_keep_alive_interval(HTTP2_PING_INTERVAL)
        .http2_keep_alive_timeout(config.connect_timeout)
        .build()
}

/// A client for a host that the configuration names and nobody else can: it may lie inside, so no
/// address is guarded. HTTP/1.1 only, where large bodies are at home; what stands still is given up.
#[expect(
    clippy::disallowed_methods,
    reason = "for hosts that an operator chose; never for an address that came over the API or AMQP"
)]
pub fn for_configured_host(config: &config::Egress) -> Result<reqwest::Client, ClientError> {
    let mut tls = tls(config.ca_file.as_deref())?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .connect_timeout(config.connect_timeout)
        .read_timeout(STANDSTILL)
        .redirect(reqwest::redirect::Policy::none())
        .referer(false)
        .retry(reqwest::retry::never())
        .no_proxy()
        .tcp_nodelay(true)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .build()?)
}

/// TLS 1.2 and 1.3 by ring, trusting Mozilla's authorities as they are built in (a slim container
/// has no store of its own), and those that an operator adds for receivers inside.
fn tls(ca_file: Option<&Path>) -> Result<rustls::ClientConfig, ClientError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = ca_file {
        add_authorities(&mut roots, path).map_err(|reason| ClientError::CaFile {
            path: path.display().to_string(),
            reason,
        })?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(tls)
}

fn add_authorities(roots: &mut rustls::RootCertStore, path: &Path) -> Result<(), String> {
    let pem = std::fs::read(path).map_err(|error: io::Error| error.to_string())?;
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
        found += 1;
    }
    if found == 0 {
        return Err("holds no certificate".to_owned());
    }
    Ok(())
}
