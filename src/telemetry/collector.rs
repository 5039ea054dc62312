//! The HTTP of an export: our client, and a line in the log when the collector goes and comes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap};
use tokio::runtime::Handle;

/// The most that is read of an answer: it says little more than that it was taken.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// What a collector takes of us.
#[derive(Clone, Copy, Debug)]
pub(super) enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        }
    }
}

/// Sends what one exporter makes. It is asked from a thread of the exporter's own and works on the
/// program's runtime; nothing of what it sends is traced.
#[derive(Debug)]
pub(super) struct Collector {
    pub(super) signal: Signal,
    pub(super) client: reqwest::Client,
    /// With the secrets that it asks for: marked as such, so that they are never printed.
    pub(super) headers: HeaderMap,
    pub(super) timeout: Duration,
    pub(super) runtime: Handle,
    /// Whether it did not take what it was last sent.
    pub(super) away: AtomicBool,
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (mut head, body) = request.into_parts();
        keep_own(&mut head.headers);
        let request = self
            .client
            .post(head.uri.to_string())
            .headers(head.headers)
            .headers(self.headers.clone())
            .timeout(self.timeout)
            .body(body);
        let sent = self.runtime.spawn(exchange(request)).await;
        match &sent {
            Ok(Ok(response)) if response.status().is_success() => self.taken(),
            Ok(Ok(response)) => self.not_taken(response.status().as_str()),
            // The address is the operator's own to know, and may tell more than the log should.
            Ok(Err(error)) => self.not_taken(why(error)),
            // The program ends, and with it its runtime.
            Err(_) => {}
        }
        sent?.map_err(|error| error.without_url().into())
    }
}

impl Collector {
    fn taken(&self) {
        if self.away.swap(false, Ordering::Relaxed) {
            let signal = self.signal.as_str();
            tracing::info!(
                signal,
                "telemetry: the collector takes what is exported again"
            );
        }
    }

    fn not_taken(&self, reason: &str) {
        if !self.away.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                signal = self.signal.as_str(),
                reason,
                "telemetry: the collector does not take what is exported; it is dropped until it does"
            );
        }
    }
}

/// The library adds what `OTEL_EXPORTER_OTLP_HEADERS` says to its own headers. That may be a key for
/// another collector: ours is told what our configuration says.
fn keep_own(headers: &mut HeaderMap) {
    let kept = [CONTENT_TYPE, CONTENT_ENCODING]
        .map(|name| headers.remove(&name).map(|value| (name, value)));
    headers.clear();
    headers.extend(kept.into_iter().flatten());
}

async fn exchange(request: reqwest::RequestBuilder) -> Result<Response<Bytes>, reqwest::Error> {
    let mut response = request.send().await?;
    let mut answer = Response::new(Bytes::new());
    *answer.status_mut() = response.status();
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    let mut read = BytesMut::new();
    while let Some(piece) = response.chunk().await? {
        if read.len() + piece.len() > MAX_ANSWER_BYTES {
            break;
        }
        read.extend_from_slice(&piece);
    }
    *answer.body_mut() = read.freeze();
    Ok(answer)
}

fn why(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the exchange broke off"
    }
}
