//! What stands in one place of a table: a value, as its field's type says what it is.

use std::borrow::Cow;
use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, Utc};
use serde::de::Error as _;
use serde_json::value::RawValue;

use crate::domain::blueprint::{Field, FieldType, Section};
use crate::domain::values::Values;

/// What stands between the choices of a field that takes several.
const BETWEEN_CHOICES: &str = "; ";

/// What stands in one place.
#[derive(Clone, Debug, PartialEq)]
pub enum Cell<'a> {
    /// Nothing.
    Empty,
    /// Text.
    Text(Cow<'a, str>),
    /// A number, in the digits that it came with.
    Number(&'a str),
    /// `true` or `false`.
    Boolean(bool),
    /// A day, and the text that it came as.
    Date(NaiveDate, Cow<'a, str>),
    /// An instant, and the text that it came as.
    Instant(DateTime<Utc>, Cow<'a, str>),
}

impl<'a> Cell<'a> {
    /// The value of a field. What is not of the field's type keeps the form that it has: the core
    /// may change a blueprint under an edition, and nothing is lost over it.
    fn of(field: &Field, value: &'a RawValue) -> Result<Self, serde_json::Error> {
        let json = value.get();
        Ok(match json.as_bytes().first() {
            None | Some(b'n') => Self::Empty,
            Some(b't') => Self::Boolean(true),
            Some(b'f') => Self::Boolean(false),
            Some(b'"') => Self::of_text(&field.field_type, text(json)?),
            Some(b'[') => Self::Text(Cow::Owned(joined(json)?)),
            Some(b'{') => Self::Text(named(json)),
            Some(_) => Self::Number(json),
        })
    }

    fn of_text(field_type: &FieldType, text: Cow<'a, str>) -> Self {
        match field_type {
            FieldType::Date => match text.parse() {
                Ok(day) => Self::Date(day, text),
                Err(_) => Self::Text(text),
            },
            FieldType::Datetime => match DateTime::parse_from_rfc3339(&text) {
                Ok(at) => Self::Instant(at.to_utc(), text),
                Err(_) => Self::Text(text),
            },
            _ => Self::Text(text),
        }
    }
}

/// The text of a JSON string; borrowed where nothing in it is escaped.
fn text(json: &str) -> Result<Cow<'_, str>, serde_json::Error> {
    if json.contains('\\') {
        return serde_json::from_str(json).map(Cow::Owned);
    }
    let inside = json.get(1..json.len().saturating_sub(1));
    inside
        .map(Cow::Borrowed)
        .ok_or_else(|| serde_json::Error::custom("no string"))
}

/// The items of a list, one after the other.
fn joined(json: &str) -> Result<String, serde_json::Error> {
    let items: Vec<&RawValue> = serde_json::from_str(json)?;
    let texts = items
        .iter()
        .map(|item| match item.get() {
            string if string.starts_with('"') => text(string),
            other => Ok(Cow::Borrowed(other)),
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(texts.join(BETWEEN_CHOICES))
}

/// What a person calls an object (a file, a user): its name, else all of it.
fn named(json: &str) -> Cow<'_, str> {
    #[derive(serde::Deserialize)]
    struct Named {
        name: String,
    }

    match serde_json::from_str::<Named>(json) {
        Ok(named) => Cow::Owned(named.name),
        Err(_) => Cow::Borrowed(json),
    }
}

/// Where the fields of a section stand.
#[derive(Debug)]
pub struct Columns<'a> {
    fields: &'a [Field],
    places: HashMap<&'a str, usize>,
}

impl<'a> Columns<'a> {
    /// A column for each field, in the order of the section.
    pub fn of(section: &'a Section) -> Self {
        let names = section.fields.iter().map(|field| field.name.as_str());
        Self {
            fields: &section.fields,
            places: names.zip(0..).collect(),
        }
    }

    /// A cell for each column. Values of fields that the blueprint no longer has are left out.
    pub fn cells<'v>(&self, values: &'v Values) -> Result<Vec<Cell<'v>>, serde_json::Error> {
        let mut cells = vec![Cell::Empty; self.fields.len()];
        for (name, value) in values.entries()? {
            if let Some(&place) = self.places.get(&*name) {
                cells[place] = Cell::of(&self.fields[place], value)?;
            }
        }
        Ok(cells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::blueprint::{Bounds, SectionKind};

    fn cell_of(field_type: FieldType, json: &str) -> String {
        let section = Section {
            name: "s".to_owned(),
            label: None,
            kind: SectionKind::Single,
            fields: vec![Field {
                name: "a".to_owned(),
                label: None,
                field_type,
                required: false,
                bounds: Bounds::default(),
                pattern: None,
            }],
        };
        let values = Values::parse(&format!(r#"{{"gone":1,"a": {json} }}"#)).unwrap();
        let columns = Columns::of(&section);
        let cells = columns.cells(&values).unwrap();
        assert_eq!(cells.len(), 1);
        format!("{:?}", cells[0])
    }

    #[test]
    fn a_value_is_what_its_fields_type_and_its_form_say() {
        let several = || FieldType::MultiSelect(Vec::new());
        for (field_type, json, expected) in [
            (FieldType::Text, "null", "Empty"),
            (FieldType::Text, r#""a\"bé""#, r#"Text("a\"bé")"#),
            (FieldType::Text, r#""2026-01-02""#, r#"Text("2026-01-02")"#),
            (FieldType::Number, "-1.500", r#"Number("-1.500")"#),
            (FieldType::Boolean, "false", "Boolean(false)"),
            (
                FieldType::Date,
                r#""2026-01-02""#,
                r#"Date(2026-01-02, "2026-01-02")"#,
            ),
            (FieldType::Date, r#""soon""#, r#"Text("soon")"#),
            (
                FieldType::Datetime,
                r#""2026-01-02T03:04:05+02:00""#,
                r#"Instant(2026-01-02T01:04:05Z, "2026-01-02T03:04:05+02:00")"#,
            ),
            (several(), r#"["a","b\n",3]"#, r#"Text("a; b\n; 3")"#),
            (several(), "[]", r#"Text("")"#),
            (
                FieldType::File,
                r#"{"id":"f","name":"a.pdf"}"#,
                r#"Text("a.pdf")"#,
            ),
            (FieldType::Calculated, r#"{"x":1}"#, r#"Text("{\"x\":1}")"#),
            (FieldType::Calculated, "7", r#"Number("7")"#),
        ] {
            assert_eq!(cell_of(field_type, json), expected, "{json}");
        }
    }
}
