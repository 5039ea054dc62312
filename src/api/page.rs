//! Lists: `{"data":[…],"next_cursor":…}` and `Link: rel="next"` (product.md §5).
//!
//! A cursor is the place behind the last item, and 16 bytes of an HMAC-SHA256 over that place and
//! what the list is of: its route, its workspace and its filters. One that was made up, changed, or
//! taken from another list is refused. The place is veiled by what comes of those 16 bytes, since it
//! may say what its holder does not know: that of a feed tells how much others write.

use std::fmt::{self, Display};
use std::str::FromStr;

use axum::extract::{FromRequestParts, OriginalUri};
use axum::http::header::{CONTENT_TYPE, LINK};
use axum::http::request::Parts;
use axum::http::{HeaderValue, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretBox};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use utoipa::IntoParams;

use super::problem_type::ProblemType;
use super::{Api, Problem, Result, trace};
use crate::domain::ids::WorkspaceId;
use crate::store::vault::keyed;
use crate::store::{Page, PageRequest};

/// Items on a page, where nothing else is asked for.
const DEFAULT_LIMIT: usize = 50;

/// The most items on a page.
const MAX_LIMIT: usize = 500;

/// The largest answer (product.md §5), in bytes.
pub const MAX_ANSWER_BYTES: usize = 10_000_000;

/// Where a page ends before its last item, so that the answer stays below 10 MB.
pub const MAX_PAGE_BYTES: usize = 9_900_000;

const TAG_BYTES: usize = 16;

/// What a veil is made from begins so; what a tag is made from begins with a length that is less.
const VEIL: [u8; 8] = [0xff; 8];

/// Writes and reads cursors.
#[derive(Clone)]
pub struct Cursors(Hmac<Sha256>);

impl fmt::Debug for Cursors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cursors(hidden)")
    }
}

impl Cursors {
    /// Under this key.
    pub fn new(key: &SecretBox<[u8; 32]>) -> Self {
        Self(keyed(key.expose_secret()))
    }

    fn tag(&self, of: &str, place: &str) -> Hmac<Sha256> {
        let length = u64::try_from(of.len()).unwrap_or(u64::MAX);
        self.0
            .clone()
            .chain_update(length.to_be_bytes())
            .chain_update(of)
            .chain_update(place)
    }

    fn write(&self, of: &str, place: &str) -> String {
        let tag = self.tag(of, place).finalize().into_bytes();
        let tag = &tag[..TAG_BYTES];
        URL_SAFE_NO_PAD.encode([tag, &self.veil(tag, place.as_bytes())].concat())
    }

    fn read(&self, of: &str, cursor: &str) -> Option<String> {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        let (tag, place) = bytes.split_at_checked(TAG_BYTES)?;
        let place = String::from_utf8(self.veil(tag, place)).ok()?;
        self.tag(of, &place).verify_truncated_left(tag).ok()?;
        Some(place)
    }

    /// Puts the veil on, or takes it off. Each tag has its own: it stands for the place, as the nonce
    /// of RFC 5297 does for its text.
    fn veil(&self, tag: &[u8], text: &[u8]) -> Vec<u8> {
        let pads = (0_u64..).flat_map(|number| {
            let pad = self.0.clone().chain_update(VEIL).chain_update(tag);
            pad.chain_update(number.to_be_bytes())
                .finalize()
                .into_bytes()
        });
        text.iter()
            .zip(pads)
            .map(|(byte, pad)| byte ^ pad)
            .collect()
    }
}

/// A list that is asked for: which, and which part of it.
#[derive(Debug)]
pub struct Listing {
    cursors: Cursors,
    /// What cursors are bound to.
    of: String,
    uri: Uri,
    limit: usize,
    after: Option<String>,
}

/// The parameters that all lists take.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Part {
    /// At most so many items.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 500)]
    pub limit: Option<String>,
    /// Behind this cursor: `next_cursor` of the page before.
    pub after: Option<String>,
}

/// The address of a request, as it was asked for.
#[derive(Clone, Debug)]
pub struct Asked(Uri);

impl<S: Send + Sync> FromRequestParts<S> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match OriginalUri::from_request_parts(parts, state).await {
            Ok(OriginalUri(uri)) => Ok(Self(uri)),
            Err(never) => match never {},
        }
    }
}

