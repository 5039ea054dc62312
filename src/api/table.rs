//! Tables in bodies: rows as JSON, as CSV, or as the tab-separated text that a spreadsheet puts on the
//! clipboard.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;

use super::body::{self, content_type, is_json};
use super::problem::Fault;
use super::problem_type::ProblemType;
use super::{Problem, Result};
use crate::domain::blueprint::Section;
use crate::domain::table::{
    Delimiter, MAX_ROWS_SENT, NewRow, TableError, places_of_ids, read_json, read_text,
};
use crate::domain::values::{Place, ValueFaults};

/// What a table comes as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `{"rows":[…]}`
    Json,
    /// Text with a header.
    Text(Delimiter),
}

/// A table, not yet held against its section.
#[derive(Clone, Debug)]
pub struct TableBody {
    /// What it comes as.
    pub form: Form,
    /// The text.
    pub bytes: Bytes,
}

impl<S: Send + Sync> FromRequest<S> for TableBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let form = Form::of(request.headers()).ok_or_else(|| {
            Problem::new(ProblemType::UnsupportedMediaType).detail(
                "Send rows as `application/json`, `text/csv` or `text/tab-separated-values`, in UTF-8 \
                 and without a `Content-Encoding`.",
            )
        })?;
        let bytes = body::bytes(request, state).await?;
        Ok(Self { form, bytes })
    }
}

impl Form {
    /// By the `Content-Type`, which names no other charset than UTF-8.
    fn of(headers: &HeaderMap) -> Option<Self> {
        if is_json(headers) {
            return Some(Self::Json);
        }
        let text = content_type(headers)?.to_ascii_lowercase();
        let mut parts = text.split(';').map(str::trim);
        let delimiter = match parts.next()? {
            "text/csv" => Delimiter::Comma,
            "text/tab-separated-values" => Delimiter::Tab,
            _ => return None,
        };
        let mut charsets = parts.filter_map(|part| part.strip_prefix("charset="));
        charsets
            .all(|charset| matches!(charset.trim_matches('"'), "utf-8" | "utf8" | "us-ascii"))
            .then_some(Self::Text(delimiter))
    }

    /// What tells two requests with the same bytes apart.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Text(Delimiter::Comma) => "csv",
            Self::Text(Delimiter::Tab) => "tsv",
        }
    }
}

impl TableBody {
    /// The rows, all of them right for their section. Takes a while: not for a thread that serves.
    pub fn read(&self, section: &Section) -> Result<Vec<NewRow>> {
        let rows = match self.form {
            Form::Json => read_json(&self.bytes, section),
            Form::Text(delimiter) => read_text(&self.bytes, delimiter, section),
        };
        Ok(rows?)
    }

    /// Names the ids of rows, where they are told, by where they stand in the text. Takes a while too.
    pub fn place(&self, faults: &mut ValueFaults, section: &Section) -> Result<()> {
        let Form::Text(delimiter) = self.form else {
            return Ok(());
        };
        let mut told: Vec<(usize, &mut Place)> = faults
            .places_mut()
            .filter_map(|place| match place {
                Place::RowId(row) => Some((*row, place)),
                _ => None,
            })
            .collect();
        told.sort_unstable_by_key(|(row, _)| *row);
        let rows: Vec<usize> = told.iter().map(|(row, _)| *row).collect();
        let found = places_of_ids(&self.bytes, delimiter, section, &rows)?;
        for ((_, place), found) in told.into_iter().zip(found) {
            *place = found;
        }
        Ok(())
    }
}

impl From<TableError> for Problem {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Malformed { place, reason } => {
                Self::new(ProblemType::MalformedBody).detail(format!("At {place}: {reason}."))
            }
            TableError::TooManyRows => Self::new(ProblemType::PayloadTooLarge)
                .detail(format!("A request holds at most {MAX_ROWS_SENT} rows.")),
            TableError::Invalid(faults) => faults.into(),
        }
    }
}

/// Values that break a rule, each at its place.
impl From<ValueFaults> for Problem {
    fn from(faults: ValueFaults) -> Self {
        let problem = Self::new(ProblemType::InvalidValues).faults(
            faults
                .told()
                .iter()
                .map(|it| fault(&it.place, &it.detail))
                .collect(),
        );
        match faults.untold() {
            0 => problem,
            untold => {
                let told = faults.told().len();
                problem.detail(format!(
                    "Values in the body break rules: these {told}, and {untold} more."
                ))
            }
        }
    }
}

fn fault(place: &Place, detail: &str) -> Fault {
    let detail = detail.to_owned();
    match place {
        Place::Pointer(pointer) => Fault::Value {
            pointer: pointer.clone(),
            detail,
        },
        Place::RowId(_) => Fault::Value {
            pointer: place.to_string(),
            detail,
        },
        Place::Cell { line, column } => Fault::Cell {
            line: *line,
            column: column.clone(),
            detail,
        },
        Place::Text { line, .. } => Fault::Cell {
            line: *line,
            column: String::new(),
            detail,
        },
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use axum::http::header::CONTENT_TYPE;

    use super::*;

    fn form(content_type: &str) -> Option<Form> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::try_from(content_type).unwrap());
        Form::of(&headers)
    }

    #[test]
    fn a_table_is_what_its_type_says() {
        for (content_type, expected) in [
            ("application/json", Some(Form::Json)),
            ("application/json; charset=utf-8", Some(Form::Json)),
            ("text/csv", Some(Form::Text(Delimiter::Comma))),
            (
                "Text/CSV; header=present; charset=\"UTF-8\"",
                Some(Form::Text(Delimiter::Comma)),
            ),
            (
                "text/tab-separated-values",
                Some(Form::Text(Delimiter::Tab)),
            ),
            ("text/csv; charset=iso-8859-1", None),
            ("text/plain", None),
            ("application/csv", None),
            ("", None),
        ] {
            assert_eq!(form(content_type), expected, "{content_type}");
        }
        assert_eq!(Form::of(&HeaderMap::new()), None);
    }

    #[test]
    fn each_fault_stands_at_its_place_and_the_untold_are_counted() {
        let mut faults = ValueFaults::default();
        for line in 2..=103 {
            let column = || "Amount".to_owned();
            faults.add(
                || Place::Cell {
                    line,
                    column: column(),
                },
                "must be a number",
            );
        }
        let problem = Problem::from(faults);
        assert_eq!(problem.list().len(), 100);
        let first = Fault::Cell {
            line: 2,
            column: "Amount".into(),
            detail: "must be a number".into(),
        };
        assert_eq!(problem.list()[0], first);
        assert!(
            problem.told().ends_with("these 100, and 2 more."),
            "{}",
            problem.told()
        );
    }

    #[test]
    fn a_table_that_is_none_or_too_long_is_told() {
        let malformed = Problem::from(TableError::Malformed {
            place: Place::Text { line: 3, column: 9 },
            reason: "a quote is not closed".into(),
        });
        assert_eq!(malformed.kind(), ProblemType::MalformedBody);
        assert_eq!(
            malformed.told(),
            "At line 3, character 9: a quote is not closed."
        );
        let long = Problem::from(TableError::TooManyRows);
        assert_eq!(long.kind(), ProblemType::PayloadTooLarge);
    }
}
