//! Dead letters as they are printed. What they hold came from outside and may be anything.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use super::{or_dash, plain};
use crate::broker::DeadLetter;

/// How much of a body a person is shown, in bytes; JSON has all of it.
const SHOWN: usize = 64 * 1024;

/// One of a list.
#[derive(Serialize)]
pub(super) struct Letter {
    number: usize,
    pub(super) id: String,
    dead_lettered_at: Option<String>,
    queue: Option<String>,
    routing_key: String,
    bytes: usize,
    reason: Option<String>,
}

impl Letter {
    pub(super) fn of(letter: &DeadLetter) -> Self {
        Self {
            number: letter.position,
            id: letter.id.clone(),
            dead_lettered_at: letter.dead_lettered_at(),
            queue: letter.queue(),
            routing_key: letter.routing_key().to_owned(),
            bytes: letter.body().len(),
            reason: letter.reason(),
        }
    }

    /// What it was, in a line.
    pub(super) fn line(&self) -> String {
        format!(
            "{}  {}  {}  {}",
            self.id,
            or_dash(self.dead_lettered_at.as_ref()),
            plain(&or_dash(self.queue.as_ref())),
            plain(&self.routing_key),
        )
    }

    pub(super) fn row(&self) -> Vec<String> {
        vec![
            self.number.to_string(),
            self.id.clone(),
            or_dash(self.dead_lettered_at.as_ref()),
            or_dash(self.queue.as_ref()),
            self.routing_key.clone(),
            self.bytes.to_string(),
            or_dash(self.reason.as_ref()),
        ]
    }
}

/// One with all that it holds.
#[derive(Serialize)]
pub(super) struct LetterInFull {
    #[serde(flatten)]
    letter: Letter,
    content_type: Option<String>,
    headers: BTreeMap<String, String>,
    #[serde(flatten)]
    body: Body,
}

/// As text where it is some.
#[derive(Serialize)]
enum Body {
    #[serde(rename = "body")]
    Text(String),
    #[serde(rename = "body_base64")]
    Bytes(String),
}

impl LetterInFull {
    pub(super) fn of(letter: &DeadLetter) -> Self {
        let body = match std::str::from_utf8(letter.body()) {
            Ok(text) => Body::Text(text.to_owned()),
            Err(_) => Body::Bytes(STANDARD.encode(letter.body())),
        };
        Self {
            letter: Letter::of(letter),
            content_type: letter.content_type(),
            headers: letter.headers().into_iter().collect(),
            body,
        }
    }

    /// Names and values: what the list has, and the headers.
    pub(super) fn fields(&self) -> Vec<(&str, String)> {
        let letter = &self.letter;
        let mut pairs = vec![
            ("number", letter.number.to_string()),
            ("id", letter.id.clone()),
            ("since", or_dash(letter.dead_lettered_at.as_ref())),
            ("reason", or_dash(letter.reason.as_ref())),
            ("queue", or_dash(letter.queue.as_ref())),
            ("routing key", letter.routing_key.clone()),
            ("content type", or_dash(self.content_type.as_ref())),
            ("bytes", letter.bytes.to_string()),
        ];
        // A name comes from outside like a value; one that is not plain is left to JSON.
        let headers = self
            .headers
            .iter()
            .filter(|(name, _)| plain(name) == **name);
        pairs.extend(headers.map(|(name, value)| (name.as_str(), value.clone())));
        pairs
    }

    /// The body for a person: its lines, each without what a terminal would obey.
    pub(super) fn lines(&self) -> String {
        let (text, what) = match &self.body {
            Body::Text(text) => (text, "body"),
            Body::Bytes(text) => (text, "body, which is no text, in base64"),
        };
        let mut end = text.len().min(SHOWN);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let shown: Vec<String> = text[..end].lines().map(plain).collect();
        let lines = format!("{what}:\n{}", shown.join("\n"));
        match text.len() - end {
            0 => lines,
            more => format!("{lines}\n… {more} bytes more; --json shows all"),
        }
    }
}
