//! Whether an edition may be handed in: each field that is required is filled.

use super::super::blueprint::{Blueprint, FieldType, Section, SectionKind};
use super::super::edition::SectionContent;
use super::fault::{Place, ValueFaults, pointer_token};
use super::{Values, text_of};

/// The required fields of a section, made ready to look at many rows.
#[derive(Debug)]
pub struct RequiredFields<'a>(Vec<&'a str>);

impl<'a> RequiredFields<'a> {
    /// Of this section. What the core computes is its own affair: a client could never fill it.
    pub fn of(section: &'a Section) -> Self {
        let required = section
            .fields
            .iter()
            .filter(|field| field.required && field.field_type != FieldType::Calculated);
        Self(required.map(|field| &*field.name).collect())
    }

    /// Whether there are none: then nothing can be missing.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is missing; `place` says where the value of a field should stand.
    pub fn check(&self, values: &Values, faults: &mut ValueFaults, place: impl Fn(&str) -> Place) {
        if self.is_empty() {
            return;
        }
        // Text that is no object is in nobody's hand: then nothing is filled.
        let entries = values.entries().unwrap_or_default();
        for name in &self.0 {
            let filled = entries
                .iter()
                .any(|(known, value)| known == name && is_filled(value.get()));
            if !filled {
                faults.add(|| place(name), "is required");
            }
        }
    }
}

/// Whether a value says anything.
fn is_filled(json: &str) -> bool {
    match json.as_bytes().first() {
        Some(b'n') => false,
        Some(b'"') => text_of(json).is_some_and(|text| !text.trim().is_empty()),
        Some(b'[') => !json[1..].trim_start().starts_with(']'),
        _ => true,
    }
}

/// What is missing before an edition with this content can be handed in. The blueprint says how a
/// section is filled: what is held otherwise, from before it said so, fills nothing. Places are pointers into
/// the content: `/sections/costs/rows/3/values/amount`.
pub fn check_complete(blueprint: &Blueprint, content: &[(String, SectionContent)]) -> ValueFaults {
    let mut faults = ValueFaults::default();
    for section in &blueprint.sections {
        let required = RequiredFields::of(section);
        let name = pointer_token(&section.name);
        let filled = content.iter().find(|(known, _)| *known == section.name);
        match (section.kind, filled.map(|(_, content)| content)) {
            (SectionKind::Repeating, Some(SectionContent::Repeating(rows))) => {
                for (at, row) in rows.iter().enumerate() {
                    required.check(&row.values, &mut faults, |field| {
                        let field = pointer_token(field);
                        Place::Pointer(format!("/sections/{name}/rows/{at}/values/{field}"))
                    });
                }
            }
            // A section without rows lacks nothing; one that is filled once lacks all.
            (SectionKind::Repeating, _) => {}
            (SectionKind::Single, Some(SectionContent::Single(values))) => {
                check_single(&required, values, &name, &mut faults);
            }
            (SectionKind::Single, _) => {
                check_single(&required, &Values::default(), &name, &mut faults);
            }
        }
    }
    faults
}

fn check_single(
    required: &RequiredFields<'_>,
    values: &Values,
    section: &str,
    faults: &mut ValueFaults,
) {
    required.check(values, faults, |field| {
        let field = pointer_token(field);
        Place::Pointer(format!("/sections/{section}/values/{field}"))
    });
}

#[cfg(test)]
mod tests {
    use super::super::super::blueprint::Field;
    use super::super::super::edition::Row;
    use super::super::super::ids::{BlueprintId, ProjectId, RowId};
    use super::super::check::tests::{field, section};
    use super::*;

    fn blueprint() -> Blueprint {
        let required = |name, field_type| Field {
            required: true,
            ..field(name, field_type)
        };
        let costs = section(vec![
            required("item", FieldType::Text),
            required("total", FieldType::Calculated),
            field("note", FieldType::Text),
        ]);
        let summary = Section {
            name: "sum/mary".into(),
            kind: SectionKind::Single,
            ..section(vec![
                required("ok", FieldType::Boolean),
                required("tags", FieldType::MultiSelect(vec!["a".into()])),
            ])
        };
        Blueprint {
            id: BlueprintId::new("bp_1").unwrap(),
            project: ProjectId::new("pr_1").unwrap(),
            name: "Report".into(),
            sections: vec![costs, summary],
            outputs: Vec::new(),
        }
    }

    fn places(content: &[(String, SectionContent)]) -> Vec<String> {
        let faults = check_complete(&blueprint(), content);
        let told = faults.told().iter();
        told.map(|fault| fault.place.to_string()).collect()
    }

    fn rows(values: &[&str]) -> (String, SectionContent) {
        let row = |(at, text): (usize, &&str)| Row {
            id: RowId::new(&format!("r{at}")).unwrap(),
            values: Values::parse(text).unwrap(),
        };
        let rows = values.iter().enumerate().map(row).collect();
        ("costs".into(), SectionContent::Repeating(rows))
    }

    fn summary(values: &str) -> (String, SectionContent) {
        let values = Values::parse(values).unwrap();
        ("sum/mary".into(), SectionContent::Single(values))
    }

    #[test]
    fn what_is_required_must_say_something() {
        let filled = summary(r#"{"ok":false,"tags":["a"]}"#);
        assert_eq!(places(std::slice::from_ref(&filled)), [""; 0]);
        assert_eq!(
            places(&[
                rows(&[
                    r#"{"item":"x"}"#,
                    r#"{"item":" "}"#,
                    r#"{"item":null}"#,
                    "{}"
                ]),
                filled
            ]),
            [1, 2, 3].map(|at| format!("/sections/costs/rows/{at}/values/item"))
        );
        assert_eq!(
            places(&[summary(r#"{"tags":[ ]}"#)]),
            [
                "/sections/sum~1mary/values/ok",
                "/sections/sum~1mary/values/tags"
            ]
        );
        assert_eq!(places(&[]).len(), 2, "a section that was never filled");
    }

    #[test]
    fn what_is_held_in_the_other_kind_fills_nothing() {
        let (_, no_rows) = rows(&[]);
        let (_, some_rows) = rows(&[r#"{"ok":true,"tags":["a"]}"#]);
        for held in [no_rows, some_rows] {
            assert_eq!(places(&[("sum/mary".into(), held)]).len(), 2);
        }
        let (_, values) = summary(r#"{"note":"x"}"#);
        let filled = summary(r#"{"ok":false,"tags":["a"]}"#);
        assert_eq!(places(&[("costs".into(), values), filled]), [""; 0]);
    }
}
