//! What the text of values must keep beyond being JSON.

use std::borrow::Cow;
use std::collections::HashSet;

use serde_json::value::RawValue;

/// The most names that one object of values may have.
const MAX_NAMES: usize = 1_000;

/// The longest name, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// How deep lists and objects may stand in one another within a value.
const MAX_DEPTH: usize = 32;

/// Few enough names that comparing each with each beats hashing them.
const FEW: usize = 16;

/// Checks the text of an object, of which these are the members.
pub(super) fn check(text: &str, entries: &[(Cow<'_, str>, &RawValue)]) -> Result<(), String> {
    if entries.len() > MAX_NAMES {
        return Err(format!("must be at most {MAX_NAMES} values"));
    }
    if entries.iter().any(|(name, _)| name.len() > MAX_NAME_BYTES) {
        return Err(format!("a name must be at most {MAX_NAME_BYTES} bytes"));
    }
    if let Some(name) = twice(entries) {
        return Err(format!("`{name}` stands there twice"));
    }
    for (name, value) in entries {
        if value.get().starts_with(['[', '{']) && depth(value.get()) > MAX_DEPTH {
            return Err(format!("`{name}` is deeper than {MAX_DEPTH} levels"));
        }
    }
    check_escapes(text).map_err(str::to_owned)
}

fn twice<'a>(entries: &'a [(Cow<'_, str>, &RawValue)]) -> Option<&'a str> {
    let names = || entries.iter().map(|(name, _)| &**name);
    if entries.len() <= FEW {
        return names()
            .enumerate()
            .find_map(|(at, name)| names().take(at).any(|other| other == name).then_some(name));
    }
    let mut seen = HashSet::with_capacity(entries.len());
    names().find(|name| !seen.insert(*name))
}

/// How deep lists and objects stand in one another.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_text = !in_text,
            b'[' | b'{' if !in_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// Escapes may spell what no text may hold: NUL, which Postgres refuses, and half a surrogate pair,
/// which is no character. `json` is JSON, so that a backslash only stands where an escape begins.
fn check_escapes(json: &str) -> Result<(), &'static str> {
    let mut rest = json;
    while let Some(at) = rest.find('\\') {
        rest = &rest[at..];
        rest = match code_unit(rest) {
            None => rest.get(2..).unwrap_or_default(),
            Some(0) => return Err("must not hold NUL"),
            Some(0xd800..=0xdbff) => match rest.get(6..).and_then(code_unit) {
                Some(0xdc00..=0xdfff) => rest.get(12..).unwrap_or_default(),
                _ => return Err("must not hold half a surrogate pair"),
            },
            Some(0xdc00..=0xdfff) => return Err("must not hold half a surrogate pair"),
            Some(_) => rest.get(6..).unwrap_or_default(),
        };
    }
    Ok(())
}

/// What an escape of the form `\u0000` at the beginning stands for.
fn code_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}
