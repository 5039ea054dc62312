//! The master key, and the sealing of secrets under it.
//!
//! XChaCha20-Poly1305: its 24-byte nonce may be drawn at random for every seal without a counter
//! to keep (draft-irtf-cfrg-xchacha §2). What a secret belongs to is bound as associated data, so a
//! sealed value moved to another row does not open there.

use std::fmt;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac as _};
use secrecy::{ExposeSecret, SecretBox};
use sha2::Sha256;

use super::{Result, StoreError};
use crate::entropy::Entropy;

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// The first byte of every sealed value: which scheme sealed it.
const SCHEME: u8 = 1;
/// What the check value holds once it is opened.
const CHECK_PLAINTEXT: &[u8] = b"forge-dispatch master key check";
/// What every derivation begins with.
const DERIVED: &str = "forge-dispatch derived key: ";
const CHECK_CONTEXT: &str = "master-key-check";

/// 32 bytes that all secrets at rest are sealed under.
pub struct MasterKey(SecretBox<[u8; KEY_BYTES]>);

impl MasterKey {
    /// Reads a key written as base64 of 32 bytes (`openssl rand -base64 32`).
    pub fn parse(text: &str) -> Result<Self> {
        const WRONG: StoreError = StoreError::MasterKey(
            "FORGE_MASTER_KEY, or the key file, must hold 32 bytes in base64",
        );
        let bytes = STANDARD.decode(text.trim()).map_err(|_| WRONG)?;
        let bytes: [u8; KEY_BYTES] = bytes.try_into().map_err(|_| WRONG)?;
        Ok(Self(SecretBox::new(Box::new(bytes))))
    }

    /// Reads a key file; `None` if there is no such file.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(file_error(path, &error)),
        }
    }

    /// Makes a key and its file, readable by its owner only. Where another process was faster, its
    /// key is read instead.
    pub fn create(path: &Path, entropy: &Entropy) -> Result<Self> {
        let text = STANDARD.encode(entropy.bytes::<KEY_BYTES>());
        match write_new(path, &text) {
            Ok(()) => Self::parse(&text),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::read(path)?.ok_or(
                StoreError::MasterKey("the key file vanished while it was read"),
            ),
            Err(error) => Err(file_error(path, &error)),
        }
    }
}

/// Writes whole or not at all: another process never sees half a key.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension(format!("tmp{}", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(text.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    linked
}

fn file_error(path: &Path, error: &io::Error) -> StoreError {
    StoreError::Configuration(format!("master key file {}: {error}", path.display()))
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(hidden)")
    }
}

/// Seals and opens secrets.
#[derive(Clone)]
pub struct Vault {
    cipher: XChaCha20Poly1305,
    entropy: Entropy,
    /// What other keys derive from; the master key itself stays where it was read.
    root: Hmac<Sha256>,
}

impl Vault {
    /// A vault under this key.
    pub fn new(key: &MasterKey, entropy: Entropy) -> Self {
        Self {
            cipher: XChaCha20Poly1305::new(key.0.expose_secret().into()),
            entropy,
            root: keyed(key.0.expose_secret()),
        }
    }

    /// Seals a secret for the row that `context` names.
    pub fn seal(&self, context: &str, secret: &[u8]) -> Result<Vec<u8>> {
        let nonce: [u8; NONCE_BYTES] = self.entropy.bytes();
        let sealed = self
            .cipher
            .encrypt(
                &XNonce::from(nonce),
                Payload {
                    msg: secret,
                    aad: context.as_bytes(),
                },
            )
            .map_err(|_| StoreError::MasterKey("could not seal a secret"))?;
        let mut bytes = Vec::with_capacity(1 + NONCE_BYTES + sealed.len());
        bytes.push(SCHEME);
        bytes.extend_from_slice(&nonce);
        bytes.extend_from_slice(&sealed);
        Ok(bytes)
    }

