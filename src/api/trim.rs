//! `fields=`: only some members of what is shown.

use std::fmt;

use super::{Problem, Result};
use crate::domain::values::Values;
use crate::store::StoreError;

/// The members that a client wants; all of them where it does not say.
#[derive(Clone, Debug)]
pub struct Members {
    /// What there is, in order.
    known: &'static [&'static str],
    /// Bits of those that are wanted, the first one lowest.
    wanted: u32,
}

impl Members {
    /// Reads the parameter, a list of names with commas between them. There are at most 32 to name.
    pub fn read(text: Option<&str>, known: &'static [&'static str]) -> Result<Self> {
        let Some(text) = text else {
            return Ok(Self {
                known,
                wanted: u32::MAX,
            });
        };
        let bit = |name: &str| {
            let place = known.iter().position(|it| *it == name)?;
            1_u32.checked_shl(u32::try_from(place).ok()?)
        };
        let wanted = text
            .split(',')
            .try_fold(0, |wanted, name| Some(wanted | bit(name)?))
            .ok_or_else(|| {
                let names = known.join("`, `");
                let rule = format!("must be names with commas between them, of `{names}`");
                Problem::parameter("fields", rule)
            })?;
        Ok(Self { known, wanted })
    }

    /// What is left of a JSON object.
    pub fn trim(&self, json: String) -> Result<String> {
        if self.wanted == u32::MAX {
            return Ok(json);
        }
        let whole = Values::trusted(&json);
        let members = whole.entries().map_err(StoreError::corrupt)?;
        let wanted = members
            .into_iter()
            .filter(|(name, _)| self.wants(name))
            .map(|(name, value)| (name.into_owned(), value.to_owned()));
        Ok(wanted.collect::<Values>().as_str().to_owned())
    }

    fn wants(&self, name: &str) -> bool {
        let mut known = self.known.iter().enumerate();
        known.any(|(place, it)| *it == name && self.wanted >> place & 1 == 1)
    }
}

/// What tells its answers from those with other members: a part of a tag's variant.
impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.wanted {
            u32::MAX => Ok(()),
            wanted => write!(f, "-{wanted:x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["id", "name", "at"];

    #[test]
    fn members_that_are_not_wanted_are_left_out() {
        let trim = |fields| Members::read(fields, &KNOWN).unwrap();
        let json = r#"{"id":"x","name":"a \"b\"","at":1.50}"#;
        let trimmed = |fields| trim(fields).trim(json.to_owned()).unwrap();
        assert_eq!(trimmed(None), json);
        assert_eq!(trimmed(Some("at,id")), r#"{"id":"x","at":1.50}"#);
        assert_eq!(trimmed(Some("name,name")), r#"{"name":"a \"b\""}"#);
        assert_eq!(trim(None).to_string(), "");
        assert_eq!(trim(Some("at,id")).to_string(), "-5");
        assert_eq!(trim(Some("id,at")).to_string(), "-5");
        for wrong in ["", "id,", "ID", "id, at", "other"] {
            assert!(Members::read(Some(wrong), &KNOWN).is_err(), "{wrong}");
        }
    }
}
