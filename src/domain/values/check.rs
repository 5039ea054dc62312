//! Values held against the fields of a section.

use std::borrow::Cow;
use std::collections::HashMap;

use regex::{Regex, RegexBuilder};

use super::super::blueprint::{Field, Section};
use super::fault::{Place, ValueFaults};
use super::{Values, kind};

/// The most bytes of a compiled pattern, and of what it remembers while it matches. Patterns are
/// written by people of a workspace: none may eat the memory of all the others.
const MAX_PATTERN_BYTES: usize = 256 * 1024;

/// The fields of a section, made ready to check many rows: patterns are compiled once.
#[derive(Debug)]
pub struct Checker<'a> {
    section: &'a Section,
    by_name: HashMap<&'a str, usize>,
    patterns: Vec<Option<Regex>>,
}

impl<'a> Checker<'a> {
    /// For this section.
    pub fn new(section: &'a Section) -> Self {
        let fields = || section.fields.iter();
        Self {
            section,
            by_name: fields()
                .enumerate()
                .map(|(at, field)| (&*field.name, at))
                .collect(),
            patterns: fields()
                .map(|field| field.pattern.as_deref().and_then(compile))
                .collect(),
        }
    }

    /// The section.
    pub fn section(&self) -> &'a Section {
        self.section
    }

    /// What is wrong with values that a client sends; `place` says where the value of a field
    /// stands. `null` clears a field and is right for each that can be written.
    pub fn check(&self, values: &Values, faults: &mut ValueFaults, place: impl Fn(&str) -> Place) {
        let Ok(entries) = values.entries() else {
            return faults.add(|| place(""), "must be an object of values");
        };
        for (name, value) in entries {
            let checked = match self.by_name.get(&*name) {
                None => Err(Cow::Borrowed("is no field of this section")),
                Some(&at) if self.section.fields[at].is_read_only() => {
                    Err(Cow::Borrowed("is read-only: leave it out"))
                }
                Some(_) if value.get() == "null" => Ok(()),
                Some(&at) => self.value(at, value.get()),
            };
            if let Err(detail) = checked {
                faults.add(|| place(&name), detail);
            }
        }
    }

    /// Checks one value, which is not `null`, for the field at this place of the section.
    pub(in crate::domain) fn value(&self, at: usize, json: &str) -> Result<(), Cow<'static, str>> {
        let field: &Field = &self.section.fields[at];
        kind::check(field, self.patterns[at].as_ref(), json)
    }
}

