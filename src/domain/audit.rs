//! The audit log: who did what, from where (product.md §5).

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::api_key::ApiKey;
use super::ids::{ApiKeyId, AuditId, WorkspaceId, created_at};
use super::payload::timestamp;
use super::subscription::{FieldError, Subscription};

/// The name of [`Actor::CommandLine`].
const COMMAND_LINE: &str = "cli";

/// The name of [`Actor::Program`].
const PROGRAM: &str = "program";

/// Who acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A client of the API.
    Key(ApiKeyId),
    /// An operator, with the program itself.
    CommandLine,
    /// This program, by itself: it disables subscriptions.
    Program,
}

/// The name in the database and the API: the key's id, `cli`, or `program`.
impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(id) => id.fmt(f),
            Self::CommandLine => f.write_str(COMMAND_LINE),
            Self::Program => f.write_str(PROGRAM),
        }
    }
}

impl FromStr for Actor {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            COMMAND_LINE => Ok(Self::CommandLine),
            PROGRAM => Ok(Self::Program),
            _ => text.parse().map(Self::Key).map_err(|_| {
                FieldError::new("actor", "must be the id of a key, `cli`, or `program`")
            }),
        }
    }
}

/// The circumstances of an administrative act. What was done, and to what, the store adds in the
/// transaction that does it.
#[derive(Clone, Debug)]
pub struct Act {
    /// The entry's id.
    pub id: AuditId,
    /// Who.
    pub actor: Actor,
    /// From where; `None` on the command line.
    pub address: Option<IpAddr>,
    /// The request that asked for it.
    pub request_id: Option<String>,
}

impl Act {
    /// What an operator does with the program itself.
    pub fn on_command_line(id: AuditId) -> Self {
        Self {
            id,
            actor: Actor::CommandLine,
            address: None,
            request_id: None,
        }
    }

    /// What this program does by itself.
    pub fn by_program(id: AuditId) -> Self {
        Self {
            actor: Actor::Program,
            ..Self::on_command_line(id)
        }
    }

    /// The entry about something that was made.
    pub fn made(&self, action: Action, thing: &impl Audited) -> AuditEntry {
        AuditEntry {
            after: Some(thing.state()),
            ..self.on(action, thing)
        }
    }

    /// The entry about something that was changed.
    pub fn changed<T: Audited>(&self, action: Action, before: &T, after: &T) -> AuditEntry {
        AuditEntry {
            before: Some(before.state()),
            after: Some(after.state()),
            ..self.on(action, after)
        }
    }

    /// The entry about something that is no more.
    pub fn ended(&self, action: Action, thing: &impl Audited) -> AuditEntry {
        AuditEntry {
            before: Some(thing.state()),
            ..self.on(action, thing)
        }
    }

    fn on(&self, action: Action, thing: &impl Audited) -> AuditEntry {
        AuditEntry {
            workspace: thing.workspace().clone(),
            id: self.id,
            actor: self.actor,
            action,
            object: Some(thing.object()),
            address: self.address,
            request_id: self.request_id.clone(),
            request: None,
            before: None,
            after: None,
        }
    }
}

/// What was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// An API key was made.
    KeyCreated,
    /// An API key was taken back.
    KeyRevoked,
    /// A subscription was registered.
    SubscriptionCreated,
    /// A subscription was changed.
    SubscriptionUpdated,
    /// A subscription was given a new secret.
    SecretRotated,
    /// A subscription was deleted.
    SubscriptionDeleted,
    /// A delivery was replayed.
    DeliveryReplayed,
    /// A replay of many deliveries was begun.
    ReplayCreated,
    /// A replay of many deliveries was ended early.
    ReplayCancelled,
    /// A key was used.
    Request,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::KeyCreated,
        Self::KeyRevoked,
        Self::SubscriptionCreated,
        Self::SubscriptionUpdated,
        Self::SecretRotated,
        Self::SubscriptionDeleted,
        Self::DeliveryReplayed,
        Self::ReplayCreated,
        Self::ReplayCancelled,
        Self::Request,
    ];

    /// The name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeyCreated => "api_key.created",
            Self::KeyRevoked => "api_key.revoked",
            Self::SubscriptionCreated => "subscription.created",
            Self::SubscriptionUpdated => "subscription.updated",
            Self::SecretRotated => "subscription.secret_rotated",
            Self::SubscriptionDeleted => "subscription.deleted",
            Self::DeliveryReplayed => "delivery.replayed",
            Self::ReplayCreated => "replay.created",
            Self::ReplayCancelled => "replay.cancelled",
            Self::Request => "request",
        }
    }
}

