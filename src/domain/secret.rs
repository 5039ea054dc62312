//! Signing secrets: `whsec_` + base64 (Standard Webhooks), or an admin's own string for the
//! `kazinex` body.

use std::fmt;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};

use super::subscription::{BodyFormat, FieldError};

/// The prefix of a Standard Webhooks secret.
pub const PREFIX: &str = "whsec_";

/// How many random bytes a generated secret holds.
pub const GENERATED_BYTES: usize = 32;

/// The longest time that an old secret signs beside a new one (product.md §4).
pub const MAX_OVERLAP: Duration = Duration::from_hours(7 * 24);

/// A signing secret as the receiver has it. It is shown once and printed nowhere.
#[derive(Clone)]
pub struct SigningSecret(SecretString);

impl SigningSecret {
    /// `whsec_` + base64 of the given random bytes.
    pub fn generate(random: [u8; GENERATED_BYTES]) -> Self {
        Self(SecretString::from(format!(
            "{PREFIX}{}",
            STANDARD.encode(random)
        )))
    }

    /// Takes a secret that the admin brings: `whsec_` with 24 to 64 bytes, or, for `kazinex`, any
    /// string of 16 to 128 characters. The error names the field and never the secret.
    pub fn bring(text: &str, format: BodyFormat) -> Result<Self, FieldError> {
        let wrong = |reason| FieldError::new("secret", reason);
        if let Some(encoded) = text.strip_prefix(PREFIX) {
            let key = STANDARD
                .decode(encoded)
                .map_err(|_| wrong("`whsec_` must be followed by base64"))?;
            if !(24..=64).contains(&key.len()) {
                return Err(wrong("`whsec_` must hold 24 to 64 bytes"));
            }
        } else if format == BodyFormat::Kazinex {
            if !(16..=128).contains(&text.chars().count()) {
                return Err(wrong("must be 16 to 128 characters"));
            }
        } else {
            return Err(wrong(
                "must begin with `whsec_` and hold 24 to 64 bytes in base64",
            ));
        }
        Ok(Self(SecretString::from(text)))
    }

    /// Takes back what was stored; it was checked when it came in.
    pub fn stored(text: String) -> Self {
        Self(SecretString::from(text))
    }

    /// The text, for showing it once, storing it encrypted, and making keys of it.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// The key of the `v1` signature: the decoded bytes behind `whsec_`, else the UTF-8 bytes.
    pub fn v1_key(&self) -> Vec<u8> {
        let text = self.expose();
        text.strip_prefix(PREFIX)
            .and_then(|encoded| STANDARD.decode(encoded).ok())
            .unwrap_or_else(|| text.as_bytes().to_vec())
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningSecret(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whsec(bytes: usize) -> String {
        format!("{PREFIX}{}", STANDARD.encode(vec![7_u8; bytes]))
    }

    #[test]
    fn a_generated_secret_decodes_to_its_bytes() {
        let secret = SigningSecret::generate([9; GENERATED_BYTES]);
        assert!(secret.expose().starts_with(PREFIX));
        assert_eq!(secret.v1_key(), [9; GENERATED_BYTES]);
    }

    #[test]
    fn a_brought_secret_is_held_to_its_length() {
        for format in [
            BodyFormat::Standard,
            BodyFormat::Kazinex,
            BodyFormat::CloudEvents,
        ] {
            assert!(SigningSecret::bring(&whsec(23), format).is_err());
            assert!(SigningSecret::bring(&whsec(24), format).is_ok());
            assert!(SigningSecret::bring(&whsec(64), format).is_ok());
            assert!(SigningSecret::bring(&whsec(65), format).is_err());
            assert!(SigningSecret::bring("whsec_!!!", format).is_err());
        }
        assert!(SigningSecret::bring("sixteen-chars-ok", BodyFormat::Kazinex).is_ok());
        assert!(SigningSecret::bring("fifteen-chars-x", BodyFormat::Kazinex).is_err());
        assert!(SigningSecret::bring(&"é".repeat(128), BodyFormat::Kazinex).is_ok());
        assert!(SigningSecret::bring(&"é".repeat(129), BodyFormat::Kazinex).is_err());
        assert!(SigningSecret::bring("sixteen-chars-ok", BodyFormat::Standard).is_err());
    }

    #[test]
    fn a_plain_string_is_its_own_key() {
        let secret = SigningSecret::bring("a plain kazinex secret", BodyFormat::Kazinex).unwrap();
        assert_eq!(secret.v1_key(), b"a plain kazinex secret");
    }

    #[test]
    fn nothing_prints_a_secret() {
        let secret = SigningSecret::generate([9; GENERATED_BYTES]);
        assert!(!format!("{secret:?}").contains(&secret.expose()[PREFIX.len()..]));
        let error = SigningSecret::bring("short-and-secret", BodyFormat::Standard).unwrap_err();
        assert!(!error.to_string().contains("short-and-secret"));
    }
}
