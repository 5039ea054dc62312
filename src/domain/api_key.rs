//! API keys: what one may do, and the text that its holder shows.
//!
//! The text is `rfk_` + public id + `_` + 160 random bits + checksum, in lower-case letters and
//! digits: a double click selects it, a scanner finds it by `rfk_[0-9a-z]{26}_[0-9a-f]{48}`, and a
//! typing mistake is told from a wrong key without a look at the database (product.md §5).

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Utc};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::ids::{ApiKeyId, ProjectId, WorkspaceId};
use super::rate::RateLimits;
use super::reach::Reach;
use super::subscription::FieldError;

/// What every key begins with.
pub const PREFIX: &str = "rfk_";

/// Random bytes in a key.
pub const SECRET_BYTES: usize = 20;

/// The longest name, in characters.
pub const MAX_NAME_CHARS: usize = 100;

/// The most projects that one key may name.
pub const MAX_PROJECTS: usize = 100;

/// The last year that a timestamp with a year of four digits can name (RFC 3339).
const LAST_YEAR: i32 = 9_999;

const ID_PREFIX: &str = "key_";
const SECRET_DIGITS: usize = 2 * SECRET_BYTES;
const CHECKSUM_BYTES: usize = 4;

/// What a key may do (product.md §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Scope {
    /// Read editions, and the events that tell of them.
    #[serde(rename = "read:editions")]
    ReadEditions,
    /// Create, fill and submit editions.
    #[serde(rename = "write:editions")]
    WriteEditions,
    /// Read blueprints.
    #[serde(rename = "read:blueprints")]
    ReadBlueprints,
    /// Read and download outputs.
    #[serde(rename = "read:outputs")]
    ReadOutputs,
    /// Generate outputs.
    #[serde(rename = "write:outputs")]
    WriteOutputs,
    /// Read the workspace and its projects.
    #[serde(rename = "read:workspace")]
    ReadWorkspace,
    /// Read subscriptions and deliveries.
    #[serde(rename = "read:webhooks")]
    ReadWebhooks,
    /// Change subscriptions, replay deliveries.
    #[serde(rename = "write:webhooks")]
    WriteWebhooks,
    /// Everything.
    #[serde(rename = "admin")]
    Admin,
}

impl Scope {
    /// All of them, in the order of the documentation.
    pub const ALL: [Self; 9] = [
        Self::ReadEditions,
        Self::WriteEditions,
        Self::ReadBlueprints,
        Self::ReadOutputs,
        Self::WriteOutputs,
        Self::ReadWorkspace,
        Self::ReadWebhooks,
        Self::WriteWebhooks,
        Self::Admin,
    ];

    /// The name in the database, the API and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadEditions => "read:editions",
            Self::WriteEditions => "write:editions",
            Self::ReadBlueprints => "read:blueprints",
            Self::ReadOutputs => "read:outputs",
            Self::WriteOutputs => "write:outputs",
            Self::ReadWorkspace => "read:workspace",
            Self::ReadWebhooks => "read:webhooks",
            Self::WriteWebhooks => "write:webhooks",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| {
                let names = Self::ALL.map(Self::as_str).join("`, `");
                FieldError::new("scopes", format!("`{text}` is none of `{names}`"))
            })
    }
}

/// How much a key may ask for; `None` is the deployment's own limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyLimits {
    /// Requests in 60 s.
    pub per_minute: Option<NonZeroU32>,
    /// Requests in 3,600 s.
    pub per_hour: Option<NonZeroU32>,
    /// Requests at once, in each replica.
    pub concurrent: Option<NonZeroU32>,
}

impl KeyLimits {
    /// What is in force: its own, or else the deployment's.
    pub fn rate(&self, defaults: RateLimits) -> RateLimits {
        let of = |own: Option<NonZeroU32>, default| own.map_or(default, NonZeroU32::get);
        RateLimits {
            per_minute: of(self.per_minute, defaults.per_minute),
            per_hour: of(self.per_hour, defaults.per_hour),
        }
    }
}

/// What is asked for when a key is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeySpec {
    /// A name for people.
    pub name: String,
    /// What it may do; at least one.
    pub scopes: BTreeSet<Scope>,
    /// Only these projects; `None` means the whole workspace.
    pub project_ids: Option<Vec<ProjectId>>,
    /// When it ends, in whole milliseconds; `None` is never.
    pub expires_at: Option<DateTime<Utc>>,
    /// Its own limits.
    pub limits: KeyLimits,
}

impl ApiKeySpec {
    /// Checks what the types cannot say.
    pub fn check(&self, now: DateTime<Utc>) -> Result<(), FieldError> {
        let wrong = |field, reason: &str| Err(FieldError::new(field, reason));
        if self.name.trim().is_empty() || self.name.chars().count() > MAX_NAME_CHARS {
            return wrong("name", "must be 1 to 100 characters, and not only blanks");
        }
        if self.name.chars().any(char::is_control) {
            return wrong("name", "must not hold control characters");
        }
        if self.scopes.is_empty() {
            return wrong("scopes", "must name at least one scope");
        }
        match &self.project_ids {
            Some(projects) if projects.is_empty() => {
                return wrong(
                    "project_ids",
                    "must name at least one project, or be left out",
                );
            }
            Some(projects) if projects.len() > MAX_PROJECTS => {
                return wrong("project_ids", "must name at most 100 projects");
            }
            _ => {}
        }
        if self.expires_at.is_some_and(|end| end <= now) {
            return wrong("expires_at", "must be in the future");
        }
        if self.expires_at.is_some_and(|end| end.year() > LAST_YEAR) {
            return wrong("expires_at", "must be before the year 10000");
        }
        Ok(())
    }
}

