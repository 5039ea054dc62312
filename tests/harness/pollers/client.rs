//! One that polls: what it holds, and what it holds each answer against.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use forge_dispatch::clock::{Clock, SystemClock};
use http::{HeaderValue, StatusCode};
use serde_json::Value;
use tokio::time::MissedTickBehavior;

use super::End;
use super::core::{State, rows_at};

/// What of an edition is polled.
const PARTS: [Part; 3] = [Part::Edition, Part::Values, Part::Rows];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Part {
    Edition,
    Values,
    Rows,
}

/// How long each answer took, by what it was.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// What was sent as it was new.
    pub(crate) sent: Vec<Duration>,
    /// What was known: `304`.
    pub(crate) spared: Vec<Duration>,
}

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.sent.extend(other.sent);
        self.spared.extend(other.spared);
    }

    /// How long all of them took.
    pub(crate) fn took(&self) -> Vec<Duration> {
        [&*self.sent, &*self.spared].concat()
    }

    /// The share of those who knew it already.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    pub(crate) fn share_spared(&self) -> f64 {
        self.spared.len() as f64 / (self.spared.len() + self.sent.len()) as f64
    }
}

/// What it has of a part.
struct Held {
    tag: HeaderValue,
    version: i64,
}

/// What it knows of an edition.
#[derive(Clone, Default)]
struct Known {
    /// The newest version that any part of it was read at.
    newest: i64,
    status: String,
    status_changed_at: DateTime<Utc>,
}

pub(super) struct Client {
    http: reqwest::Client,
    base: String,
    /// The edition that it begins with.
    first: usize,
    held: HashMap<(usize, Part), Held>,
    known: Vec<Known>,
    tally: Tally,
}

impl Client {
    pub(super) fn new(base: &str, http: reqwest::Client, first: usize, editions: usize) -> Self {
        Self {
            http,
            base: base.to_owned(),
            first,
            held: HashMap::new(),
            known: vec![Known::default(); editions],
            tally: Tally::default(),
        }
    }

    /// Goes round and round until it has all that the editions come to.
    pub(super) async fn poll(mut self, pace: Option<Duration>, end: End) -> (Self, Tally) {
        let mut due = pace.map(tokio::time::interval);
        if let Some(due) = &mut due {
            due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let editions = self.known.len();
        loop {
            let expected = end.borrow().clone();
            for number in (self.first..editions).chain(0..self.first) {
                for part in PARTS {
                    if let Some(due) = &mut due {
                        due.tick().await;
                    }
                    self.read(number, part).await;
                }
            }
            if expected.is_some_and(|expected| self.has(&expected)) {
                let tally = std::mem::take(&mut self.tally);
                return (self, tally);
            }
        }
    }

    fn has(&self, expected: &Arc<[State]>) -> bool {
        let of = |known: &Known, state: &State| {
            (known.newest, &*known.status) == (state.version, state.status)
        };
        let all = self.known.iter().zip(expected.iter());
        all.clone().all(|(known, state)| of(known, state)) && self.held_is_newest()
    }

    fn held_is_newest(&self) -> bool {
        self.held
            .iter()
            .all(|((number, _), held)| held.version == self.known[*number].newest)
    }

    async fn read(&mut self, number: usize, part: Part) {
        let mut request = self.http.get(self.base.clone() + &part.path(number));
        if let Some(held) = self.held.get(&(number, part)) {
            request = request.header("if-none-match", held.tag.clone());
        }
        let begun = SystemClock.monotonic();
        let answer = request.send().await.expect("the API answers");
        let (status, tag) = (answer.status(), answer.headers().get("etag").cloned());
        let body = answer.bytes().await.expect("an answer is whole");
        let took = SystemClock.monotonic().saturating_sub(begun);
        let tag = tag.unwrap_or_else(|| panic!("{number} {part:?}: {status} without a tag"));
        if status == StatusCode::NOT_MODIFIED {
            self.tally.spared.push(took);
            self.check_same(number, part, &tag);
        } else {
            assert_eq!(status, StatusCode::OK, "{number} {part:?}: {body:?}");
            self.tally.sent.push(took);
            let body = serde_json::from_slice(&body).expect("an answer is JSON");
            self.take(number, part, tag, &body);
        }
    }

    /// It is as it was: nobody has been told of a newer version before.
    fn check_same(&self, number: usize, part: Part, tag: &HeaderValue) {
        let held = &self.held[&(number, part)];
        assert_eq!(*tag, held.tag, "{number} {part:?}");
        let newest = self.known[number].newest;
        assert_eq!(held.version, newest, "{number} {part:?} is older: {tag:?}");
    }

    /// It is new, of one state, and not older than what was read before.
    fn take(&mut self, number: usize, part: Part, tag: HeaderValue, body: &Value) {
        let version = part.version(body);
        let known = &mut self.known[number];
        assert!(
            version >= known.newest,
            "{number} {part:?} goes back: {body}"
        );
        known.newest = version;
        if part == Part::Edition {
            let status_changed_at = body["status_changed_at"].as_str();
            let status_changed_at = status_changed_at.and_then(|time| time.parse().ok());
            let status_changed_at = status_changed_at.expect("a status has a time");
            assert!(status_changed_at >= known.status_changed_at, "{body}");
            known.status_changed_at = status_changed_at;
            let status = body["status"].as_str().expect("a status");
            status.clone_into(&mut known.status);
        }
        let held = Held { tag, version };
        if let Some(before) = self.held.insert((number, part), held) {
            let now = &self.held[&(number, part)].tag;
            assert_ne!(before.tag, *now, "{number} {part:?} was known: {body}");
        }
    }
}

impl Part {
    fn path(self, number: usize) -> String {
        let of = match self {
            Self::Edition => "",
            Self::Values => "/sections/summary",
            Self::Rows => "/sections/lines/rows",
        };
        format!("/v1/editions/ed_{number}{of}")
    }

    /// The one version that all of an answer says.
    fn version(self, body: &Value) -> i64 {
        let version = match self {
            Self::Edition => &body["version"],
            Self::Values | Self::Rows => &body["edition_version"],
        };
        let name = Value::from(format!("version {version}"));
        let said = |values: &Value| [&values["first"], &values["last"]] == [version; 2];
        let whole = match self {
            Self::Edition => [&body["name"], &body["period"]] == [&name; 2],
            Self::Values => said(&body["values"]),
            Self::Rows => body["data"].as_array().is_some_and(|rows| {
                let count = version.as_i64().map(rows_at);
                Some(rows.len()) == count && rows.iter().all(|row| said(&row["values"]))
            }),
        };
        assert!(whole, "torn: {body}");
        version.as_i64().expect("a version is a number")
    }
}
