//! URLs without their passwords, for everything that is shown or logged.

use secrecy::{ExposeSecret, SecretString};
use serde::Serializer;
use url::Url;

/// What stands where a secret was.
pub const HIDDEN: &str = "***";

/// Query parameters of a database or broker URL that hold a secret.
const SECRET_PARAMETERS: [&str; 2] = ["password", "sslpassword"];

/// The URL with its password replaced; all of it, where it cannot be told apart.
pub fn without_password(url: &SecretString) -> String {
    let text = url.expose_secret();
    // A path needs no parsing, and would not come back as it was written.
    if text.starts_with("sqlite:") {
        return text.to_owned();
    }
    let Ok(mut url) = Url::parse(text) else {
        return HIDDEN.to_owned();
    };
    if url.cannot_be_a_base() || (url.password().is_some() && hide_password(&mut url).is_err()) {
        return HIDDEN.to_owned();
    }
    if url.query().is_some() {
        let shown: Vec<(String, String)> = url
            .query_pairs()
            .map(|(name, value)| {
                let secret = SECRET_PARAMETERS.contains(&name.to_ascii_lowercase().as_str());
                let value = if secret { HIDDEN } else { &value };
                (name.to_string(), value.to_owned())
            })
            .collect();
        url.query_pairs_mut().clear().extend_pairs(shown);
    }
    url.to_string()
}

fn hide_password(url: &mut Url) -> Result<(), ()> {
    url.set_password(Some(HIDDEN))
}

/// Writes a URL without its password.
pub fn url<S: Serializer>(url: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&without_password(url))
}

/// Writes a URL without its password, where there is one.
pub fn optional_url<S: Serializer>(
    url: &Option<SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match url {
        Some(url) => serializer.serialize_some(&without_password(url)),
        None => serializer.serialize_none(),
    }
}

/// Writes that a secret is there, and nothing of it.
pub fn hidden<S: Serializer>(
    secret: &Option<SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match secret {
        Some(_) => serializer.serialize_some(HIDDEN),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        without_password(&SecretString::from(text))
    }

    #[test]
    fn the_password_goes_and_the_rest_stays() {
        for (url, expected) in [
            (
                "postgres://forge:s3cret@db:5432/forge",
                "postgres://forge:***@db:5432/forge",
            ),
            (
                "amqps://u:s3cr%40et@mq/%2f?heartbeat=10",
                "amqps://u:***@mq/%2f?heartbeat=10",
            ),
            ("amqp://localhost/%2f", "amqp://localhost/%2f"),
            (
                "postgres:///forge?host=/run/pg&user=u&password=s3cret",
                "postgres:///forge?host=%2Frun%2Fpg&user=u&password=***",
            ),
            (
                "sqlite://data/forge-dispatch.db",
                "sqlite://data/forge-dispatch.db",
            ),
        ] {
            assert_eq!(shown(url), expected);
        }
    }

    #[test]
    fn what_cannot_be_taken_apart_is_hidden_whole() {
        for text in [
            "forge:s3cret@db/forge",
            "postgres://forge:s3cret@db:port/forge",
            "s3cret",
            "",
        ] {
            assert!(!shown(text).contains("s3cret"), "{text:?}");
        }
    }
}
