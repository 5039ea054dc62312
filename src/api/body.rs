//! JSON bodies of requests.

use std::fmt;
use std::marker::PhantomData;

use axum::body::{Bytes, HttpBody};
use axum::extract::rejection::{BytesRejection, FailedToBufferBody};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};
use sha2::{Digest, Sha256};

use super::problem_type::ProblemType;
use super::{Problem, Result};

/// The largest body, in bytes (product.md §5).
pub const MAX_BODY_BYTES: usize = 5_000_000;

/// The longest reason, in characters: a client's own words may be in it.
const MAX_REASON_CHARS: usize = 300;

/// A body, read as JSON of this shape.
#[derive(Debug)]
pub struct JsonBody<T> {
    /// What it says.
    pub value: T,
    /// The SHA-256 of its bytes: two requests with the same are the same request.
    pub fingerprint: [u8; 32],
}

/// A JSON object of this shape. A struct alone would be read from an array as well, by position.
#[derive(Clone, Copy, Debug, Default)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

/// Reads the members of an object.
struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> std::result::Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        if !is_json(request.headers()) {
            return Err(Problem::new(ProblemType::UnsupportedMediaType));
        }
        let bytes = bytes(request, state).await?;
        Ok(Self {
            value: read(&bytes)?,
            fingerprint: Sha256::digest(&bytes).into(),
        })
    }
}

/// The same, where no body at all says nothing, and neither does `null`.
#[derive(Debug)]
pub struct OptionalBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for OptionalBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        if request.body().is_end_stream() {
            return Ok(Self(T::default()));
        }
        if !is_json(request.headers()) {
            return Err(Problem::new(ProblemType::UnsupportedMediaType));
        }
        let bytes = bytes(request, state).await?;
        if bytes.trim_ascii() == b"null" {
            return Ok(Self(T::default()));
        }
        read(&bytes).map(Self)
    }
}

/// The whole body.
pub(super) async fn bytes<S: Send + Sync>(request: Request, state: &S) -> Result<Bytes> {
    Bytes::from_request(request, state)
        .await
        .map_err(|rejection| match rejection {
            BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
                Problem::new(ProblemType::PayloadTooLarge)
            }
            _ => Problem::new(ProblemType::MalformedBody).detail("The body broke off."),
        })
}

/// `application/json`, or a type made of it (RFC 6839 §3.1), and not compressed.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = content_type(headers) else {
        return false;
    };
    let essence = value.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    let json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    json && !is_encoded(headers)
}

/// What the body is said to be, where that is said once.
pub(super) fn content_type(headers: &HeaderMap) -> Option<&str> {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    match (types.next(), types.next()) {
        (Some(value), None) => value.to_str().ok(),
        _ => None,
    }
}

/// Whether a body would have to be decoded first, which we do not do.
pub fn is_encoded(headers: &HeaderMap) -> bool {
    headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize(&mut json);
    match read {
        Ok(Object(value)) if json.end().is_ok() => Ok(value),
        read => {
            // Whether it is JSON at all is asked for itself: where a name of a list is expected, the
            // reader calls any other value a fault of the syntax.
            if let Err(error) = serde_json::from_slice::<IgnoredAny>(bytes) {
                return Err(malformed(&error));
            }
            let fault = read.err().map(|error| {
                let at = pointer(error.path());
                Problem::value(at, reason(error.inner()))
            });
            Err(fault.unwrap_or_else(|| Problem::new(ProblemType::MalformedBody)))
        }
    }
}

fn malformed(error: &serde_json::Error) -> Problem {
    let place = format!("line {}, column {}", error.line(), error.column());
    let detail = match error.classify() {
        Category::Eof if error.line() <= 1 && error.column() == 0 => {
            "The body is empty.".to_owned()
        }
        Category::Eof => format!("The JSON document ends too early, at {place}."),
        _ => format!("No JSON at {place}."),
    };
    Problem::new(ProblemType::MalformedBody).detail(detail)
}

