//! Versions of single resources: `ETag`, `If-None-Match` and `If-Match` (RFC 9110 §8.8, §13).
//!
//! A tag is `"<version>.<variant>"`; the variant tells the representations of one version apart, and
//! what changes without a new version (product.md §5). A precondition on a change looks at the version
//! alone.

use std::convert::Infallible;
use std::fmt::Display;

use axum::extract::FromRequestParts;
use axum::http::header::{CACHE_CONTROL, ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::problem_type::ProblemType;
use super::{Problem, Result};

/// The variant of JSON, where nothing else changes without a new version.
pub const JSON: &str = "json";

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

    /// The versions that the client named, where it bound the change to any.
    pub fn versions(&self) -> Option<&[i64]> {
        match self {
            Self::None => None,
            Self::Versions(versions) => Some(versions),
        }
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

/// One representation of a resource, as it is at one time: a strong validator (RFC 9110 §8.8.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(HeaderValue);

impl Tag {
    /// Of this version; a variant is made of digits, letters and `-`.
    pub fn new(version: i64, variant: impl Display) -> Self {
        // Always a header's text.
        let value = HeaderValue::try_from(format!("\"{version}.{variant}\""));
        Self(value.unwrap_or(HeaderValue::from_static("\"\"")))
    }

    /// Of bytes with this SHA-256, in hexadecimal.
    pub fn of_content(sha256: &str) -> Self {
        let value = HeaderValue::try_from(format!("\"{sha256}\""));
        Self(value.unwrap_or(HeaderValue::from_static("\"\"")))
    }

    /// Whether a client gave this very tag, by strong comparison (RFC 9110 §8.8.3.2).
    pub fn is(&self, given: &[u8]) -> bool {
        self.0.as_bytes() == given
    }

    /// The answer, marked as what the tag stands for.
    pub fn on(self, answer: impl IntoResponse) -> Response {
        let mut response = answer.into_response();
        response.headers_mut().insert(ETAG, self.0);
        response
    }
}

/// What a client has already: its `If-None-Match`.
#[derive(Clone, Debug, Default)]
pub struct Known(Vec<String>);

impl Known {
    /// Reads the header. What is no tag in it is none that a client has.
    pub fn of(headers: &HeaderMap) -> Self {
        let values = headers.get_all(IF_NONE_MATCH).iter();
        let tags = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            // Weak comparison (RFC 9110 §13.1.2).
            .map(|tag| tag.strip_prefix("W/").unwrap_or(tag).to_owned());
        Self(tags.collect())
    }

    /// Whether it names tags, so that it is worth while to look for the current one alone.
    pub fn names_tags(&self) -> bool {
        self.0.iter().any(|tag| tag != "*")
    }

    /// `304`, where the client named this very tag.
    pub fn same(&self, tag: &Tag) -> Option<Response> {
        let same = |given: &String| given.as_bytes() == tag.0.as_bytes();
        let answer = || tag.clone().on(StatusCode::NOT_MODIFIED);
        self.0.iter().any(same).then(answer)
    }

    /// `304`, where the client has what is there: by its tag, or by `*`, which stands for whatever is
    /// there.
    pub fn spared(&self, tag: &Tag) -> Option<Response> {
        if self.0.iter().any(|given| given == "*") {
            return Some(tag.clone().on(StatusCode::NOT_MODIFIED));
        }
        self.same(tag)
    }

    /// The answer that shows what is there, or `304` where the client has it.
    pub fn or(&self, tag: Tag, answer: impl IntoResponse) -> Response {
        self.spared(&tag).unwrap_or_else(|| tag.on(answer))
    }
}

impl<S: Sync> FromRequestParts<S> for Known {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> std::result::Result<Self, Infallible> {
        Ok(Self::of(&parts.headers))
    }
}

/// Clients may keep what they read, for themselves, and ask each time whether it is still so (RFC 9111
/// §5.2.2). Other answers are not to be kept at all, which the listener says.
pub async fn kept_privately(mut response: Response) -> Response {
    let status = response.status();
    if status.is_success() || status == StatusCode::NOT_MODIFIED {
        let own = HeaderValue::from_static("private, no-cache");
        response.headers_mut().insert(CACHE_CONTROL, own);
    }
    response
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
        let respond = |headers: &HeaderMap| Known::of(headers).or(Tag::new(3, JSON), "x");
        let status = |values: &[&str]| respond(&headers(&IF_NONE_MATCH, values)).status();
        assert_eq!(status(&[]), StatusCode::OK);
        assert_eq!(status(&["\"2.json\""]), StatusCode::OK);
        assert_eq!(
            status(&["\"2.json\", \"3.json\""]),
            StatusCode::NOT_MODIFIED
        );
        assert_eq!(status(&["W/\"3.json\""]), StatusCode::NOT_MODIFIED);
        assert_eq!(status(&["*"]), StatusCode::NOT_MODIFIED);
        let response = respond(&HeaderMap::new());
        assert_eq!(response.headers()[ETAG], "\"3.json\"");
    }

    #[test]
    fn a_star_is_for_what_is_known_to_be_there() {
        let known = |value| Known::of(&headers(&IF_NONE_MATCH, &[value]));
        let tag = Tag::new(3, "1-csv");
        assert!(known("*").same(&tag).is_none() && !known("*").names_tags());
        let spared = known("*").or(tag.clone(), "x");
        assert_eq!(spared.status(), StatusCode::NOT_MODIFIED);
        let same = known("\"x\", W/\"3.1-csv\"").same(&tag).unwrap();
        assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(same.headers()[ETAG], "\"3.1-csv\"");
        for other in ["\"3.1-json\"", "3.1-csv", "\"3.1-csv", "\"\""] {
            assert!(known(other).same(&tag).is_none(), "{other}");
        }
    }
}
