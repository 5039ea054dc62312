//! What the fields of a section, or of one row, hold: a JSON object, kept as the text that arrived,
//! so that a figure is given back with the digits that it came with.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

/// Values by the names of their fields. Always the text of one JSON object, no name in it twice.
#[derive(Clone, PartialEq, Eq)]
pub struct Values(Arc<str>);

impl Values {
    /// Takes the text of a JSON object; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let entries: Entries<'_> = serde_json::from_str(text)?;
        let mut names = HashSet::with_capacity(entries.0.len());
        for (name, _) in &entries.0 {
            if !names.insert(name) {
                return Err(de::Error::custom(format!("`{name}` stands there twice")));
            }
        }
        Ok(Self(Arc::from(text.trim())))
    }

    /// Takes a text that [`Self::parse`] took before and that was kept since.
    pub fn trusted(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The object's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Names and values, in the order in which they were written.
    pub fn entries(&self) -> Result<Vec<(Cow<'_, str>, &RawValue)>, serde_json::Error> {
        serde_json::from_str::<Entries<'_>>(&self.0).map(|entries| entries.0)
    }
}

impl Default for Values {
    /// No value.
    fn default() -> Self {
        Self(Arc::from("{}"))
    }
}

impl FromIterator<(String, Box<RawValue>)> for Values {
    /// Values whose names are different from one another.
    fn from_iter<I: IntoIterator<Item = (String, Box<RawValue>)>>(entries: I) -> Self {
        let mut text = String::from("{");
        for (name, value) in entries {
            if text.len() > 1 {
                text.push(',');
            }
            text.push_str(&serde_json::Value::from(name).to_string());
            text.push(':');
            text.push_str(value.get());
        }
        text.push('}');
        Self(Arc::from(text))
    }
}

impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: &RawValue = Deserialize::deserialize(deserializer)?;
        Self::parse(text.get()).map_err(de::Error::custom)
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(serde::ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// The members of an object, as they stand there.
struct Entries<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::new();
        while let Some((Name(name), value)) = map.next_entry()? {
            entries.push((name, value));
        }
        Ok(Entries(entries))
    }
}

/// A name that borrows where nothing in it is escaped.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_stays_as_it_came() {
        let values = Values::parse(r#" {"b": 1.500, "a": 12345678901234567890.1} "#).unwrap();
        let entries: Vec<_> = values.entries().unwrap();
        assert_eq!(entries[0].0, "b");
        assert_eq!(entries[0].1.get(), "1.500");
        assert_eq!(entries[1].1.get(), "12345678901234567890.1");
        assert_eq!(
            serde_json::to_string(&values).unwrap(),
            r#"{"b": 1.500, "a": 12345678901234567890.1}"#
        );
    }

    #[test]
    fn what_is_no_object_or_says_a_name_twice_is_refused() {
        for text in [
            "",
            "[]",
            "null",
            "{",
            r#"{"a":1,"a":2}"#,
            r#"{"a":1,"\u0061":2}"#,
        ] {
            assert!(Values::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn values_are_made_of_names_and_values() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        let made: Values = [
            ("a \"b\"".to_owned(), raw("1.0")),
            ("c".to_owned(), raw("null")),
        ]
        .into_iter()
        .collect();
        assert_eq!(made.as_str(), r#"{"a \"b\"":1.0,"c":null}"#);
        assert_eq!(Values::parse(made.as_str()).unwrap(), made);
        assert_eq!(Values::default().entries().unwrap().len(), 0);
    }
}