impl FromStr for Action {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|action| action.as_str() == text)
            .ok_or_else(|| {
                let names = Self::ALL.map(Self::as_str).join("`, `");
                FieldError::new("action", format!("must be one of `{names}`"))
            })
    }
}

/// One use of a key over HTTP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The route, as the documentation names it: no ids, no query.
    pub route: String,
    /// The answer's status; `None` where the client, or the program, was gone before it began.
    pub status: Option<u16>,
}

/// An entry, as it is written and read.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditEntry {
    /// The tenant.
    pub workspace: WorkspaceId,
    /// Its id; entries are listed by it.
    pub id: AuditId,
    /// Who.
    pub actor: Actor,
    /// What was done.
    pub action: Action,
    /// To what: an id, where there is one.
    pub object: Option<String>,
    /// From where.
    pub address: Option<IpAddr>,
    /// The request that asked for it.
    pub request_id: Option<String>,
    /// The use, for [`Action::Request`].
    pub request: Option<Request>,
    /// What the object was, without secrets.
    pub before: Option<Value>,
    /// What it is now, without secrets.
    pub after: Option<Value>,
}

impl AuditEntry {
    /// When. It is the id's own time: what a search by time finds is what it shows.
    pub fn at(&self) -> DateTime<Utc> {
        created_at(self.id.uuid())
    }

    /// The key that was used, if it was one.
    pub fn key(&self) -> Option<ApiKeyId> {
        match self.actor {
            Actor::Key(id) => Some(id),
            Actor::CommandLine | Actor::Program => None,
        }
    }
}

/// A thing whose changes are audited.
pub trait Audited {
    /// The tenant.
    fn workspace(&self) -> &WorkspaceId;
    /// Its id.
    fn object(&self) -> String;
    /// What it is, without secrets.
    fn state(&self) -> Value;
}

impl Audited for Subscription {
    fn workspace(&self) -> &WorkspaceId {
        &self.workspace
    }

    fn object(&self) -> String {
        self.id.to_string()
    }

    fn state(&self) -> Value {
        let spec = &self.spec;
        json!({
            "url": spec.url.to_string(),
            "description": spec.description,
            "event_types": spec.event_types,
            "project_ids": spec.project_ids,
            "format": spec.format.as_str(),
            "headers": spec.headers.names().collect::<Vec<_>>(),
            "max_concurrency": spec.max_concurrency,
            "rate_limit": spec.rate_limit,
            "retry_schedule": spec.retry_schedule.as_ref().map(|schedule| {
                schedule.delays().iter().map(std::time::Duration::as_secs).collect::<Vec<_>>()
            }),
            "ordering": spec.ordering.as_str(),
            "status": self.status.as_str(),
            "disabled_reason": self.status.reason(),
            "version": self.version,
        })
    }
}

impl Audited for ApiKey {
    fn workspace(&self) -> &WorkspaceId {
        &self.workspace
    }

    fn object(&self) -> String {
        self.id.to_string()
    }

    fn state(&self) -> Value {
        json!({
            "name": self.spec.name,
            "scopes": self.spec.scopes,
            "project_ids": self.spec.project_ids,
            "expires_at": self.spec.expires_at.map(timestamp),
            "limits": self.spec.limits,
            "revoked_at": self.revoked_at.map(timestamp),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ids::new_id;
    use super::*;

    #[test]
    fn every_action_is_read_by_its_name() {
        for action in Action::ALL {
            assert_eq!(action.as_str().parse(), Ok(action));
        }
        assert_eq!("x".parse::<Action>().unwrap_err().field, "action");
    }

    #[test]
    fn an_actor_is_read_by_its_name() {
        let key = Actor::Key(new_id(DateTime::UNIX_EPOCH, [1; 10]));
        for actor in [key, Actor::CommandLine] {
            assert_eq!(actor.to_string().parse(), Ok(actor));
        }
        for wrong in ["", "CLI", "sub_01h455vb4pex5vsknk084sn02q"] {
            assert_eq!(wrong.parse::<Actor>().unwrap_err().field, "actor");
        }
    }
}
