//! What the sections of an edition hold: `{"summary":{"values":{…}},"costs":{"rows":[…]}}`.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::super::catalogue::DataError;
use super::super::edition::{Content, Row, SectionContent};
use super::super::envelope::Object;
use super::super::ids::RowId;
use super::super::values::Values;
use super::MAX_ROWS;
use super::data::wrong;
use super::text::Name;

/// The most sections that an edition may have.
const MAX_SECTIONS: usize = 500;

/// The sections of an edition, by their names.
#[derive(Default)]
pub(super) struct Sections(pub(super) Content);

impl<'de> Deserialize<'de> for Sections {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(SectionsVisitor)
    }
}

struct SectionsVisitor;

impl<'de> Visitor<'de> for SectionsVisitor {
    type Value = Sections;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of sections")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Sections, A::Error> {
        let (mut content, mut rows) = (Content::new(), 0);
        while let Some((Name(name), SectionShape(section))) = map.next_entry()? {
            if content.iter().any(|(known, _)| *known == name) {
                return Err(A::Error::custom(format!("`{name}` stands there twice")));
            }
            if let SectionContent::Repeating(more) = &section {
                rows += more.len();
            }
            if content.len() == MAX_SECTIONS || rows > MAX_ROWS {
                return Err(A::Error::custom(format!(
                    "must be at most {MAX_SECTIONS} sections and {MAX_ROWS} rows"
                )));
            }
            content.push((name, section));
        }
        Ok(Sections(content))
    }
}

#[derive(Deserialize)]
struct SectionData {
    values: Option<Values>,
    rows: Option<Rows>,
}

/// What one section holds: values or rows.
#[derive(Deserialize)]
#[serde(try_from = "Object<SectionData>")]
struct SectionShape(SectionContent);

impl TryFrom<Object<SectionData>> for SectionShape {
    type Error = &'static str;

    fn try_from(Object(told): Object<SectionData>) -> Result<Self, &'static str> {
        match (told.values, told.rows) {
            (Some(values), None) => Ok(Self(SectionContent::Single(values))),
            (None, Some(Rows(rows))) => Ok(Self(SectionContent::Repeating(rows))),
            _ => Err("must hold either `values` or `rows`"),
        }
    }
}

#[derive(Deserialize)]
struct RowData {
    id: RowId,
    #[serde(default)]
    values: Values,
}

/// Rows, in order.
struct Rows(Vec<Row>);

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(RowsVisitor)
    }
}

struct RowsVisitor;

impl<'de> Visitor<'de> for RowsVisitor {
    type Value = Rows;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Rows, A::Error> {
        let mut rows = Vec::new();
        while let Some(Object(RowData { id, values })) = seq.next_element()? {
            if rows.len() == MAX_ROWS {
                return Err(A::Error::custom(format!("must be at most {MAX_ROWS} rows")));
            }
            rows.push(Row { id, values });
        }
        Ok(Rows(rows))
    }
}

/// Ids of rows must be different from one another within their section.
pub(super) fn check_rows(content: &Content) -> Result<(), DataError> {
    for (name, section) in content {
        let SectionContent::Repeating(rows) = section else {
            continue;
        };
        let mut seen = HashSet::with_capacity(rows.len());
        if let Some(at) = rows.iter().position(|row| !seen.insert(&row.id)) {
            let path = format!("data.sections.{name}.rows[{at}].id");
            let reason = format!("`{}` stands there twice", rows[at].id);
            return Err(wrong(&path, &reason));
        }
    }
    Ok(())
}
