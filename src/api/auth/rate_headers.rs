//! What a client is told of its limits (product.md §5): the `X-RateLimit-…` headers, and the ones of
//! draft-ietf-httpapi-ratelimit-headers.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use chrono::{DateTime, Utc};

use crate::domain::rate::{HOUR, MINUTE, RateLimits, RateUsage, Tightest};

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
const STANDARD: HeaderName = HeaderName::from_static("ratelimit");
const POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Where a key stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    limits: RateLimits,
    tightest: Tightest,
    /// The instant it was judged at, by the clock that the windows are told by.
    at: DateTime<Utc>,
}

impl Standing {
    pub(super) fn new(usage: RateUsage, limits: RateLimits, at: DateTime<Utc>) -> Self {
        Self {
            limits,
            tightest: usage.tightest(limits),
            at,
        }
    }

    /// Whole seconds until the window ends, at least one: a client that waits for them is let through.
    pub(super) fn wait_secs(&self) -> u64 {
        let rest = (self.tightest.resets_at - self.at).to_std();
        whole_secs(rest.unwrap_or_default()).max(1)
    }

    /// Tells the client.
    pub(super) fn insert(&self, headers: &mut HeaderMap) {
        let Tightest {
            limit,
            remaining,
            resets_at,
            length,
        } = self.tightest;
        let reset = resets_at.timestamp() + i64::from(resets_at.timestamp_subsec_nanos() > 0);
        headers.insert(LIMIT, HeaderValue::from(limit));
        headers.insert(REMAINING, HeaderValue::from(remaining));
        headers.insert(RESET, HeaderValue::from(reset));
        let name = if length == MINUTE { "minute" } else { "hour" };
        let standard = format!("\"{name}\";r={remaining};t={}", self.wait_secs());
        let policy = format!(
            "\"minute\";q={};w={}, \"hour\";q={};w={}",
            self.limits.per_minute,
            MINUTE.as_secs(),
            self.limits.per_hour,
            HOUR.as_secs()
        );
        for (header, text) in [(STANDARD, standard), (POLICY, policy)] {
            // Names and numbers: always a header's text.
            if let Ok(value) = HeaderValue::try_from(text) {
                headers.insert(header, value);
            }
        }
    }
}

fn whole_secs(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_of_the_tightest_window_and_never_to_come_too_early() {
        let limits = RateLimits {
            per_minute: 60,
            per_hour: 1_000,
        };
        let opened = DateTime::from_timestamp_micros(1_777_000_000_250_001).unwrap();
        let (usage, _) = RateUsage::new(opened).count(opened, limits);
        let at = opened + Duration::from_millis(1_500);
        let standing = Standing::new(usage, limits, at);
        let mut headers = HeaderMap::new();
        standing.insert(&mut headers);
        let text = |name| headers.get(name).unwrap().to_str().unwrap();
        assert_eq!(text("x-ratelimit-limit"), "60");
        assert_eq!(text("x-ratelimit-remaining"), "59");
        assert_eq!(text("x-ratelimit-reset"), "1777000061");
        assert_eq!(text("ratelimit"), "\"minute\";r=59;t=59");
        assert_eq!(
            text("ratelimit-policy"),
            "\"minute\";q=60;w=60, \"hour\";q=1000;w=3600"
        );
        assert_eq!(standing.wait_secs(), 59);
        let late = Standing::new(usage, limits, opened + MINUTE);
        assert_eq!(late.wait_secs(), 1);
    }
}
