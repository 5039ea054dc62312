//! The query of a request: every parameter is known, given once, and text until its handler reads it.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use chrono::{DateTime, Utc};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{Problem, Result};
use crate::domain::subscription::FieldError;

/// The query, as a struct of optional texts that says which parameters there are.
#[derive(Clone, Debug)]
pub struct Query<T>(pub T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        read(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn read<T: DeserializeOwned>(query: &str) -> Result<T> {
    let mut given = Map::new();
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        let twice = given.insert(name.to_string(), Value::from(value.as_ref()));
        if twice.is_some() {
            return Err(Problem::parameter(name, "is given twice"));
        }
    }
    serde_path_to_error::deserialize(Value::Object(given)).map_err(|error| {
        let name = error.path().to_string();
        let name = if name == "." { String::new() } else { name };
        Problem::parameter(name, error.inner().to_string())
    })
}

/// Reads a parameter that was given.
pub fn parsed<T>(name: &str, text: Option<&str>) -> Result<Option<T>>
where
    T: FromStr<Err: Display>,
{
    let read = text.map(str::parse).transpose();
    read.map_err(|error: T::Err| Problem::parameter(name, error.to_string()))
}

/// Reads a parameter that the domain knows as a field.
pub fn field<T>(name: &str, text: Option<&str>) -> Result<Option<T>>
where
    T: FromStr<Err = FieldError>,
{
    let read = text.map(str::parse).transpose();
    read.map_err(|error: FieldError| Problem::parameter(name, error.reason))
}

/// Reads an id of ours that was given.
pub fn id<T: FromStr>(name: &str, text: Option<&str>, example: &str) -> Result<Option<T>> {
    let read = text.map(str::parse).transpose();
    read.map_err(|_| Problem::parameter(name, format!("must be an id such as `{example}`")))
}

/// Reads a parameter by a function of the domain.
pub fn made<T, E: Display>(
    name: &str,
    text: Option<&str>,
    make: impl FnOnce(&str) -> std::result::Result<T, E>,
) -> Result<Option<T>> {
    let read = text.map(make).transpose();
    read.map_err(|error| Problem::parameter(name, error.to_string()))
}

/// Reads an instant that was given.
pub fn time(name: &str, text: Option<&str>) -> Result<Option<DateTime<Utc>>> {
    let read = text.map(DateTime::parse_from_rfc3339).transpose();
    match read {
        Ok(time) => Ok(time.map(|time| time.to_utc())),
        Err(_) => Err(Problem::parameter(
            name,
            "must be an instant as RFC 3339 writes it: `2026-05-01T09:00:00Z`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::api::problem::Fault;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Shape {
        limit: Option<String>,
    }

    #[test]
    fn an_unknown_parameter_and_one_given_twice_are_named() {
        let limit = |query| read::<Shape>(query).unwrap().limit;
        assert_eq!(limit(""), None);
        assert_eq!(limit("limit="), Some(String::new()));
        assert_eq!(limit("limit=%31"), Some("1".to_owned()));
        for (query, parameter) in [("limi=1", "limi"), ("limit=1&limit=1", "limit"), ("=", "")] {
            let problem = read::<Shape>(query).unwrap_err();
            let Fault::Parameter {
                parameter: named, ..
            } = &problem.list()[0]
            else {
                panic!("{problem:?}")
            };
            assert_eq!(named, parameter, "{query}");
        }
    }
}