/// A pattern, as one that must match the whole text. One that this program cannot read, or that is
/// too large, checks nothing here: the core, whose pattern it is, checks what it is told.
fn compile(pattern: &str) -> Option<Regex> {
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(MAX_PATTERN_BYTES)
            .dfa_size_limit(MAX_PATTERN_BYTES)
            .nest_limit(50)
            .build()
            .ok()
    };
    // By itself first: within the group, `a)|(b` would be another pattern.
    build(pattern)?;
    build(&format!(r"\A(?:{pattern})\z"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::super::blueprint::{Bounds, FieldType, SectionKind};
    use super::*;

    pub(in super::super) fn field(name: &str, field_type: FieldType) -> Field {
        Field {
            name: name.into(),
            label: None,
            field_type,
            required: false,
            bounds: Bounds::default(),
            pattern: None,
        }
    }

    pub(in super::super) fn section(fields: Vec<Field>) -> Section {
        Section {
            name: "costs".into(),
            label: None,
            kind: SectionKind::Repeating,
            fields,
        }
    }

    /// What is wrong with one value of one field.
    fn told(field: Field, json: &str) -> Option<String> {
        let section = section(vec![field]);
        let name = super::super::quoted(&section.fields[0].name);
        let values = Values::parse(&format!("{{{name}:{json}}}")).unwrap();
        let mut faults = ValueFaults::default();
        Checker::new(&section).check(&values, &mut faults, |name| Place::Pointer(name.into()));
        faults.told().first().map(|fault| fault.detail.clone())
    }

    fn options() -> Vec<String> {
        vec!["a".into(), "b c".into(), "\"q\"".into()]
    }

    #[test]
    fn each_type_takes_its_values_and_no_others() {
        use FieldType as T;
        let junk = ["1", "1.5", "true", r#""x""#, "[]", "{}", "[1]", r#"["x"]"#];
        let cases: [(T, &[&str]); 11] = [
            (T::Text, &[r#""x""#, r#""""#, r#""\u00e9 \" ""#]),
            (T::LongText, &[r#""x""#, r#""line\nline""#]),
            (
                T::Number,
                &["1", "1.5", "-0.00", "1e300", "12345678901234567890.1"],
            ),
            (T::Integer, &["1", "-9223372036854775808", "0"]),
            (T::Date, &[r#""2026-02-28""#, r#""2024-02-29""#]),
            (
                T::Datetime,
                &[
                    r#""2026-02-28T09:00:00Z""#,
                    r#""2026-02-28T09:00:00.5+02:00""#,
                ],
            ),
            (T::Boolean, &["true", "false"]),
            (T::Select(options()), &[r#""a""#, r#""b c""#, r#""\"q\"""#]),
            (
                T::MultiSelect(options()),
                &["[]", r#"["a"]"#, r#"["b c", "a"]"#],
            ),
            (T::Rag, &[r#""red""#, r#""amber""#, r#""green""#]),
            (T::User, &[r#""x""#, r#""u_1""#]),
        ];
        for (field_type, good) in cases {
            for json in good {
                assert_eq!(told(field("f", field_type.clone()), json), None, "{json}");
            }
            assert_eq!(told(field("f", field_type.clone()), "null"), None);
            for json in junk.iter().filter(|json| !good.contains(json)) {
                assert!(
                    told(field("f", field_type.clone()), json).is_some(),
                    "{field_type:?} {json}"
                );
            }
        }
        for (field_type, bad) in [
            (T::Integer, "9223372036854775808"),
            (T::Integer, "1.0"),
            (T::Number, "1e999"),
            (T::Date, r#""2026-02-29""#),
            (T::Date, r#""2026-2-9""#),
            (T::Date, r#""26-02-2026""#),
            (T::Datetime, r#""2026-02-28T09:00:00""#),
            (T::MultiSelect(options()), r#"["a","a"]"#),
            (T::MultiSelect(options()), r#"["x"]"#),
            (T::Rag, r#""blue""#),
            (T::User, r#""""#),
            (T::File, r#""x""#),
            (T::File, "null"),
            (T::Calculated, "1"),
        ] {
            assert!(
                told(field("f", field_type.clone()), bad).is_some(),
                "{field_type:?} {bad}"
            );
        }
    }

    #[test]
    fn an_unknown_field_is_told() {
        let section = section(vec![]);
        let mut faults = ValueFaults::default();
        let values = Values::parse(r#"{"a/b":1}"#).unwrap();
        Checker::new(&section).check(&values, &mut faults, |name| Place::Pointer(name.into()));
        assert_eq!(faults.told()[0].place, Place::Pointer("a/b".into()));
        assert_eq!(faults.told()[0].detail, "is no field of this section");
    }

    #[test]
    fn bounds_are_of_the_value_the_characters_or_the_count() {
        let bounded = |field_type, json: &str| {
            let bounds = Bounds {
                min: Some(2.into()),
                max: Some(3.into()),
            };
            told(
                Field {
                    bounds,
                    ..field("f", field_type)
                },
                json,
            )
        };
        assert_eq!(bounded(FieldType::Number, "2.0"), None);
        assert_eq!(
            bounded(FieldType::Number, "3.0001").unwrap(),
            "must be at most 3"
        );
        assert_eq!(
            bounded(FieldType::Integer, "1").unwrap(),
            "must be at least 2"
        );
        assert_eq!(bounded(FieldType::Text, r#""éé""#), None);
        assert_eq!(
            bounded(FieldType::Text, r#""éééé""#).unwrap(),
            "must be at most 3 characters"
        );
        assert_eq!(
            bounded(FieldType::MultiSelect(options()), r#"["a"]"#).unwrap(),
            "must be at least 2 options"
        );
    }

    #[test]
    fn whole_numbers_are_compared_exactly() {
        let bounds = Bounds {
            min: None,
            max: Some(9_007_199_254_740_992_i64.into()),
        };
        let field = Field {
            bounds,
            ..field("f", FieldType::Integer)
        };
        assert_eq!(told(field.clone(), "9007199254740992"), None);
        assert!(told(field, "9007199254740993").is_some());
    }

    #[test]
    fn a_pattern_matches_the_whole_text() {
        let with = |pattern: &str, json: &str| {
            let pattern = Some(pattern.to_owned());
            told(
                Field {
                    pattern,
                    ..field("f", FieldType::Text)
                },
                json,
            )
        };
        assert_eq!(with("[A-Z]{2}|x", r#""AB""#), None);
        assert_eq!(with("[A-Z]{2}|x", r#""x""#), None);
        for bad in [r#""ABx""#, r#""xx""#, r#""AB\n""#, r#""""#] {
            assert!(with("[A-Z]{2}|x", bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn a_pattern_that_cannot_be_read_or_is_too_large_checks_nothing() {
        for pattern in [
            "(",
            "a)|(b",
            "(?=a)",
            r"(a)\1",
            "((a{100}){100}){100}",
            &"(".repeat(400),
        ] {
            assert!(compile(pattern).is_none(), "{pattern}");
        }
    }
}
