//! Signatures: Standard Webhooks 1.0 (`v1`) and the `kazinex` header.
//!
//! `v1` is HMAC-SHA256 over `id.timestamp.body`, base64, one entry per live secret. The id has no
//! dot in it (TypeID alphabet), so the signed string can be read one way only.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::secret::SigningSecret;

/// A secret made ready for signing: the keyed states are computed once and copied per message.
#[derive(Clone)]
pub struct SigningKey {
    v1: Hmac<Sha256>,
    text: Hmac<Sha256>,
}

impl SigningKey {
    /// Derives both keys: the `v1` key and, for `kazinex`, the secret string's own bytes.
    pub fn new(secret: &SigningSecret) -> Self {
        Self {
            v1: keyed(&secret.v1_key()),
            text: keyed(secret.expose().as_bytes()),
        }
    }

    /// One entry of `webhook-signature`.
    fn v1_entry(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut mac = self.v1.clone();
        mac.update(id.as_bytes());
        mac.update(b".");
        mac.update(timestamp.to_string().as_bytes());
        mac.update(b".");
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }

    /// The value of `X-Kazinex-Signature`: `sha256=` and the hex HMAC-SHA256 of the body.
    pub fn kazinex(&self, body: &[u8]) -> String {
        let mut mac = self.text.clone();
        mac.update(body);
        let digest = mac.finalize().into_bytes();
        let mut value = String::with_capacity(7 + 64);
        value.push_str("sha256=");
        for byte in digest {
            value.push(char::from(HEX[usize::from(byte >> 4)]));
            value.push(char::from(HEX[usize::from(byte & 15)]));
        }
        value
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey(hidden)")
    }
}

/// The value of `webhook-signature`: one `v1` entry per key, separated by spaces.
pub fn webhook_signature(keys: &[SigningKey], id: &str, timestamp: i64, body: &[u8]) -> String {
    let mut value = String::with_capacity(keys.len() * 48);
    for key in keys {
        if !value.is_empty() {
            value.push(' ');
        }
        value.push_str(&key.v1_entry(id, timestamp, body));
    }
    value
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    #[expect(
        clippy::expect_used,
        reason = "HMAC takes a key of any length (RFC 2104 §3)"
    )]
    Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes any key")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::subscription::BodyFormat;
    use super::*;

    fn key(secret: &str) -> SigningKey {
        SigningKey::new(&SigningSecret::stored(secret.to_owned()))
    }

    /// The example of the Standard Webhooks specification and its reference libraries.
    #[test]
    fn the_specifications_vector_is_met() {
        let value = webhook_signature(
            &[key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")],
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(value, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    /// RFC 4231, test case 2: the key is the text "Jefe".
    #[test]
    fn the_kazinex_header_is_plain_hmac_sha256_in_hex() {
        assert_eq!(
            key("Jefe").kazinex(b"what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn each_live_secret_signs() {
        let (a, b) = (
            key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
            key("another"),
        );
        let both = webhook_signature(&[a.clone(), b.clone()], "evt_1", 7, b"{}");
        let alone = [a, b].map(|key| webhook_signature(&[key], "evt_1", 7, b"{}"));
        assert_eq!(both, alone.join(" "));
    }

    proptest! {
        #[test]
        fn the_published_library_agrees(
            secret in prop::array::uniform32(any::<u8>()),
            id in "[a-z0-9_]{1,40}",
            timestamp in 0_i64..4_000_000_000,
            body in ".{0,200}",
        ) {
            let secret = SigningSecret::generate(secret);
            let ours = webhook_signature(&[SigningKey::new(&secret)], &id, timestamp, body.as_bytes());
            let theirs = standardwebhooks::Webhook::new(secret.expose()).unwrap();
            prop_assert_eq!(ours, theirs.sign(&id, timestamp, body.as_bytes()).unwrap());
        }

        #[test]
        fn the_published_library_agrees_on_plain_secrets(secret in "[ -~]{16,128}", body in ".{0,50}") {
            prop_assume!(!secret.starts_with("whsec_"));
            let ours = SigningSecret::bring(&secret, BodyFormat::Kazinex).unwrap();
            let theirs = standardwebhooks::Webhook::from_bytes(secret.into_bytes()).unwrap();
            prop_assert_eq!(
                webhook_signature(&[SigningKey::new(&ours)], "evt_1", 7, body.as_bytes()),
                theirs.sign("evt_1", 7, body.as_bytes()).unwrap()
            );
        }
    }
}