impl Asked {
    /// The address of what lies below what was asked for.
    #[must_use]
    pub fn child(self, name: &str) -> Self {
        let path = format!("{}/{name}", self.0.path().trim_end_matches('/'));
        Self(path.parse().unwrap_or(self.0))
    }

    /// The address of a member of the list that was asked for.
    pub fn below(&self, id: &str) -> HeaderValue {
        let path = self.0.path().trim_end_matches('/');
        // Ids of ours are letters, digits and `_`: always a header's text.
        HeaderValue::try_from(format!("{path}/{id}")).unwrap_or(HeaderValue::from_static("/"))
    }
}

/// A page as it is documented.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PageOf<T> {
    /// The items, in the list's order. A page may hold fewer than `limit` while there are more.
    pub data: Vec<T>,
    /// Send as `after` for the next page; null on the last.
    pub next_cursor: Option<String>,
}

impl Listing {
    /// The list at this address, of this workspace, with these filters (names and values, as they
    /// were given).
    pub fn new(
        api: &Api,
        asked: Asked,
        workspace: &WorkspaceId,
        part: Part,
        filters: &[(&str, Option<&str>)],
    ) -> Result<Self> {
        let limit = limit(part.limit.as_deref())?;
        let path = trace::documented(asked.0.path());
        let mut of = format!("{path}\0{workspace}");
        for (name, value) in filters {
            if let Some(value) = value {
                // Values hold no NUL: they come out of a query as text that was read already.
                of.extend(["\0", name, "=", value]);
            }
        }
        Ok(Self {
            cursors: api.cursors().clone(),
            of,
            uri: asked.0,
            limit,
            after: part.after,
        })
    }

    /// What to ask the store for.
    pub fn request<Key: FromStr>(&self) -> Result<PageRequest<Key>> {
        self.core_request(str::parse)
    }

    /// The same, where the place is an id of the core's own.
    pub fn core_request<Key, E>(
        &self,
        read: impl Fn(&str) -> std::result::Result<Key, E>,
    ) -> Result<PageRequest<Key>> {
        let invalid = || Problem::new(ProblemType::InvalidCursor);
        let after = self
            .after
            .as_deref()
            .map(|cursor| {
                let place = self.cursors.read(&self.of, cursor).ok_or_else(invalid)?;
                read(&place).map_err(|_| invalid())
            })
            .transpose()?;
        Ok(PageRequest {
            limit: self.limit,
            after,
        })
    }

    /// The answer as JSON: as many items of the page as fit into one.
    pub fn answer<Item, Key: Display, View: Serialize>(
        &self,
        page: &Page<Item, Key>,
        key: impl Fn(&Item) -> Key,
        view: impl Fn(&Item) -> View,
    ) -> Result<Response> {
        self.answer_checked(page, key, |item| Ok(view(item)))
    }

    /// The same, where an item may turn out to be none.
    pub fn answer_checked<'p, Item, Key: Display, View: Serialize>(
        &self,
        page: &'p Page<Item, Key>,
        key: impl Fn(&Item) -> Key,
        view: impl Fn(&'p Item) -> Result<View>,
    ) -> Result<Response> {
        let (items, cursor) = self.fit(page, key, |item| json(&view(item)?))?;
        let next = json(&cursor)?;
        let body = format!("{{\"data\":[{}],\"next_cursor\":{next}}}", items.join(","));
        Ok(self.respond("application/json", body, cursor.as_deref()))
    }

    /// As many items of the page as fit into an answer, written, and the cursor behind them where
    /// there are more.
    pub fn fit<'p, Item, Key: Display>(
        &self,
        page: &'p Page<Item, Key>,
        key: impl Fn(&Item) -> Key,
        write: impl Fn(&'p Item) -> Result<String>,
    ) -> Result<(Vec<String>, Option<String>)> {
        let mut bytes = 0;
        let mut items: Vec<String> = Vec::with_capacity(page.items.len());
        let mut next = page.next.as_ref().map(ToString::to_string);
        for (index, item) in page.items.iter().enumerate() {
            let text = write(item)?;
            bytes += text.len() + 1;
            if bytes > MAX_PAGE_BYTES && index > 0 {
                next = Some(key(&page.items[index - 1]).to_string());
                break;
            }
            items.push(text);
        }
        Ok((items, self.cursor(next.as_ref())))
    }

