//! Versions of single resources: `ETag`, `If-None-Match` and `If-Match` (RFC 9110 §8.8, §13).
//!
//! A tag is `"<version>.<variant>"`; the variant tells the representations of one version apart
//! (product.md §5). A precondition on a change looks at the version alone.

use axum::http::header::{ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::problem_type::ProblemType;
use super::{Problem, Result};

/// The only representation that resources have so far.
const JSON: &str = "json";

/// What a client asks a change to be made on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Whatever the version is.
    None,
    /// One of these versions.
    Versions(Vec<i64>),
}

impl Precondition {
    /// Reads `If-Match`.
    pub fn of(headers: &HeaderMap) -> Result<Self> {
        let wrong =
            || Problem::bad_header(&IF_MATCH, "must be an entity tag of this resource, or `*`");
        let mut given = Vec::new();
        for value in headers.get_all(IF_MATCH) {
            given.extend(value.to_str().map_err(|_| wrong())?.split(','));
        }
        if given.is_empty() || given == ["*"] {
            return Ok(Self::None);
        }
        let mut versions = Vec::new();
        for tag in given {
            // A weak tag matches nothing here (RFC 9110 §13.1.1); neither does one that is not of
            // our making, but it is well formed.
            let tag = tag.trim_matches([' ', '\t']);
            let strong = tag.strip_prefix("W/").unwrap_or(tag);
            let inner = inner(strong).ok_or_else(wrong)?;
            if strong.len() == tag.len() {
                let version = inner.split('.').next().unwrap_or_default();
                versions.push(version.parse().unwrap_or(-1));
            }
        }
        Ok(Self::Versions(versions))
    }

    /// The version that a change is bound to, where the client bound it: this one, if it may be made
    /// on it at all.
    pub fn bound(&self, version: i64) -> Result<Option<i64>> {
        self.allows(version)?;
        Ok((*self != Self::None).then_some(version))
    }

    /// Whether a change may be made on this version.
    pub fn allows(&self, version: i64) -> Result<()> {
        match self {
            Self::Versions(versions) if !versions.contains(&version) => {
                Err(Problem::new(ProblemType::StaleVersion))
            }
            _ => Ok(()),
        }
    }
}

/// What is between the quotes of an entity tag (RFC 9110 §8.8.3).
fn inner(tag: &str) -> Option<&str> {
    let inner = tag.strip_prefix('"')?.strip_suffix('"')?;
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'"';
    inner.bytes().all(allowed).then_some(inner)
}

/// The answer that shows a resource at a version, or `304` where the client has it.
pub fn respond(headers: &HeaderMap, version: i64, answer: impl IntoResponse) -> Response {
    let tag = tag(version);
    let known = headers.get_all(IF_NONE_MATCH).iter().any(|value| {
        let tags = value.to_str().unwrap_or_default();
        tags.split(',').map(str::trim).any(|given| {
            // Weak comparison (RFC 9110 §13.1.2).
            given == "*" || given.strip_prefix("W/").unwrap_or(given).as_bytes() == tag.as_bytes()
        })
    });
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        answer.into_response()
    };
    response.headers_mut().insert(ETAG, tag);
    response
}

/// The tag of a resource at a version.
pub fn tag(version: i64) -> HeaderValue {
    // Digits and letters: always a header's text.
    HeaderValue::try_from(format!("\"{version}.{JSON}\""))
        .unwrap_or(HeaderValue::from_static("\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &axum::http::HeaderName, values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(name, HeaderValue::try_from(*value).unwrap());
        }
        headers
    }

    #[test]
    fn a_precondition_names_versions() {
        let read = |values: &[&str]| Precondition::of(&headers(&IF_MATCH, values));
        assert_eq!(read(&[]).unwrap(), Precondition::None);
        assert_eq!(read(&["*"]).unwrap(), Precondition::None);
        let two = read(&["\"3.json\", W/\"4.json\"", "\"5.csv\""]).unwrap();
        assert_eq!(two, Precondition::Versions(vec![3, 5]));
        assert!(two.allows(3).is_ok());
        let stale = two.allows(4).unwrap_err();
        assert_eq!(stale.kind(), ProblemType::StaleVersion);
        assert!(read(&["\"other\""]).unwrap().allows(1).is_err());
        assert!(read(&["W/\"1.json\""]).unwrap().allows(1).is_err());
        for malformed in [
            "3.json",
            "\"",
            "",
            "\"3.json\" \"4.json\"",
            "\"3 json\"",
            "\"3.json\", *",
            "\"3.json\",",
        ] {
            let problem = read(&[malformed]);
            assert!(problem.is_err(), "{malformed}");
        }
    }

    #[test]
    fn a_client_that_has_it_is_told_so() {
        let status = |values: &[&str]| respond(&headers(&IF_NONE_MATCH, values), 3, "x").status();
        assert_eq!(status(&[]), StatusCode::OK);
        assert_eq!(status(&["\"2.json\""]), StatusCode::OK);
        assert_eq!(
            status(&["\"2.json\", \"3.json\""]),
            StatusCode::NOT_MODIFIED
        );
        assert_eq!(status(&["W/\"3.json\""]), StatusCode::NOT_MODIFIED);
        assert_eq!(status(&["*"]), StatusCode::NOT_MODIFIED);
        let response = respond(&HeaderMap::new(), 3, "x");
        assert_eq!(response.headers()[ETAG], "\"3.json\"");
    }
}
