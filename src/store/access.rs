//! API keys and the audit log.

use std::net::IpAddr;

use async_trait::async_trait;
use chrono::{DateTime, SubsecRound, Utc};

use super::{Creation, Idempotency, Page, PageRequest, Result, StoreError};
use crate::domain::api_key::{ApiKey, ApiKeySpec};
use crate::domain::audit::{Act, Action, Actor, AuditEntry, Request};
use crate::domain::ids::{ApiKeyId, AuditId, WorkspaceId};
use crate::domain::key_text::KeyDigest;
use crate::domain::rate::{RateLimits, RateUsage};

/// What is needed to make a key.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    /// Its id, made by the caller with its text.
    pub id: ApiKeyId,
    /// The tenant.
    pub workspace: WorkspaceId,
    /// What is asked for, checked by the caller.
    pub spec: ApiKeySpec,
    /// What is kept of its text.
    pub digest: KeyDigest,
}

impl NewApiKey {
    /// When it ends, as both databases keep it. Cut and not rounded: no key lives longer than was
    /// asked for.
    pub(super) fn expires_at(&self) -> Option<DateTime<Utc>> {
        self.spec.expires_at.map(|end| end.trunc_subsecs(3))
    }
}

/// A key that was shown and is valid.
#[derive(Clone, Debug)]
pub struct Admitted {
    /// Whose request it is.
    pub key: ApiKey,
    /// What it has asked for, this request included where it was let through.
    pub usage: RateUsage,
    /// Whether this request is within the limits.
    pub allowed: bool,
    /// When it was judged, by the clock that the windows are told by.
    pub at: DateTime<Utc>,
}

/// API keys. The methods that name a workspace see that one only.
#[async_trait]
pub trait ApiKeys: Send + Sync {
    /// Makes a key, valid from the commit on, and tells the audit log; with `once`, unless an earlier
    /// call did.
    async fn create_api_key(
        &self,
        new: &NewApiKey,
        act: &Act,
        once: Option<&Idempotency>,
    ) -> Result<Creation<ApiKey>>;

    /// All of them, newest first, those too that ended or were taken back.
    async fn api_keys(
        &self,
        workspace: &WorkspaceId,
        page: PageRequest<ApiKeyId>,
    ) -> Result<Page<ApiKey, ApiKeyId>>;

    /// Whether there is any key, of any workspace: what a start asks, to say how to make the first.
    async fn has_api_keys(&self) -> Result<bool>;

    /// One key; `None` if there is none of that id in the workspace.
    async fn api_key(&self, workspace: &WorkspaceId, id: ApiKeyId) -> Result<Option<ApiKey>>;

    /// Takes a key back, for good, and tells the audit log. One that was taken back already is
    /// answered as it is: nothing changes, and nothing is told. `None` if there is none.
    async fn revoke_api_key(
        &self,
        workspace: &WorkspaceId,
        id: ApiKeyId,
        act: &Act,
    ) -> Result<Option<ApiKey>>;

    /// Judges a request by the key it shows, and counts it. `None` if there is no such key, if the
    /// digest is another, or if it ended or was taken back: that counts for nothing. The key is read
    /// from the database every time, so what another replica did holds at once. The workspace is no
    /// parameter since it is the key that says which one.
    ///
    /// The limits are the key's own, or else `defaults`. A request over them does not count. On
    /// Postgres all replicas count together, by the database's clock; on `SQLite`, which one process
    /// serves, each store counts for itself and begins at nothing.
    async fn admit(
        &self,
        id: ApiKeyId,
        digest: &KeyDigest,
        defaults: RateLimits,
    ) -> Result<Option<Admitted>>;

    /// Takes back what [`ApiKeys::admit`] counted for a request that was then refused for another
    /// reason. `usage` is what that said: a window that has ended since is left alone.
    async fn give_back(&self, id: ApiKeyId, usage: RateUsage) -> Result<()>;
}

/// Which entries a list shows.
#[derive(Clone, Copy, Debug, Default)]
pub struct AuditFilter {
    /// Of this actor only.
    pub actor: Option<Actor>,
    /// From this address only.
    pub address: Option<IpAddr>,
    /// From this instant on.
    pub since: Option<DateTime<Utc>>,
    /// Before this instant.
    pub until: Option<DateTime<Utc>>,
    /// This action only.
    pub action: Option<Action>,
}

/// The audit log. Administrative acts are written by the transactions that do them.
#[async_trait]
pub trait Audit: Send + Sync {
    /// Writes a batch of entries, in one transaction, and raises the time of the last use of the keys
    /// that were used. Coming again with the same entries after an ambiguous failure is safe.
    async fn append_audit(&self, entries: &[AuditEntry]) -> Result<()>;

    /// Entries of a workspace, newest first.
    async fn audit_log(
        &self,
        workspace: &WorkspaceId,
        filter: &AuditFilter,
        page: PageRequest<AuditId>,
    ) -> Result<Page<AuditEntry, AuditId>>;
}

/// An address as it is kept: one spelling each, IPv4 as itself also where it came over IPv6.
pub(super) fn address_text(address: IpAddr) -> String {
    address.to_canonical().to_string()
}

/// What stands in the status of a use whose answer never began: the tables want a number there.
const NO_ANSWER: u16 = 0;

/// The status of a use, as it is kept.
pub(super) fn kept_status(request: &Request) -> i32 {
    request.status.unwrap_or(NO_ANSWER).into()
}

/// The status of a use, as it was kept.
pub(super) fn read_status(kept: i32) -> Result<Option<u16>> {
    let status = u16::try_from(kept).map_err(StoreError::corrupt)?;
    Ok((status != NO_ANSWER).then_some(status))
}

/// When each key of a batch was used last, in the order of the keys, which all writers keep.
pub(super) fn last_uses(entries: &[AuditEntry]) -> Vec<LastUse<'_>> {
    let mut uses: Vec<LastUse<'_>> = entries
        .iter()
        .filter_map(|entry| {
            Some(LastUse {
                key: entry.key()?,
                workspace: &entry.workspace,
                at: entry.at(),
            })
        })
        .collect();
    // The latest of each key first, and only that one stays.
    uses.sort_by_key(|used| (used.key, std::cmp::Reverse(used.at)));
    uses.dedup_by_key(|used| used.key);
    uses
}

/// When a key was used last.
pub(super) struct LastUse<'a> {
    pub(super) key: ApiKeyId,
    pub(super) workspace: &'a WorkspaceId,
    pub(super) at: DateTime<Utc>,
}