    /// The cursor of a place.
    pub fn cursor(&self, place: Option<&impl ToString>) -> Option<String> {
        place.map(|place| self.cursors.write(&self.of, &place.to_string()))
    }

    /// An answer of this type that leads on to what is behind the cursor.
    pub fn respond(
        &self,
        media_type: &'static str,
        body: String,
        cursor: Option<&str>,
    ) -> Response {
        let mut response = body.into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
        if let Some(link) = cursor.and_then(|cursor| self.link(cursor)) {
            headers.insert(LINK, link);
        }
        response
    }

    /// RFC 8288: the same list, behind this cursor.
    fn link(&self, cursor: &str) -> Option<HeaderValue> {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let asked = self.uri.query().unwrap_or_default();
        for (name, value) in
            url::form_urlencoded::parse(asked.as_bytes()).filter(|(name, _)| name != "after")
        {
            query.append_pair(&name, &value);
        }
        query.append_pair("after", cursor);
        let target = format!("<{}?{}>; rel=\"next\"", self.uri.path(), query.finish());
        HeaderValue::try_from(target).ok()
    }
}

fn limit(text: Option<&str>) -> Result<usize> {
    let Some(text) = text else {
        return Ok(DEFAULT_LIMIT);
    };
    // Digits alone: the reader of numbers takes a `+` before them, too.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(limit) if digits && (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        _ => Err(Problem::parameter(
            "limit",
            "must be a whole number from 1 to 500",
        )),
    }
}

/// What is shown, as JSON.
pub fn json(view: &impl Serialize) -> Result<String> {
    serde_json::to_string(view).map_err(|error| unwritable(&error))
}

/// Our views are texts, numbers and lists: writing one does not fail.
fn unwritable(error: &serde_json::Error) -> Problem {
    tracing::error!(%error, "an answer cannot be written");
    Problem::new(ProblemType::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cursors(byte: u8) -> Cursors {
        Cursors::new(&SecretBox::new(Box::new([byte; 32])))
    }

    #[test]
    fn a_cursor_is_read_by_the_list_that_wrote_it_and_by_no_other() {
        let cursor = cursors(1).write("/v1/deliveries\0ws", "dlv_1");
        let read = |byte, of: &str, cursor: &str| cursors(byte).read(of, cursor);
        assert_eq!(
            read(1, "/v1/deliveries\0ws", &cursor),
            Some("dlv_1".to_owned())
        );
        assert_eq!(read(2, "/v1/deliveries\0ws", &cursor), None);
        assert_eq!(read(1, "/v1/deliveries\0ws2", &cursor), None);
        for at in 0..cursor.len() {
            let mut changed = cursor.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert_eq!(read(1, "/v1/deliveries\0ws", &changed), None, "{at}");
            assert_eq!(read(1, "/v1/deliveries\0ws", &cursor[..at]), None, "{at}");
        }
    }

    #[test]
    fn a_limit_is_a_number_in_its_bounds() {
        assert_eq!(limit(None).unwrap(), DEFAULT_LIMIT);
        assert_eq!(limit(Some("500")).unwrap(), MAX_LIMIT);
        for wrong in ["", "0", "501", "+5", "-1", "1.0", "5 ", "٥"] {
            assert!(limit(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_cursor_shows_nothing_of_its_place() {
        let place = |cursor: &str| URL_SAFE_NO_PAD.decode(cursor).unwrap()[TAG_BYTES..].to_vec();
        let long = "0123456789".repeat(20);
        let cursor = cursors(1).write("a", &long);
        assert_eq!(cursors(1).read("a", &cursor), Some(long.clone()));
        let veiled = place(&cursor);
        assert!(
            !veiled
                .windows(3)
                .any(|part| long.as_bytes().windows(3).any(|it| it == part))
        );
        // Two that differ in a digit do not differ in a byte only.
        let [one, two] = ["1000001", "1000002"].map(|it| place(&cursors(1).write("a", it)));
        assert_ne!(one[..6], two[..6]);
    }

    #[test]
    fn what_is_bound_and_the_place_are_not_run_together() {
        let cursor = cursors(1).write("ab", "c");
        assert_eq!(cursors(1).read("a", &cursor), None);
        assert_ne!(cursor, cursors(1).write("a", "bc"));
    }
}