/// Whether a key is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyStatus {
    /// It is.
    Active,
    /// Its time is over.
    Expired,
    /// Somebody took it back.
    Revoked,
}

impl KeyStatus {
    /// The name in the API and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

/// A key as it is kept: everything but its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its public id.
    pub id: ApiKeyId,
    /// The tenant it belongs to.
    pub workspace: WorkspaceId,
    /// What was asked for.
    pub spec: ApiKeySpec,
    /// Who made it.
    pub created_by: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was taken back.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was used last, as far as the audit log has been written.
    pub last_used_at: Option<DateTime<Utc>>,
}

impl ApiKey {
    /// Whether it is taken at this instant.
    pub fn status(&self, now: DateTime<Utc>) -> KeyStatus {
        if self.revoked_at.is_some() {
            KeyStatus::Revoked
        } else if self.spec.expires_at.is_some_and(|end| end <= now) {
            KeyStatus::Expired
        } else {
            KeyStatus::Active
        }
    }

    /// Whether it may do what needs this scope.
    pub fn may(&self, scope: Scope) -> bool {
        self.spec.scopes.contains(&scope) || self.spec.scopes.contains(&Scope::Admin)
    }

    /// What of the workspace it may see.
    pub fn reach(&self) -> Reach {
        Reach {
            workspace: self.workspace.clone(),
            projects: self.spec.project_ids.clone(),
        }
    }
}

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

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ok = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
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

    fn spec() -> ApiKeySpec {
        ApiKeySpec {
            name: "ERP".to_owned(),
            scopes: BTreeSet::from([Scope::ReadEditions]),
            project_ids: None,
            expires_at: None,
            limits: KeyLimits::default(),
        }
    }

    #[test]
    fn what_is_asked_for_is_checked_field_by_field() {
        let now = DateTime::from_timestamp(1_777_000_000, 0).unwrap();
        let project = ProjectId::new("pr_1").unwrap();
        let asked = |change: &dyn Fn(&mut ApiKeySpec)| {
            let mut spec = spec();
            change(&mut spec);
            spec.check(now).map_err(|error| error.field)
        };
        assert_eq!(asked(&|_| {}), Ok(()));
        for name in ["", "  ", "a\u{1b}b", &"x".repeat(101), &" ".repeat(101)] {
            assert_eq!(asked(&|spec| spec.name = name.to_owned()), Err("name"));
        }
        assert_eq!(asked(&|spec| spec.name = "é".repeat(100)), Ok(()));
        assert_eq!(asked(&|spec| spec.scopes.clear()), Err("scopes"));
        for (count, expected) in [
            (0, Err("project_ids")),
            (100, Ok(())),
            (101, Err("project_ids")),
        ] {
            let projects = vec![project.clone(); count];
            let asked = asked(&|spec| spec.project_ids = Some(projects.clone()));
            assert_eq!(asked, expected, "{count}");
        }
        for (end, expected) in [
            (now, Err("expires_at")),
            (now + chrono::Duration::milliseconds(1), Ok(())),
            (DateTime::<Utc>::MAX_UTC, Err("expires_at")),
        ] {
            let asked = asked(&|spec| spec.expires_at = Some(end));
            assert_eq!(asked, expected, "{end}");
        }
    }

    #[test]
    fn a_keys_own_limits_go_before_the_deployments() {
        let defaults = RateLimits {
            per_minute: 60,
            per_hour: 1_000,
        };
        let own = KeyLimits {
            per_minute: NonZeroU32::new(5),
            ..KeyLimits::default()
        };
        assert_eq!(KeyLimits::default().rate(defaults), defaults);
        let per_minute = 5;
        assert_eq!(
            own.rate(defaults),
            RateLimits {
                per_minute,
                ..defaults
            }
        );
    }

    #[test]
    fn a_key_is_taken_until_it_ends_or_is_taken_back() {
        let now = DateTime::from_timestamp(1_777_000_000, 0).unwrap();
        let second = chrono::Duration::seconds(1);
        let mut key = ApiKey {
            id: text().id(),
            workspace: WorkspaceId::default(),
            spec: spec(),
            created_by: "cli".to_owned(),
            created_at: now,
            revoked_at: None,
            last_used_at: None,
        };
        assert_eq!(key.status(now), KeyStatus::Active);
        key.spec.expires_at = Some(now + second);
        assert_eq!(key.status(now), KeyStatus::Active);
        assert_eq!(key.status(now + second), KeyStatus::Expired);
        key.revoked_at = Some(now);
        assert_eq!(key.status(now + second), KeyStatus::Revoked);
        assert!(key.may(Scope::ReadEditions) && !key.may(Scope::WriteEditions));
        key.spec.scopes = BTreeSet::from([Scope::Admin]);
        assert!(Scope::ALL.into_iter().all(|scope| key.may(scope)));
    }

    #[test]
    fn every_scope_is_read_by_its_name_and_serialised_under_it() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse::<Scope>().unwrap(), scope);
            assert_eq!(serde_json::to_value(scope).unwrap(), scope.as_str());
        }
        assert_eq!("root".parse::<Scope>().unwrap_err().field, "scopes");
    }
}
