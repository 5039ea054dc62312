//! The caller of a request, as handlers see it.

use std::marker::PhantomData;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::api::problem_type::ProblemType;
use crate::api::{Api, Problem, Result};
use crate::domain::api_key::{ApiKey, Scope};
use crate::domain::audit::{Act, Actor};
use crate::domain::ids::{ApiKeyId, WorkspaceId};
use crate::domain::reach::Reach;

/// What a handler needs of its caller.
pub trait Need: Send + Sync + 'static {
    /// The scope (`admin` has them all).
    const SCOPE: Scope;
    /// Whether it belongs to the workspace as a whole: keys that are restricted to projects may not,
    /// whatever their scopes.
    const WHOLE_WORKSPACE: bool = false;
}

/// Keys and the audit log.
#[derive(Debug)]
pub struct Administer;

/// Subscriptions and deliveries, to look at.
#[derive(Debug)]
pub struct ReadWebhooks;

/// Subscriptions and deliveries, to change.
#[derive(Debug)]
pub struct WriteWebhooks;

/// Editions, and events: what they tell of is edition data.
#[derive(Debug)]
pub struct ReadEditions;

/// Editions, to make, fill and hand in.
#[derive(Debug)]
pub struct WriteEditions;

/// The workspace and its projects.
#[derive(Debug)]
pub struct ReadWorkspace;

/// Who belongs to the workspace.
#[derive(Debug)]
pub struct ReadMembers;

/// Blueprints.
#[derive(Debug)]
pub struct ReadBlueprints;

/// What editions are presented in.
#[derive(Debug)]
pub struct ReadOutputs;

/// What editions are presented in, to have it made.
#[derive(Debug)]
pub struct WriteOutputs;

impl Need for Administer {
    const SCOPE: Scope = Scope::Admin;
    const WHOLE_WORKSPACE: bool = true;
}

impl Need for ReadWebhooks {
    const SCOPE: Scope = Scope::ReadWebhooks;
}

impl Need for WriteWebhooks {
    const SCOPE: Scope = Scope::WriteWebhooks;
}

impl Need for ReadEditions {
    const SCOPE: Scope = Scope::ReadEditions;
}

impl Need for WriteEditions {
    const SCOPE: Scope = Scope::WriteEditions;
}

impl Need for ReadWorkspace {
    const SCOPE: Scope = Scope::ReadWorkspace;
}

impl Need for ReadMembers {
    const SCOPE: Scope = Scope::ReadWorkspace;
    const WHOLE_WORKSPACE: bool = true;
}

impl Need for ReadBlueprints {
    const SCOPE: Scope = Scope::ReadBlueprints;
}

impl Need for ReadOutputs {
    const SCOPE: Scope = Scope::ReadOutputs;
}

impl Need for WriteOutputs {
    const SCOPE: Scope = Scope::WriteOutputs;
}

/// Who asks: put into the request by [`super::admission`].
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) key: Arc<ApiKey>,
    pub(super) address: IpAddr,
    pub(super) request_id: String,
}

/// A caller that may do what needs `N`. A handler that takes none is one that anybody with a key may
/// call, which a test would find.
#[derive(Clone, Debug)]
pub struct Caller<N> {
    identity: Identity,
    need: PhantomData<N>,
}

impl<N: Need> Caller<N> {
    /// What of the workspace the caller sees.
    pub fn reach(&self) -> Reach {
        self.identity.key.reach()
    }

    /// The tenant.
    pub fn workspace(&self) -> &WorkspaceId {
        &self.identity.key.workspace
    }

    /// The key.
    pub fn key(&self) -> ApiKeyId {
        self.identity.key.id
    }

    /// Asks for one more scope, where what is asked for needs it.
    pub fn must_have(&self, scope: Scope) -> Result<()> {
        if self.identity.key.may(scope) {
            Ok(())
        } else {
            Err(Problem::insufficient_scope(scope))
        }
    }

    /// The circumstances of what the caller does, for the audit log.
    pub(in crate::api) fn act(&self, api: &Api) -> Act {
        Act {
            id: api.entropy().id(api.clock().now()),
            actor: Actor::Key(self.identity.key.id),
            address: Some(self.identity.address),
            request_id: Some(self.identity.request_id.clone()),
        }
    }
}

impl<S: Sync, N: Need> FromRequestParts<S> for Caller<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        // A route outside of the admitted ones has no caller: its handler is never reached.
        let identity = parts
            .extensions
            .get::<Identity>()
            .ok_or_else(|| Problem::unauthorized(false))?;
        if !identity.key.may(N::SCOPE) {
            return Err(Problem::insufficient_scope(N::SCOPE));
        }
        if N::WHOLE_WORKSPACE && identity.key.reach().is_restricted() {
            return Err(Problem::new(ProblemType::RestrictedKey));
        }
        Ok(Self {
            identity: identity.clone(),
            need: PhantomData,
        })
    }
}
