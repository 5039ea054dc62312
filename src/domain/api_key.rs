//! API keys: what one may do. Its text is in [`super::key_text`].

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use chrono::{DateTime, Datelike, Utc};
use serde::{Deserialize, Serialize};

use super::ids::{ApiKeyId, ProjectId, WorkspaceId};
use super::rate::RateLimits;
use super::reach::Reach;
use super::subscription::FieldError;

/// The longest name, in characters.
pub const MAX_NAME_CHARS: usize = 100;

/// The most projects that one key may name.
pub const MAX_PROJECTS: usize = 100;

/// The last year that a timestamp with a year of four digits can name (RFC 3339).
const LAST_YEAR: i32 = 9_999;

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

#[cfg(test)]
mod tests {
    use super::super::ids::new_id;
    use super::*;

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
            id: new_id(now, [7; 10]),
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
