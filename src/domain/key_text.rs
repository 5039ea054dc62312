//! The text of an API key, that its holder shows, and what is kept of it.
//!
//! The text is `rfk_` + public id + `_` + 160 random bits + checksum, in lower-case letters and
//! digits: a double click selects it, a scanner finds it by `rfk_[0-9a-z]{26}_[0-9a-f]{48}`, and a
//! typing mistake is told from a wrong key without a look at the database (product.md §5).

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::hex::hex;
use super::ids::ApiKeyId;

/// What every key begins with.
pub const PREFIX: &str = "rfk_";

/// Random bytes in a key.
pub const SECRET_BYTES: usize = 20;

const ID_PREFIX: &str = "key_";
const SECRET_DIGITS: usize = 2 * SECRET_BYTES;
const CHECKSUM_BYTES: usize = 4;

/// The SHA-256 of a key's text: what the database holds instead of it.
///
/// There is no `==` for it: two of them are compared in a time that says nothing about them.
#[derive(Clone, Copy)]
pub struct KeyDigest(pub [u8; 32]);

impl KeyDigest {
    /// Whether this, of what a client shows, is the one that is kept. Where none is kept it is held
    /// against one that nothing has, so that an unknown key takes as long as a wrong one.
    pub fn proves(&self, kept: Option<&Self>) -> bool {
        let nobody = Self([0; 32]);
        let same = kept.unwrap_or(&nobody).0.ct_eq(&self.0);
        bool::from(same & Choice::from(u8::from(kept.is_some())))
    }
}

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyDigest(hidden)")
    }
}

/// The text of a key, well formed. It is shown once and printed nowhere.
#[derive(Clone)]
pub struct KeyText {
    id: ApiKeyId,
    text: SecretString,
}

impl KeyText {
    /// The text of a new key.
    pub fn generate(id: ApiKeyId, random: [u8; SECRET_BYTES]) -> Self {
        let id_text = id.to_string();
        let public = id_text.strip_prefix(ID_PREFIX).unwrap_or(&id_text);
        let body = format!("{PREFIX}{public}_{}", hex(&random));
        let checksum = checksum(&body);
        Self {
            id,
            text: SecretString::from(body + &checksum),
        }
    }

    /// Reads what a client shows; `None` if it cannot be a key of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let (public, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let digits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if secret.len() != SECRET_DIGITS + 2 * CHECKSUM_BYTES || !secret.bytes().all(digits) {
            return None;
        }
        let (body, sum) = text.split_at(text.len() - 2 * CHECKSUM_BYTES);
        if checksum(body) != sum {
            return None;
        }
        Some(Self {
            id: format!("{ID_PREFIX}{public}").parse().ok()?,
            text: SecretString::from(text),
        })
    }

    /// The public part.
    pub fn id(&self) -> ApiKeyId {
        self.id
    }

    /// What the database holds of it.
    pub fn digest(&self) -> KeyDigest {
        KeyDigest(Sha256::digest(self.text.expose_secret().as_bytes()).into())
    }

    /// The text, for showing it once.
    pub fn expose(&self) -> &str {
        self.text.expose_secret()
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyText")
            .field(&self.id.to_string())
            .finish()
    }
}

fn checksum(body: &str) -> String {
    hex(&Sha256::digest(body.as_bytes())[..CHECKSUM_BYTES])
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::super::ids::new_id;
    use super::*;

    fn text() -> KeyText {
        let now = DateTime::from_timestamp_millis(1_777_000_000_000).unwrap();
        KeyText::generate(new_id(now, [7; 10]), [9; SECRET_BYTES])
    }

    #[test]
    fn a_key_is_read_as_it_was_made() {
        let key = text();
        let read = KeyText::parse(key.expose()).unwrap();
        assert_eq!(read.id(), key.id());
        assert!(read.digest().proves(Some(&key.digest())));
        assert_eq!(key.expose().len(), 4 + 26 + 1 + 48);
    }

    #[test]
    fn one_wrong_character_anywhere_is_no_key() {
        let key = text();
        for place in 0..key.expose().len() {
            let mut wrong = key.expose().to_owned().into_bytes();
            wrong[place] = if wrong[place] == b'1' { b'2' } else { b'1' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert!(KeyText::parse(&wrong).is_none(), "{wrong}");
        }
        for wrong in ["", "rfk_", "rfk__", "é", &key.expose()[1..]] {
            assert!(KeyText::parse(wrong).is_none(), "{wrong}");
        }
        assert!(KeyText::parse(&format!("{}0", key.expose())).is_none());
    }

    #[test]
    fn nothing_prints_a_key() {
        let key = text();
        let secret = hex(&[9; SECRET_BYTES]);
        assert!(!format!("{key:?}").contains(&secret));
        assert_eq!(format!("{:?}", key.digest()), "KeyDigest(hidden)");
    }

    #[test]
    fn a_digest_proves_itself_and_nothing_else() {
        let digest = text().digest();
        assert!(digest.proves(Some(&KeyDigest(digest.0))));
        assert!(!digest.proves(None));
        assert!(!KeyDigest([0; 32]).proves(None), "not the stand-in either");
        for byte in 0..32 {
            let mut other = digest;
            other.0[byte] ^= 1;
            assert!(!other.proves(Some(&digest)), "byte {byte}");
        }
    }
}
