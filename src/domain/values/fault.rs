//! What is wrong with values, and where: for a person to mend in one go.

use std::borrow::Cow;
use std::fmt;

/// The most faults that are told one by one.
pub const MAX_FAULTS: usize = 100;

/// Where something is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A JSON pointer (RFC 6901).
    Pointer(String),
    /// The id of a row that was sent, the first row being 0: what is found out where nobody knows any
    /// more what the rows came as.
    RowId(usize),
    /// A cell of a table that came as text: the line its row begins in, the first being 1, and the
    /// column as the header names it.
    Cell {
        /// The line.
        line: u64,
        /// The column.
        column: String,
    },
    /// A character of a text, both counted from 1.
    Text {
        /// The line.
        line: u64,
        /// The character in it.
        column: u64,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pointer(pointer) => f.write_str(pointer),
            Self::RowId(row) => write!(f, "/rows/{row}/id"),
            Self::Cell { line, column } => write!(f, "line {line}, column `{column}`"),
            Self::Text { line, column } => write!(f, "line {line}, character {column}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueFault {
    /// Where.
    pub place: Place,
    /// What the value must be.
    pub detail: String,
}

/// All that is wrong: the first [`MAX_FAULTS`], and how many more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ValueFaults {
    told: Vec<ValueFault>,
    untold: usize,
}

impl ValueFaults {
    /// One alone.
    pub fn one(place: Place, detail: impl Into<String>) -> Self {
        let mut faults = Self::default();
        faults.add(|| place, detail);
        faults
    }

    /// One more. Its place is put into words only where it is told.
    pub fn add(&mut self, place: impl FnOnce() -> Place, detail: impl Into<String>) {
        if self.told.len() == MAX_FAULTS {
            self.untold += 1;
            return;
        }
        self.told.push(ValueFault {
            place: place(),
            detail: detail.into(),
        });
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    /// Those that are told.
    pub fn told(&self) -> &[ValueFault] {
        &self.told
    }

    /// How many more there are.
    pub fn untold(&self) -> usize {
        self.untold
    }

    /// The places of those that are told.
    pub fn places_mut(&mut self) -> impl Iterator<Item = &mut Place> {
        self.told.iter_mut().map(|fault| &mut fault.place)
    }

    /// The value, where nothing is wrong with it.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }
}

/// A name as a part of a JSON pointer (RFC 6901 §3).
pub fn pointer_token(name: &str) -> Cow<'_, str> {
    if name.contains(['~', '/']) {
        Cow::Owned(name.replace('~', "~0").replace('/', "~1"))
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounded_number_is_told_and_the_others_are_counted() {
        let mut faults = ValueFaults::default();
        for line in 0..250 {
            faults.add(|| Place::Text { line, column: 1 }, "must be a number");
        }
        assert_eq!((faults.told().len(), faults.untold()), (100, 150));
        assert!(faults.or(()).is_err());
        assert_eq!(ValueFaults::default().or(7), Ok(7));
    }

    #[test]
    fn a_place_is_put_into_words() {
        assert_eq!(pointer_token("a/b~c"), "a~1b~0c");
        let cell = Place::Cell {
            line: 3,
            column: "Amount".into(),
        };
        assert_eq!(cell.to_string(), "line 3, column `Amount`");
    }
}
