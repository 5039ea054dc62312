//! What a value must be for each type of field.

use std::borrow::Cow;
use std::cmp::Ordering;

use chrono::{DateTime, NaiveDate};
use regex::Regex;
use serde_json::Number;
use serde_json::value::RawValue;

use super::super::blueprint::{Bounds, Field, FieldType};
use super::super::ids::UserId;
use super::text_of;

type Checked = Result<(), Cow<'static, str>>;

/// Checks a value that is not `null`.
pub(super) fn check(field: &Field, pattern: Option<&Regex>, json: &str) -> Checked {
    match &field.field_type {
        FieldType::Text | FieldType::LongText => {
            let text = text_of(json).ok_or("must be a text")?;
            count(&field.bounds, " characters", || text.chars().count())?;
            match pattern {
                Some(pattern) if !pattern.is_match(&text) => Err(format!(
                    "must match the pattern {}",
                    field.pattern.as_deref().unwrap_or_default()
                )
                .into()),
                _ => Ok(()),
            }
        }
        FieldType::Number => {
            if !is_number(json) {
                return Err("must be a number".into());
            }
            bounded(&field.bounds, "", |bound| compare(json, bound))
        }
        FieldType::Integer => {
            if json.parse::<i64>().is_err() {
                return Err("must be a whole number of at most 64 bits".into());
            }
            bounded(&field.bounds, "", |bound| compare(json, bound))
        }
        FieldType::Date => holds(json, is_date, "must be a date such as 2026-05-01"),
        FieldType::Datetime => holds(
            json,
            |text| DateTime::parse_from_rfc3339(text).is_ok(),
            "must be an instant such as 2026-05-01T09:00:00Z",
        ),
        FieldType::Boolean => match json {
            "true" | "false" => Ok(()),
            _ => Err("must be true or false".into()),
        },
        FieldType::Select(options) => {
            let text = text_of(json).ok_or("must be a text")?;
            one_of(options, &text)
        }
        FieldType::MultiSelect(options) => several_of(options, &field.bounds, json),
        FieldType::Rag => holds(
            json,
            |text| matches!(text, "red" | "amber" | "green"),
            "must be red, amber or green",
        ),
        FieldType::User => holds(
            json,
            |text| UserId::new(text).is_ok(),
            "must be the id of a member",
        ),
        FieldType::File | FieldType::Calculated => Err("is read-only: leave it out".into()),
    }
}

fn holds(json: &str, rule: impl Fn(&str) -> bool, told: &'static str) -> Checked {
    match text_of(json) {
        Some(text) if rule(&text) => Ok(()),
        _ => Err(told.into()),
    }
}

/// A `full-date` of RFC 3339: the reader of dates would also take fewer digits.
fn is_date(text: &str) -> bool {
    text.len() == 10
        && text.as_bytes()[0].is_ascii_digit()
        && NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()
}

/// Whether JSON is a number that can be reckoned with.
fn is_number(json: &str) -> bool {
    json.starts_with(|first: char| first == '-' || first.is_ascii_digit())
        && json.parse::<f64>().is_ok_and(f64::is_finite)
}

fn one_of(options: &[String], text: &str) -> Checked {
    if options.iter().any(|option| option == text) {
        return Ok(());
    }
    let few = options.len() <= 10 && options.iter().map(String::len).sum::<usize>() <= 200;
    Err(if few {
        format!("must be one of: {}", options.join(", ")).into()
    } else {
        "must be one of the field's options".into()
    })
}

fn several_of(options: &[String], bounds: &Bounds, json: &str) -> Checked {
    let list: Vec<&RawValue> =
        serde_json::from_str(json).map_err(|_| "must be a list of options")?;
    if list.len() > options.len() {
        return Err("must be options of the field, each once".into());
    }
    let mut chosen: Vec<Cow<'_, str>> = Vec::with_capacity(list.len());
    for value in &list {
        let text = text_of(value.get()).ok_or("must be a list of options")?;
        one_of(options, &text)?;
        if chosen.contains(&text) {
            return Err("must be options of the field, each once".into());
        }
        chosen.push(text);
    }
    count(bounds, " options", || list.len())
}

/// Holds a count against the bounds; it is taken only where there are any.
fn count(bounds: &Bounds, what: &str, count: impl Fn() -> usize) -> Checked {
    bounded(bounds, what, |bound| compare(&count().to_string(), bound))
}

fn bounded(bounds: &Bounds, what: &str, compare: impl Fn(&Number) -> Ordering) -> Checked {
    match bounds {
        Bounds { min: Some(min), .. } if compare(min) == Ordering::Less => {
            Err(format!("must be at least {min}{what}").into())
        }
        Bounds { max: Some(max), .. } if compare(max) == Ordering::Greater => {
            Err(format!("must be at most {max}{what}").into())
        }
        _ => Ok(()),
    }
}

/// Compares two numbers: exactly where both are whole.
fn compare(json: &str, bound: &Number) -> Ordering {
    let whole = bound.as_i128().zip(json.parse::<i128>().ok());
    if let Some((bound, number)) = whole {
        return number.cmp(&bound);
    }
    let number = json.parse().unwrap_or(f64::NAN);
    let bound = bound.as_f64().unwrap_or(f64::NAN);
    number.partial_cmp(&bound).unwrap_or(Ordering::Equal)
}
