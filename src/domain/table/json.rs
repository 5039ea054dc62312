//! Rows out of JSON: `{"rows":[{"id":"r1","values":{…}},{"values":{…}}]}`.

use std::fmt::Write;

use serde::Deserialize;
use serde_path_to_error::{Path, Segment};

use super::super::blueprint::Section;
use super::super::envelope::{self, Object};
use super::super::values::{Checker, Place, ValueFaults, Values, pointer_token};
use super::{Known, MAX_ROWS_SENT, NewRow, TableError};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RowsData {
    rows: Vec<Object<RowData>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RowData {
    id: Option<String>,
    values: Values,
}

/// Reads rows of a section; what is wrong is told with pointers into the text.
pub fn read_json(bytes: &[u8], section: &Section) -> Result<Vec<NewRow>, TableError> {
    let sent = parse(bytes)?;
    if sent.len() > MAX_ROWS_SENT {
        return Err(TableError::TooManyRows);
    }
    let checker = Checker::new(section);
    let (mut known, mut faults) = (Known::default(), ValueFaults::default());
    let mut rows = Vec::with_capacity(sent.len());
    for (at, Object(RowData { id, values })) in sent.into_iter().enumerate() {
        let id = match id.map(|text| known.read(&text)).transpose() {
            Ok(id) => id,
            Err(detail) => {
                faults.add(|| Place::Pointer(format!("/rows/{at}/id")), detail);
                None
            }
        };
        checker.check(&values, &mut faults, |name| {
            Place::Pointer(format!("/rows/{at}/values/{}", pointer_token(name)))
        });
        rows.push(NewRow { id, values });
    }
    faults.or(rows).map_err(TableError::Invalid)
}

fn parse(bytes: &[u8]) -> Result<Vec<Object<RowData>>, TableError> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = serde_path_to_error::deserialize::<_, Object<RowsData>>(&mut deserializer);
    let Object(sent) = read.map_err(|error| {
        if error.inner().is_data() {
            let place = Place::Pointer(pointer(error.path()));
            TableError::Invalid(ValueFaults::one(place, envelope::reason(error.inner())))
        } else {
            malformed(error.inner())
        }
    })?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(sent.rows)
}

fn malformed(error: &serde_json::Error) -> TableError {
    let count = |number| u64::try_from(number).unwrap_or(u64::MAX);
    TableError::Malformed {
        place: Place::Text {
            line: count(error.line()),
            column: count(error.column()),
        },
        reason: envelope::reason(error),
    }
}

/// A path as a JSON pointer (RFC 6901).
fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        // Writing into a string cannot fail.
        let _written = match segment {
            Segment::Seq { index } => write!(pointer, "/{index}"),
            Segment::Map { key } => write!(pointer, "/{}", pointer_token(key)),
            Segment::Enum { .. } | Segment::Unknown => Ok(()),
        };
    }
    pointer
}