/// What is wrong, in the reader's words, without the place: the pointer says that.
fn reason(error: &serde_json::Error) -> String {
    if error.classify() != Category::Data {
        return "is a value of another type".to_owned();
    }
    let text = error.to_string();
    let text = text
        .rsplit_once(" at line ")
        .map_or(&*text, |(reason, _)| reason);
    if text.chars().count() > MAX_REASON_CHARS {
        let cut: String = text.chars().take(MAX_REASON_CHARS).collect();
        return format!("{cut}…");
    }
    text.to_owned()
}

/// A path as a JSON pointer (RFC 6901).
fn pointer(path: &Path) -> String {
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { .. } | Segment::Unknown => String::new(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::problem::Fault;
    use axum::http::HeaderValue;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Shape {
        name: String,
        #[serde(default)]
        list: Vec<u32>,
        kind: Option<Kind>,
    }

    #[derive(Debug, Deserialize)]
    enum Kind {
        Plain,
    }

    fn problem(body: &str) -> Problem {
        read::<Shape>(body.as_bytes()).unwrap_err()
    }

    #[test]
    fn what_is_no_json_is_malformed_and_what_is_wrong_in_it_is_named() {
        for (body, detail) in [
            ("", "The body is empty."),
            (
                "{",
                "The JSON document ends too early, at line 1, column 1.",
            ),
            ("{]", "No JSON at line 1, column 2."),
            ("{\"name\":\"x\"} x", "No JSON at line 1, column 14."),
            (
                "{\"name\":1,",
                "The JSON document ends too early, at line 1, column 10.",
            ),
        ] {
            let problem = problem(body);
            assert_eq!(problem.kind(), ProblemType::MalformedBody, "{body}");
            assert_eq!(problem.told(), detail, "{body}");
        }
        for (body, pointer, detail) in [
            ("[]", "", "invalid type: sequence, expected an object"),
            ("null", "", "invalid type: null, expected an object"),
            ("{}", "", "missing field `name`"),
            (
                r#"{"name":1}"#,
                "/name",
                "invalid type: integer `1`, expected a string",
            ),
            (
                r#"{"name":"x","kind":5}"#,
                "/kind",
                "is a value of another type",
            ),
            (
                r#"{"name":"x","list":[1,"2"]}"#,
                "/list/1",
                "invalid type: string \"2\", expected u32",
            ),
            (
                r#"{"name":"x","a/b~c":1}"#,
                "/a~1b~0c",
                "unknown field `a/b~c`, expected one of `name`, `list`, `kind`",
            ),
        ] {
            let problem = problem(body);
            assert_eq!(problem.kind(), ProblemType::InvalidValues, "{body}");
            let expected = Fault::Value {
                pointer: pointer.to_owned(),
                detail: detail.to_owned(),
            };
            assert_eq!(problem.list(), [expected], "{body}");
        }
    }

    #[test]
    fn a_long_word_of_the_clients_is_cut() {
        let problem = problem(&format!(r#"{{"name":"x","{}":1}}"#, "é".repeat(5_000)));
        let Fault::Value { detail, .. } = &problem.list()[0] else {
            panic!()
        };
        assert_eq!(detail.chars().count(), MAX_REASON_CHARS + 1);
    }

    #[test]
    fn only_plain_json_is_taken() {
        let headers = |name, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(name, HeaderValue::from_static(value));
            headers
        };
        for good in [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/merge-patch+json",
        ] {
            assert!(is_json(&headers(CONTENT_TYPE, good)), "{good}");
        }
        for bad in ["text/json", "application/x-www-form-urlencoded", "json", ""] {
            assert!(!is_json(&headers(CONTENT_TYPE, bad)), "{bad}");
        }
        assert!(is_json(&headers(CONTENT_ENCODING, "identity")));
        assert!(!is_json(&headers(CONTENT_ENCODING, "gzip")));
        assert!(!is_json(&HeaderMap::new()));
    }
}
