//! One connection, from its first byte to its end.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::answer::Answer;
use super::certificates::Certificates;
use super::proxy::{self, Trusted};
use super::stream::Watched;
use super::watch::{UnderWay, Verdict, Watch};
use super::{ClientAddress, Limits, clear, problem};
use crate::clock::Clock;

/// HTTP/2 requests at once on one connection; a key may have far fewer.
const MAX_STREAMS: u32 = 64;
/// The most that a request's header may take, in bytes.
const MAX_HEADER_BYTES: u32 = 32 * 1024;
/// What is kept of an answer while the client has not taken it, in bytes.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// What a client in clear is told on a port that speaks TLS, and on one that is a proxy's.
const TLS_PORT: &str = "This port speaks TLS: use https, and send no key in clear.";
const PROXY_PORT: &str = "Use https, by the public address: this port is for its proxy alone.";

/// How clients get in.
#[derive(Clone)]
pub(super) enum Door {
    /// By TLS of our own.
    Tls(Arc<Certificates>),
    /// Through proxies that ended it.
    Proxied(Arc<Trusted>),
}

/// What all connections share.
#[derive(Clone)]
pub(super) struct Connections {
    pub(super) door: Door,
    pub(super) limits: Limits,
    pub(super) router: Router,
    pub(super) clock: Arc<dyn Clock>,
    /// Take no further request.
    pub(super) soft: CancellationToken,
    /// Drop everything.
    pub(super) end: CancellationToken,
}

/// What a client begins with.
enum Opening {
    Tls(Box<TlsStream<Watched>>, Watch),
    Clear(TcpStream),
    Failed(io::Error),
}

impl Connections {
    /// Serves a connection until it ends.
    pub(super) async fn attend(self, stream: TcpStream, peer: SocketAddr) {
        let peer = peer.ip().to_canonical();
        tokio::select! {
            () = self.end.cancelled() => {}
            () = self.enter(stream, peer) => {}
        }
    }

    async fn enter(&self, stream: TcpStream, peer: IpAddr) {
        match &self.door {
            Door::Tls(certificates) => {
                // Nothing is under way before the handshake is over: a soft end ends it.
                tokio::select! {
                    () = self.soft.cancelled() => {}
                    opening = self.open(stream, certificates) => match opening {
                        Opening::Tls(stream, watch) => self.converse(*stream, &watch, peer).await,
                        Opening::Clear(stream) => self.refuse(stream, peer, TLS_PORT).await,
                        Opening::Failed(reason) => {
                            tracing::debug!(%peer, %reason, "no TLS");
                        }
                    },
                }
            }
            Door::Proxied(trusted) if trusted.covers(peer) => {
                let watch = Watch::new();
                let stream = Watched::new(stream, watch.clone(), self.limits.linger);
                self.converse(stream, &watch, peer).await;
            }
            Door::Proxied(_) => self.refuse(stream, peer, PROXY_PORT).await,
        }
    }

    async fn open(&self, stream: TcpStream, certificates: &Certificates) -> Opening {
        let shake = async {
            if !clear::speaks_tls(&stream).await? {
                return Ok(Opening::Clear(stream));
            }
            let watch = Watch::new();
            let stream = Watched::new(stream, watch.clone(), self.limits.linger);
            let acceptor = TlsAcceptor::from(certificates.tls());
            let stream = acceptor.accept(stream).await?;
            watch.start();
            Ok(Opening::Tls(Box::new(stream), watch))
        };
        match timeout(self.limits.handshake, shake).await {
            Ok(Ok(opening)) => opening,
            Ok(Err(error)) => Opening::Failed(error),
            Err(_) => Opening::Failed(io::ErrorKind::TimedOut.into()),
        }
    }

    async fn refuse(&self, stream: TcpStream, peer: IpAddr, detail: &str) {
        let refused = clear::refuse(stream, detail, &self.limits, &*self.clock).await;
        if let Err(error) = refused {
            tracing::debug!(%peer, %error, "a request in clear");
        }
    }

    /// Speaks HTTP/1 or HTTP/2, whichever the client begins with.
    async fn converse<S>(&self, stream: S, watch: &Watch, peer: IpAddr)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|request: Request<Incoming>| {
            let under_way = watch.begin(request.version());
            let client = self.client(peer, request.headers());
            answer(self.router.clone(), client, request, under_way)
        });
        let http = self.http();
        let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
        let mut tick = interval(self.limits.tick());
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ending_since = None;
        loop {
            tokio::select! {
                ended = &mut connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%peer, %error, "a connection broke");
                    }
                    return;
                }
                () = self.soft.cancelled(), if ending_since.is_none() => {
                    ending_since = Some(Instant::now());
                    connection.as_mut().graceful_shutdown();
                }
                now = tick.tick() => {
                    let verdict = watch.verdict(now, &self.limits);
                    match (verdict, ending_since) {
                        (Verdict::SlowHeader | Verdict::Stalled, _) => {
                            tracing::debug!(%peer, ?verdict, "a connection is cut off");
                            return;
                        }
                        (Verdict::Idle, None) => {
                            ending_since = Some(now);
                            connection.as_mut().graceful_shutdown();
                        }
                        (_, Some(since)) if now.saturating_duration_since(since) > self.limits.linger
                            && watch.has_nothing_left(now, &self.limits) => return,
                        _ => {}
                    }
                }
            }
        }
    }

    /// Of streams that the client resets as fast as it opens them, and of errors of its own making,
    /// hyper bears as many as its defaults say (20 and 1,024) before it ends the connection.
    fn http(&self) -> auto::Builder<TokioExecutor> {
        let mut http = auto::Builder::new(TokioExecutor::new());
        // No timeout of hyper's for headers: it would end a connection between two requests too.
        http.http1()
            .timer(TokioTimer::new())
            .header_read_timeout(None)
            .max_buf_size(SEND_BUFFER_BYTES);
        http.http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(self.limits.stall / 2)
            .keep_alive_timeout(self.limits.stall / 2)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES);
        http
    }

    /// Who asks; `None` where the request was not protected all the way.
    fn client(&self, peer: IpAddr, headers: &HeaderMap) -> Option<ClientAddress> {
        match &self.door {
            Door::Tls(_) => Some(ClientAddress(peer)),
            Door::Proxied(trusted) => {
                proxy::is_https(headers).then(|| ClientAddress(trusted.client(peer, headers)))
            }
        }
    }
}

async fn answer(
    router: Router,
    client: Option<ClientAddress>,
    mut request: Request<Incoming>,
    under_way: UnderWay,
) -> Result<Response<Answer>, Infallible> {
    let response = if let Some(client) = client {
        request.extensions_mut().insert(client);
        let request = request.map(Body::new);
        TowerToHyperService::new(router).call(request).await?
    } else {
        problem::tls_required(
            "The proxy did not say that it took this request over https \
             (X-Forwarded-Proto: https).",
        )
    };
    Ok(response.map(|body| Answer::new(body, under_way)))
}