    /// Opens what was sealed for `context`; fails under another key, for another context, or on
    /// changed bytes.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Vec<u8>> {
        const WRONG: StoreError = StoreError::MasterKey("does not open what is stored");
        let (&scheme, rest) = sealed.split_first().ok_or(WRONG)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(WRONG)?;
        if scheme != SCHEME {
            return Err(WRONG);
        }
        self.cipher
            .decrypt(
                &XNonce::from(*nonce),
                Payload {
                    msg: sealed,
                    aad: context.as_bytes(),
                },
            )
            .map_err(|_| WRONG)
    }

    /// A key for one purpose (a PRF in the sense of NIST SP 800-108): it says nothing of the master
    /// key, nor of the keys for other purposes.
    pub fn derive(&self, purpose: &str) -> SecretBox<[u8; 32]> {
        let derived = self
            .root
            .clone()
            .chain_update(DERIVED)
            .chain_update(purpose);
        SecretBox::new(Box::new(derived.finalize().into_bytes().into()))
    }

    /// A value to keep in the database, by which a later start tells whether its key is this one.
    pub fn check_value(&self) -> Result<Vec<u8>> {
        self.seal(CHECK_CONTEXT, CHECK_PLAINTEXT)
    }

    /// Whether a kept check value was made under this key.
    pub fn check(&self, value: &[u8]) -> Result<()> {
        const OTHER: StoreError =
            StoreError::MasterKey("is not the one that this database was made with");
        match self.open(CHECK_CONTEXT, value) {
            Ok(plaintext) if plaintext == CHECK_PLAINTEXT => Ok(()),
            _ => Err(OTHER),
        }
    }
}

/// HMAC-SHA256 under a key of ours. A key shorter than the hash's block is filled up with zeros (RFC
/// 2104), as is done here so that no length can be wrong.
pub fn keyed(key: &[u8; KEY_BYTES]) -> Hmac<Sha256> {
    let mut block = hmac::digest::Key::<Hmac<Sha256>>::default();
    block[..KEY_BYTES].copy_from_slice(key);
    <Hmac<Sha256> as hmac::KeyInit>::new(&block)
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vault(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn vault(byte: u8) -> Vault {
        let key = MasterKey::parse(&STANDARD.encode([byte; KEY_BYTES])).unwrap();
        Vault::new(&key, Entropy::seeded(1))
    }

    #[test]
    fn a_secret_opens_only_under_its_key_and_for_its_row() {
        let sealed = vault(1).seal("sub_1/sec_1", b"whsec_x").unwrap();
        assert_eq!(vault(1).open("sub_1/sec_1", &sealed).unwrap(), b"whsec_x");
        assert!(vault(2).open("sub_1/sec_1", &sealed).is_err());
        assert!(vault(1).open("sub_2/sec_1", &sealed).is_err());
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(
                vault(1).open("sub_1/sec_1", &changed).is_err(),
                "byte {index}"
            );
        }
        for length in 0..sealed.len() {
            assert!(vault(1).open("sub_1/sec_1", &sealed[..length]).is_err());
        }
    }

    #[test]
    fn one_secret_sealed_twice_looks_different() {
        let vault = vault(1);
        assert_ne!(
            vault.seal("a", b"x").unwrap(),
            vault.seal("a", b"x").unwrap()
        );
    }

    #[test]
    fn a_derived_key_is_one_of_its_purpose_and_its_master_key() {
        let derived = |byte, purpose| *vault(byte).derive(purpose).expose_secret();
        assert_eq!(derived(1, "cursors"), derived(1, "cursors"));
        assert_ne!(derived(1, "cursors"), derived(1, "other"));
        assert_ne!(derived(1, "cursors"), derived(2, "cursors"));
    }

    #[test]
    fn another_key_is_noticed() {
        let value = vault(1).check_value().unwrap();
        assert!(vault(1).check(&value).is_ok());
        assert!(matches!(
            vault(2).check(&value),
            Err(StoreError::MasterKey(_))
        ));
    }

    #[test]
    fn a_key_file_is_private_and_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        assert!(MasterKey::read(&path).unwrap().is_none());
        let first = MasterKey::create(&path, &Entropy::system()).unwrap();
        let second = MasterKey::create(&path, &Entropy::system()).unwrap();
        assert_eq!(first.0.expose_secret(), second.0.expose_secret());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no draft is left"
        );
    }

    #[test]
    fn a_bad_key_is_refused_without_being_repeated() {
        let error = MasterKey::parse("c2hvcnQtYW5kLXNlY3JldA==").unwrap_err();
        assert!(!error.to_string().contains("c2hv"));
    }
}
