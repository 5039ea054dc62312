//! Headers of an admin's own that go with every delivery of a subscription.

use std::collections::BTreeMap;
use std::fmt;

use super::subscription::FieldError;

/// The most headers.
pub const MAX_HEADERS: usize = 20;

/// The longest value, in bytes.
pub const MAX_VALUE_BYTES: usize = 1_024;

/// The longest name, in bytes.
pub const MAX_NAME_BYTES: usize = 100;

/// Names that belong to the connection (RFC 9110 §7.6.1), the message (§8), the road it takes, its
/// sender or its signature: a receiver must be able to believe them.
const DENIED: [&str; 26] = [
    "accept-encoding",
    "alt-used",
    "connection",
    "cookie",
    "date",
    "expect",
    "forwarded",
    "host",
    "http2-settings",
    "keep-alive",
    "max-forwards",
    "origin",
    "range",
    "referer",
    "te",
    "traceparent",
    "tracestate",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
    "via",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-real-ip",
];

/// How further such names begin.
const DENIED_PREFIXES: [&str; 7] = [
    "content-",
    "if-",
    "proxy-",
    "sec-",
    "webhook-",
    "x-forwarded-",
    "x-kazinex-",
];

/// Names in lower case and in their order, with their values. A value may be a credential: it is
/// printed nowhere and kept sealed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CustomHeaders(BTreeMap<String, String>);

impl CustomHeaders {
    /// Takes headers that keep the rules. The error names no value.
    pub fn new(headers: impl IntoIterator<Item = (String, String)>) -> Result<Self, FieldError> {
        let wrong = |reason: String| Err(FieldError::new("headers", reason));
        let mut taken = BTreeMap::new();
        for (name, value) in headers {
            let name = name.to_ascii_lowercase();
            if taken.len() == MAX_HEADERS {
                return wrong(format!("must be at most {MAX_HEADERS}"));
            }
            if !is_name(&name) {
                return wrong(format!(
                    "must have names of 1 to {MAX_NAME_BYTES} letters, digits and `-`"
                ));
            }
            if is_denied(&name) {
                return wrong(format!("must not set `{name}`"));
            }
            if !is_value(&value) {
                return wrong(format!(
                    "`{name}` must have a value of 1 to {MAX_VALUE_BYTES} visible ASCII characters, \
                     with spaces between them only"
                ));
            }
            if taken.contains_key(&name) {
                return wrong(format!("must name `{name}` once"));
            }
            taken.insert(name, value);
        }
        Ok(Self(taken))
    }

    /// Takes back what was stored; it was checked when it came in, by the rules of then.
    pub fn stored(headers: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(headers.into_iter().collect())
    }

    /// Names and values, for sending and for storing them sealed.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The names alone, for showing.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// No `_`, though HTTP allows it: many servers hand `a_b` and `a-b` to the program behind them under
/// one name, so that `webhook_id` would pass for `webhook-id`.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed)
}

fn is_denied(name: &str) -> bool {
    DENIED.contains(&name)
        || DENIED_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// A field value (RFC 9110 §5.5) without what some servers read otherwise than others.
fn is_value(value: &str) -> bool {
    (1..=MAX_VALUE_BYTES).contains(&value.len())
        && value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && value.trim() == value
}

impl fmt::Debug for CustomHeaders {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new(pairs: &[(&str, &str)]) -> Result<CustomHeaders, FieldError> {
        CustomHeaders::new(owned(pairs))
    }

    fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn ordinary_headers_are_taken_in_lower_case() {
        let headers = new(&[("X-Tenant", "7"), ("Authorization", "Bearer x y")]).unwrap();
        let taken: Vec<_> = headers.iter().collect();
        assert_eq!(taken, [("authorization", "Bearer x y"), ("x-tenant", "7")]);
        assert!(headers.names().eq(["authorization", "x-tenant"]));
        assert_eq!(CustomHeaders::stored(owned(&taken)), headers);
        assert!(new(&[]).unwrap().is_empty());
    }

    #[test]
    fn values_are_not_printed() {
        let headers = new(&[("authorization", "Bearer s3cret")]).unwrap();
        assert_eq!(format!("{headers:?}"), r#"["authorization"]"#);
        for pairs in [
            &[("a", "s3cret\n")] as &[(&str, &str)],
            &[("te", "s3cret")],
            &[("a b", "s3cret")],
            &[("a", "s3cret"), ("A", "s3cret")],
        ] {
            assert!(!new(pairs).unwrap_err().to_string().contains("s3cret"));
        }
    }

    #[test]
    fn what_a_receiver_must_be_able_to_believe_is_refused() {
        for name in [
            "Host",
            "content-length",
            "Content-Type",
            "WEBHOOK-ID",
            "webhook-signature",
            "X-Kazinex-Signature",
            "x-forwarded-for",
            "Transfer-Encoding",
            "te",
            "user-agent",
            "traceparent",
            "proxy-authorization",
        ] {
            let error = new(&[(name, "x")]).unwrap_err();
            assert_eq!(error.field, "headers");
            assert!(error.reason.starts_with("must not set"), "{error}");
        }
        assert!(
            new(&[("webhook_id", "x")]).is_err(),
            "passes for webhook-id"
        );
    }

    #[test]
    fn what_would_split_a_request_is_refused() {
        for (name, value) in [
            ("", "x"),
            ("a b", "x"),
            ("a:", "x"),
            (":authority", "x"),
            ("a\r\nb", "x"),
            ("ä", "x"),
            ("a", ""),
            ("a", "x\r\ny: z"),
            ("a", "x\ty"),
            ("a", "x\0"),
            ("a", " x"),
            ("a", "x "),
            ("a", "ä"),
        ] {
            assert!(new(&[(name, value)]).is_err(), "{name:?}: {value:?}");
        }
        assert!(new(&[("a", "1"), ("A", "2")]).is_err(), "twice");
    }

    #[test]
    fn the_limits_are_what_they_say() {
        let of = |length: usize| "x".repeat(length);
        assert!(new(&[("a", &of(MAX_VALUE_BYTES))]).is_ok());
        assert!(new(&[("a", &of(MAX_VALUE_BYTES + 1))]).is_err());
        assert!(new(&[(&of(MAX_NAME_BYTES), "x")]).is_ok());
        assert!(new(&[(&of(MAX_NAME_BYTES + 1), "x")]).is_err());
        let many = |count| (0..count).map(|number| (format!("x-{number}"), "x".to_owned()));
        assert!(CustomHeaders::new(many(MAX_HEADERS)).is_ok());
        assert!(CustomHeaders::new(many(MAX_HEADERS + 1)).is_err());
    }
}
