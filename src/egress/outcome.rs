//! What came of one request.

use std::time::Duration;

use chrono::{DateTime, Utc};
use reqwest::header::{HeaderMap, RETRY_AFTER};

use super::resolver::ResolveError;
use crate::domain::attempt::{ErrorClass, MAX_EXCERPT_BYTES, printable};

/// The most headers that are kept of an answer.
pub const MAX_HEADERS: usize = 64;

/// The most bytes that are kept of all headers of an answer, names and values together.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

/// The longest explanation that is kept of an error, in bytes.
const MAX_DETAIL_BYTES: usize = 512;

/// One request, made.
#[derive(Debug)]
pub struct Sent {
    /// When it began.
    pub at: DateTime<Utc>,
    /// How long it took, to the end of what was read.
    pub duration: Duration,
    /// What came back.
    pub answer: Result<Answer, SendError>,
}

/// An answer, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The headers, values as text without NUL; at most [`MAX_HEADERS`] and [`MAX_HEADER_BYTES`].
    pub headers: Vec<(String, String)>,
    /// The beginning of the body, at most [`MAX_EXCERPT_BYTES`], as text without NUL.
    pub excerpt: String,
    /// `Retry-After` as it was sent.
    pub retry_after: Option<String>,
}

impl Answer {
    /// An answer's head; the body is yet to come.
    pub(super) fn head(status: u16, headers: &HeaderMap) -> Self {
        let mut kept = Vec::with_capacity(headers.len().min(MAX_HEADERS));
        let mut room = MAX_HEADER_BYTES;
        for (name, value) in headers.iter().take(MAX_HEADERS) {
            let mut value = text(value.as_bytes());
            if name.as_str().len() >= room {
                break;
            }
            room -= name.as_str().len();
            cut(&mut value, room);
            room -= value.len();
            kept.push((name.as_str().to_owned(), value));
        }
        Self {
            status,
            headers: kept,
            excerpt: String::new(),
            retry_after: headers
                .get(RETRY_AFTER)
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
        }
    }

    /// Adds what was read of the body.
    pub(super) fn with_excerpt(mut self, body: &[u8]) -> Self {
        self.excerpt = text(&body[..body.len().min(MAX_EXCERPT_BYTES)]);
        // Replacement characters are longer than the bytes they stand for.
        cut(&mut self.excerpt, MAX_EXCERPT_BYTES);
        self
    }
}

fn text(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        String::new()
    } else {
        printable(bytes)
    }
}

fn cut(text: &mut String, most: usize) {
    text.truncate(text.floor_char_boundary(most));
}

/// A request that got no answer, or not all of it.
#[derive(Debug, thiserror::Error)]
#[error("{class}: {detail}")]
pub struct SendError {
    /// Why, as a class.
    pub class: ErrorClass,
    /// Why, for operators. Holds the host at most, no path, no query and no header.
    pub detail: String,
    /// What had been read of the answer when it broke off.
    pub answer: Option<Box<Answer>>,
}

impl SendError {
    pub(super) fn new(class: ErrorClass, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        cut(&mut detail, MAX_DETAIL_BYTES);
        Self {
            class,
            detail,
            answer: None,
        }
    }

    /// Adds what had been read of the answer.
    pub(super) fn after(mut self, answer: Answer) -> Self {
        self.answer = Some(Box::new(answer));
        self
    }

    /// An error before the answer's head was complete.
    pub(super) fn sending(error: reqwest::Error) -> Self {
        let error = error.without_url();
        Self::new(class_of(&error), explain(&error))
    }

    /// An error while the answer's body was read.
    pub(super) fn reading(error: reqwest::Error) -> Self {
        let error = error.without_url();
        let class = if error.is_timeout() {
            ErrorClass::Timeout
        } else {
            ErrorClass::Body
        };
        Self::new(class, explain(&error))
    }
}

type Cause<'a> = &'a (dyn std::error::Error + 'static);

/// The error below this one. An `io::Error` that wraps another error names that one's source as
/// its own and skips it, so it is opened instead.
fn below(error: Cause<'_>) -> Option<Cause<'_>> {
    match error.downcast_ref::<std::io::Error>() {
        Some(error) => error.get_ref().map(|inner| inner as Cause<'_>),
        None => error.source(),
    }
}

fn chain(error: Cause<'_>) -> impl Iterator<Item = Cause<'_>> {
    std::iter::successors(Some(error), |error| below(*error))
}

fn class_of(error: &reqwest::Error) -> ErrorClass {
    for cause in chain(error) {
        match cause.downcast_ref::<ResolveError>() {
            Some(ResolveError::Blocked(_)) => return ErrorClass::BlockedAddress,
            Some(_) => return ErrorClass::Dns,
            None => {}
        }
        // Also where the peer speaks up after its part of the handshake is done, as TLS 1.3 has it
        // for client certificates.
        if cause.is::<rustls::Error>() || cause.is::<rustls::pki_types::InvalidDnsNameError>() {
            return ErrorClass::Tls;
        }
    }
    if error.is_timeout() {
        ErrorClass::Timeout
    } else if error.is_dns() {
        ErrorClass::Dns
    } else if error.is_connect() {
        connecting(error)
    } else {
        ErrorClass::Protocol
    }
}

/// TCP or TLS? The connector's own errors are of a type that it keeps to itself, and an I/O error
/// is inside one when the connection could not be made. What breaks the handshake on a connection
/// that was made comes as an I/O error that stands there bare, below reqwest's and the pool's.
fn connecting(error: &reqwest::Error) -> ErrorClass {
    match chain(error).nth(2) {
        Some(cause) if cause.is::<std::io::Error>() => ErrorClass::Tls,
        _ => ErrorClass::Connect,
    }
}

/// All messages of the chain, each once.
fn explain(error: &reqwest::Error) -> String {
    let mut messages: Vec<String> = Vec::new();
    for cause in chain(error) {
        let message = cause.to_string();
        if messages.last().is_none_or(|last| *last != message) {
            messages.push(message);
        }
    }
    messages.join(": ")
}
