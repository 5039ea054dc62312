//! What the fields of a section, or of one row, hold: a JSON object, kept as the text that arrived,
//! so that a figure is given back with the digits that it came with.
//!
//! [`Checker`] holds values against a blueprint's section, [`check_complete`] a whole edition before
//! it is handed in; what they find are [`ValueFaults`], each with its [`Place`].

mod check;
mod complete;
mod fault;
mod kind;
mod merge;
mod scan;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

pub use check::Checker;
pub use complete::{RequiredFields, check_complete};
pub use fault::{MAX_FAULTS, Place, ValueFault, ValueFaults, pointer_token};

/// Values by the names of their fields. Always the text of one JSON object of bounded size and depth,
/// no name in it twice, and no text in it that a database or a reader could not take (NUL, half a
/// surrogate pair).
#[derive(Clone, PartialEq, Eq)]
pub struct Values(Arc<str>);

impl Values {
    /// Takes the text of a JSON object; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let entries: Entries<'_> = serde_json::from_str(text)?;
        scan::check(text, &entries.0).map_err(de::Error::custom)?;
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

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        let inner = self
            .0
            .strip_prefix('{')
            .and_then(|rest| rest.strip_suffix('}'));
        inner.is_some_and(|inner| inner.trim().is_empty())
    }

    /// The value of that name, where there is one.
    pub fn get(&self, name: &str) -> Result<Option<&RawValue>, serde_json::Error> {
        let entries = self.entries()?;
        Ok(entries
            .into_iter()
            .find_map(|(known, value)| (known == name).then_some(value)))
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
        let mut writer = ValuesWriter::default();
        for (name, value) in entries {
            writer.push(&quoted(&name), value.get());
        }
        writer.finish()
    }
}

/// Writes the text of an object, member by member.
#[derive(Default)]
pub(super) struct ValuesWriter(String);

impl ValuesWriter {
    /// One more member: its name in quotes, and its value in JSON.
    pub(super) fn push(&mut self, quoted_name: &str, json: &str) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        self.0.push_str(quoted_name);
        self.0.push(':');
        self.0.push_str(json);
    }

    /// The object. The writer is empty again, and keeps its room.
    pub(super) fn finish(&mut self) -> Values {
        if self.0.is_empty() {
            return Values::default();
        }
        self.0.push('}');
        let values = Values(Arc::from(&*self.0));
        self.0.clear();
        values
    }
}

/// A text in the quotes of JSON.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The text that a JSON value is, where it is one.
pub(super) fn text_of(json: &str) -> Option<Cow<'_, str>> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str::<Name<'_>>(json)
            .ok()
            .map(|name| name.0);
    }
    Some(Cow::Borrowed(inner))
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
            r#"{"a":"\u0000"}"#,
            r#"{"a\u0000":1}"#,
            r#"{"a":["\ud800"]}"#,
            r#"{"a":"\ud800\u0041"}"#,
            r#"{"a":"\udc00"}"#,
        ] {
            assert!(Values::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn escapes_that_stand_for_something_are_taken() {
        for text in [
            r#"{"a":"\\u0000 \ud83d\ude00 \n \u00e9"}"#,
            r#"{"\u0061":"\\\\"}"#,
        ] {
            assert_eq!(Values::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn depth_length_and_number_of_names_are_bounded() {
        let nested = |depth| format!(r#"{{"a":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
        assert!(Values::parse(&nested(31)).is_ok());
        assert!(Values::parse(&nested(33)).is_err());
        assert!(Values::parse(&nested(100_000)).is_err());
        let names = |count: usize| -> Values {
            let one = || RawValue::from_string("1".to_owned()).unwrap();
            (0..count).map(|n| (n.to_string(), one())).collect()
        };
        assert!(Values::parse(names(1_000).as_str()).is_ok());
        assert!(Values::parse(names(1_001).as_str()).is_err());
        assert!(Values::parse(&format!(r#"{{"{}":1}}"#, "n".repeat(256))).is_err());
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
