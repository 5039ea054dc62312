//! Which keys there are, and what kind of value each takes: read off the defaults, so that a new
//! field of a section needs no second list.

use std::collections::BTreeMap;

use config::{Value, ValueKind};

use super::Config;

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Number,
    /// A number with a fraction.
    Fraction,
    /// Text: names, addresses, durations, paths.
    Text,
    /// Text, or nothing.
    OptionalText,
    /// A list of texts.
    List,
}

impl Kind {
    /// What a wrong value is told.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Flag => "must be `true` or `false`",
            Self::Number => "must be a whole number",
            Self::Fraction => "must be a number",
            Self::Text | Self::OptionalText => "must be text",
            Self::List => "must be a list of texts",
        }
    }

    /// Reads a value out of the text of an environment variable or a flag: lists are separated by
    /// commas, and nothing at all unsets what is optional.
    pub fn read(self, text: &str, origin: &String) -> Option<Value> {
        let kind = match self {
            Self::Flag => ValueKind::Boolean(text.parse().ok()?),
            Self::Number => ValueKind::I64(text.parse().ok()?),
            Self::Fraction => ValueKind::Float(text.parse().ok()?),
            Self::OptionalText if text.is_empty() => ValueKind::Nil,
            Self::Text | Self::OptionalText => ValueKind::String(text.to_owned()),
            Self::List => ValueKind::Array(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| Value::new(Some(origin), item))
                    .collect(),
            ),
        };
        Some(Value::new(Some(origin), kind))
    }

    /// Takes a value of a TOML file, if it is of this kind. Nothing is converted: a number in
    /// quotes is a mistake that is better told than guessed at.
    pub fn take(self, value: toml::Value, origin: &String) -> Option<Value> {
        let kind = match (self, value) {
            (Self::Flag, toml::Value::Boolean(flag)) => ValueKind::Boolean(flag),
            (Self::Number | Self::Fraction, toml::Value::Integer(number)) => ValueKind::I64(number),
            (Self::Fraction, toml::Value::Float(number)) => ValueKind::Float(number),
            (Self::Text | Self::OptionalText, toml::Value::String(text)) => ValueKind::String(text),
            (Self::List, toml::Value::Array(items)) => ValueKind::Array(
                items
                    .into_iter()
                    .map(|item| Self::Text.take(item, origin))
                    .collect::<Option<_>>()?,
            ),
            _ => return None,
        };
        Some(Value::new(Some(origin), kind))
    }
}

/// All keys, in full (`dispatch.lease`), each with its kind.
#[derive(Clone, Debug)]
pub struct Shape(BTreeMap<String, Kind>);

impl Shape {
    /// The shape of [`Config`].
    pub fn new() -> Self {
        let mut keys = BTreeMap::new();
        // `Config` is made of structs, texts and numbers: it always has a JSON form.
        let defaults = serde_json::to_value(Config::default()).unwrap_or_default();
        collect(&defaults, "", &mut keys);
        Self(keys)
    }

    /// The kind of a key; `None` if there is no such key.
    pub fn kind(&self, key: &str) -> Option<Kind> {
        self.0.get(key).copied()
    }

    /// Whether the key is that of a section.
    pub fn is_section(&self, key: &str) -> bool {
        self.0
            .keys()
            .any(|known| known.strip_prefix(key).is_some_and(|r| r.starts_with('.')))
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// What an unknown key is told: what there is where it was looked for.
    pub fn unknown(&self, key: &str) -> String {
        let section = key
            .rsplit_once('.')
            .map(|(section, _)| section)
            .filter(|section| self.is_section(section));
        let mut known: Vec<&str> = match section {
            Some(section) => self
                .keys()
                .filter_map(|known| known.strip_prefix(section)?.strip_prefix('.'))
                .collect(),
            None => self
                .keys()
                .filter_map(|known| known.split('.').next())
                .collect(),
        };
        known.dedup();
        let place = section.map_or_else(|| "at the top".to_owned(), |name| format!("in `{name}`"));
        format!("no such key; {place} there are {}", known.join(", "))
    }
}

impl Default for Shape {
    fn default() -> Self {
        Self::new()
    }
}

fn collect(value: &serde_json::Value, path: &str, keys: &mut BTreeMap<String, Kind>) {
    use serde_json::Value as Json;

    let kind = match value {
        Json::Object(members) => {
            for (name, member) in members {
                let path = match path {
                    "" => name.clone(),
                    _ => format!("{path}.{name}"),
                };
                collect(member, &path, keys);
            }
            return;
        }
        Json::Null => Kind::OptionalText,
        Json::Bool(_) => Kind::Flag,
        Json::Number(number) if number.is_f64() => Kind::Fraction,
        Json::Number(_) => Kind::Number,
        Json::String(_) => Kind::Text,
        Json::Array(_) => Kind::List,
    };
    keys.insert(path.to_owned(), kind);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_kinds_are_those_of_the_sections() {
        let shape = Shape::new();
        for (key, kind) in [
            ("master_key", Kind::OptionalText),
            ("database.url", Kind::Text),
            ("amqp.url", Kind::OptionalText),
            ("amqp.prefetch", Kind::Number),
            ("egress.allow", Kind::List),
            ("egress.allow_http", Kind::Flag),
            ("dispatch.lease", Kind::Text),
            ("retry.schedule", Kind::List),
            ("telemetry.sample_ratio", Kind::Fraction),
        ] {
            assert_eq!(shape.kind(key), Some(kind), "{key}");
        }
        assert_eq!(shape.kind("dispatch"), None);
        assert!(shape.is_section("dispatch") && !shape.is_section("dispatch.lease"));
    }

    #[test]
    fn an_unknown_key_is_told_what_there_is() {
        let shape = Shape::new();
        assert_eq!(
            shape.unknown("ops.lissen"),
            "no such key; in `ops` there are listen"
        );
        assert!(shape.unknown("dispach.lease").contains("at the top"));
        assert!(shape.unknown("dispach.lease").contains("dispatch, egress"));
    }
}
