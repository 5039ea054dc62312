//! One try at a delivery, and what is kept of it (product.md §4: every attempt is kept).

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// How much of a response body is kept, in bytes; the rest is not read.
pub const MAX_EXCERPT_BYTES: usize = 16 * 1024;

/// Why an attempt failed, as a class that can be counted and filtered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The name did not resolve.
    Dns,
    /// No connection could be made.
    Connect,
    /// The TLS handshake or the certificate failed.
    Tls,
    /// A deadline passed.
    Timeout,
    /// The address is one that may not be dialled.
    BlockedAddress,
    /// An answer, but no 2xx.
    HttpStatus,
    /// The connection broke while the answer was read.
    Body,
    /// The request could not be sent whole, or the answer was no HTTP.
    Protocol,
    /// A process took this delivery several times and never came back with an outcome.
    Lost,
    /// Our own fault: the attempt panicked, or there was no event left to be sent.
    Internal,
}

impl ErrorClass {
    /// All classes, for parsers and tests.
    pub const ALL: [Self; 10] = [
        Self::Dns,
        Self::Connect,
        Self::Tls,
        Self::Timeout,
        Self::BlockedAddress,
        Self::HttpStatus,
        Self::Body,
        Self::Protocol,
        Self::Lost,
        Self::Internal,
    ];

    /// The name in the database, the API, logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::BlockedAddress => "blocked_address",
            Self::HttpStatus => "http_status",
            Self::Body => "body",
            Self::Protocol => "protocol",
            Self::Lost => "lost",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ErrorClass {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|class| class.as_str() == text)
            .ok_or_else(|| format!("no error class `{text}`"))
    }
}

/// What set an attempt off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// The event itself, or its retry schedule.
    #[default]
    Schedule,
    /// An operator's replay.
    Replay,
    /// A test send.
    Test,
}

impl Trigger {
    /// The name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Replay => "replay",
            Self::Test => "test",
        }
    }
}

impl FromStr for Trigger {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Schedule, Self::Replay, Self::Test]
            .into_iter()
            .find(|trigger| trigger.as_str() == text)
            .ok_or_else(|| format!("no trigger `{text}`"))
    }
}

/// What one attempt met.
#[derive(Clone, Debug, PartialEq)]
pub struct Attempt {
    /// When it began, by the clock of the process that made it.
    pub at: DateTime<Utc>,
    /// How long it took, to the end of what was read.
    pub duration: Duration,
    /// What set it off.
    pub trigger: Trigger,
    /// The answer's status, where there was an answer.
    pub status: Option<u16>,
    /// Why it failed; `None` is success.
    pub error: Option<ErrorClass>,
    /// The answer's headers, in order.
    pub response_headers: Vec<(String, String)>,
    /// The beginning of the answer's body, at most [`MAX_EXCERPT_BYTES`], as text without NUL.
    pub response_excerpt: String,
}

impl Attempt {
    /// Whether the receiver took the delivery.
    pub fn succeeded(&self) -> bool {
        self.error.is_none()
    }
}

/// Bytes from outside as text that every database takes: invalid UTF-8 and NUL are replaced.
pub fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for class in ErrorClass::ALL {
            assert_eq!(class.as_str().parse(), Ok(class));
        }
        for trigger in [Trigger::Schedule, Trigger::Replay, Trigger::Test] {
            assert_eq!(trigger.as_str().parse(), Ok(trigger));
        }
    }

    #[test]
    fn bytes_become_text_without_nul() {
        assert_eq!(printable(b"ok\0\xff"), "ok\u{fffd}\u{fffd}");
    }
}
