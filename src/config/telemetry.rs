//! `[telemetry]`: traces and metrics to a collector.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

use super::check::{Problems, is_bare};
use super::{duration, redact};

/// `[telemetry]`
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// The collector, as OTLP over HTTP names it: without `/v1/traces`. Absent: nothing is exported.
    pub otlp_endpoint: Option<Url>,
    /// Headers that it asks for, `NAME=VALUE` with commas between. They may hold keys: never printed.
    #[serde(serialize_with = "redact::hidden")]
    pub otlp_headers: Option<SecretString>,
    /// The name that this program goes by there.
    pub service_name: String,
    /// The share of traces that are exported, of those that begin here; others are as their parents.
    pub sample_ratio: f64,
    /// How often what was gathered is sent.
    #[serde(with = "duration")]
    pub export_interval: Duration,
    /// How long the collector may take for one request.
    #[serde(with = "duration")]
    pub export_timeout: Duration,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            otlp_headers: None,
            service_name: "forge-dispatch".to_owned(),
            sample_ratio: 1.0,
            export_interval: Duration::from_secs(15),
            export_timeout: Duration::from_secs(10),
        }
    }
}

impl Telemetry {
    /// The headers, their values marked as secret; `None` if they cannot be read.
    pub fn headers(&self) -> Option<HeaderMap> {
        let mut headers = HeaderMap::new();
        let Some(text) = &self.otlp_headers else {
            return Some(headers);
        };
        for header in text.expose_secret().split(',') {
            let (name, value) = header.split_once('=')?;
            let mut value = HeaderValue::try_from(value.trim()).ok()?;
            value.set_sensitive(true);
            headers.insert(HeaderName::try_from(name.trim()).ok()?, value);
        }
        Some(headers)
    }

    /// What the values must be.
    pub(super) fn check(&self, found: &mut Problems) {
        if let Some(endpoint) = &self.otlp_endpoint {
            found.require(
                is_bare(endpoint),
                "telemetry.otlp_endpoint",
                "must be `https://HOST` (or `http://…`, inside), perhaps with a port and a path; keys go into \
                 `telemetry.otlp_headers`",
            );
        }
        found.require(
            self.headers().is_some(),
            "telemetry.otlp_headers",
            "must be `NAME=VALUE`, several with commas between",
        );
        found.require(
            !self.service_name.is_empty(),
            "telemetry.service_name",
            "must not be empty",
        );
        found.require(
            (0.0..=1.0).contains(&self.sample_ratio),
            "telemetry.sample_ratio",
            "must be 0 to 1",
        );
        found.duration("telemetry.export_interval", self.export_interval);
        found.duration("telemetry.export_timeout", self.export_timeout);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn telemetry(headers: &str) -> Telemetry {
        Telemetry {
            otlp_headers: Some(SecretString::from(headers)),
            ..Telemetry::default()
        }
    }

    #[test]
    fn headers_are_read_and_never_shown() {
        let telemetry = telemetry("authorization=Basic czNjcmV0PT0=, x-tenant=s3cret");
        let headers = telemetry.headers().unwrap();
        assert_eq!(headers["authorization"], "Basic czNjcmV0PT0=");
        assert_eq!(headers["x-tenant"], "s3cret");
        let shown = serde_json::to_string(&telemetry).unwrap();
        for text in [shown, format!("{telemetry:?} {headers:?}")] {
            assert!(
                !text.contains("s3cret") && !text.contains("czNjc"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        for text in ["s3cret", "a b=c", "a=b,,c=d", "a=b\nc"] {
            assert!(telemetry(text).headers().is_none(), "{text:?}");
        }
        assert!(Telemetry::default().headers().unwrap().is_empty());
    }
}
