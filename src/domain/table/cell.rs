//! The text of a cell as the JSON value that its field asks for.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::super::blueprint::FieldType;
use super::super::values::quoted;
use super::guard::unguarded;

/// What stands between the options of one cell.
pub(super) const BETWEEN_OPTIONS: char = ';';

/// Turns a cell that is not empty into JSON; whether the value is right is asked later. `None`: the
/// cell is empty but for blanks, where those mean nothing.
pub(super) fn to_json<'a>(
    field_type: &FieldType,
    cell: &'a str,
) -> Result<Option<Cow<'a, str>>, &'static str> {
    if matches!(field_type, FieldType::Text | FieldType::LongText) {
        return Ok(Some(quoted(unguarded(cell)).into()));
    }
    let trimmed = cell.trim();
    if trimmed.is_empty() {
        return Ok(None);
    }
    let text = unguarded(trimmed);
    Ok(Some(match field_type {
        FieldType::Number | FieldType::Integer => number(trimmed)?.into(),
        FieldType::Boolean => boolean(trimmed)?.into(),
        FieldType::Rag => quoted(&text.to_lowercase()).into(),
        FieldType::Select(options) => quoted(option(options, cell, text)).into(),
        FieldType::MultiSelect(options) => several(options, unguarded(cell)).into(),
        _ => quoted(text).into(),
    }))
}

/// A number stays as it was typed.
fn number(text: &str) -> Result<&str, &'static str> {
    let first = text.starts_with(|char: char| char == '-' || char.is_ascii_digit());
    if first && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        Ok(text)
    } else {
        Err("must be a number such as -1234.5, without signs between its digits")
    }
}

fn boolean(text: &str) -> Result<&'static str, &'static str> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "1" => Ok("true"),
        "false" | "no" | "0" => Ok("false"),
        _ => Err("must be true or false, yes or no, 1 or 0"),
    }
}

/// The option that the cell names: with its blanks where an option has them too.
fn option<'a>(options: &[String], cell: &'a str, trimmed: &'a str) -> &'a str {
    let exact = unguarded(cell);
    if options.iter().any(|option| option == exact) {
        exact
    } else {
        trimmed
    }
}

fn several(options: &[String], cell: &str) -> String {
    let mut json = String::from("[");
    let chosen = cell
        .split(BETWEEN_OPTIONS)
        .filter(|part| !part.trim().is_empty());
    for part in chosen {
        let exact = options.iter().any(|option| option == part);
        json.push_str(if json.len() > 1 { "," } else { "" });
        json.push_str(&quoted(if exact { part } else { part.trim() }));
    }
    json.push(']');
    json
}
