//! The audit log.

use std::net::IpAddr;

use async_trait::async_trait;
use serde_json::Value;
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

use super::errors::{from_sqlx, reading, retrying};
use super::rows::{limit, parse};
use super::{PostgresStore, Result, StoreError, commit};
use crate::domain::audit::{Action, AuditEntry, Request};
use crate::domain::ids::{AuditId, WorkspaceId, first_at};
use crate::store::access::{address_text, kept_status, last_uses, read_status};
use crate::store::{Audit, AuditFilter, Page, PageRequest};

#[async_trait]
impl Audit for PostgresStore {
    async fn append_audit(&self, entries: &[AuditEntry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        retrying(|| self.append_once(entries)).await
    }

    async fn audit_log(
        &self,
        workspace: &WorkspaceId,
        filter: &AuditFilter,
        page: PageRequest<AuditId>,
    ) -> Result<Page<AuditEntry, AuditId>> {
        // The list goes down: what bounds it from above is its beginning.
        let until = filter.until.map(first_at);
        let after = page.after.map(|id| id.uuid());
        let rows: Vec<AuditRow> = reading(async {
            sqlx::query_as(
                "-- postgres::audit::audit_log
                select
                    workspace, id, actor, action, object, address, request_id, method, route,
                    status, before, after
                from audit_log
                where workspace = $1
                  and ($2::text is null or actor = $2)
                  and ($3::text is null or action = $3)
                  and ($4::text is null or address = $4)
                  and ($5::uuid is null or id >= $5)
                  and ($6::uuid is null or id < $6)
                order by id desc
                limit $7",
            )
            .bind(workspace.as_str())
            .bind(filter.actor.map(|actor| actor.to_string()))
            .bind(filter.action.map(Action::as_str))
            .bind(filter.address.map(address_text))
            .bind(filter.since.map(first_at))
            .bind([until, after].into_iter().flatten().min())
            .bind(limit(page.limit.saturating_add(1)))
            .fetch_all(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        let items = rows
            .into_iter()
            .map(AuditRow::into_entry)
            .collect::<Result<_>>()?;
        Ok(Page::of(items, page.limit, |entry: &AuditEntry| entry.id))
    }
}

impl PostgresStore {
    async fn append_once(&self, entries: &[AuditEntry]) -> Result<()> {
        let mut tx = self.begin().await?;
        append(&mut tx, entries).await?;
        raise_last_uses(&mut tx, entries).await?;
        commit(tx).await
    }
}

/// Writes the entry of an act, in the act's own transaction.
pub(super) async fn tell(connection: &mut PgConnection, entry: AuditEntry) -> Result<()> {
    match append(connection, &[entry]).await? {
        1 => Ok(()),
        _ => Err(StoreError::AlreadyExists),
    }
}

/// Writes entries; those that are there already stay as they are. Answers how many are new.
async fn append(connection: &mut PgConnection, entries: &[AuditEntry]) -> Result<u64> {
    fn all<'a, T>(entries: &'a [AuditEntry], column: impl Fn(&'a AuditEntry) -> T) -> Vec<T> {
        entries.iter().map(column).collect()
    }
    let written = sqlx::query(
        "-- postgres::audit::append
        insert into audit_log (
            workspace, id, at, actor, action, object, address, request_id, method, route, status,
            before, after
        )
        select
            workspace, id, at, actor, action, object, address, request_id, method, route, status,
            before, after
        from unnest(
            $1::text[], $2::uuid[], $3::timestamptz[], $4::text[], $5::text[], $6::text[],
            $7::text[], $8::text[], $9::text[], $10::text[], $11::integer[], $12::text[],
            $13::text[]
        ) as fresh (
            workspace, id, at, actor, action, object, address, request_id, method, route, status,
            before, after
        )
        on conflict on constraint audit_log_pk do nothing",
    )
    .bind(all(entries, |entry| entry.workspace.as_str()))
    .bind(all(entries, |entry| entry.id.uuid()))
    .bind(all(entries, AuditEntry::at))
    .bind(all(entries, |entry| entry.actor.to_string()))
    .bind(all(entries, |entry| entry.action.as_str()))
    .bind(all(entries, |entry| entry.object.as_deref()))
    .bind(all(entries, |entry| entry.address.map(address_text)))
    .bind(all(entries, |entry| entry.request_id.as_deref()))
    .bind(all(entries, |entry| {
        Some(entry.request.as_ref()?.method.as_str())
    }))
    .bind(all(entries, |entry| {
        Some(entry.request.as_ref()?.route.as_str())
    }))
    .bind(all(entries, |entry| {
        Some(kept_status(entry.request.as_ref()?))
    }))
    .bind(all(entries, |entry| {
        entry.before.as_ref().map(Value::to_string)
    }))
    .bind(all(entries, |entry| {
        entry.after.as_ref().map(Value::to_string)
    }))
    .execute(connection)
    .await
    .map_err(from_sqlx)?;
    Ok(written.rows_affected())
}

/// Raises the time of the last use of the keys that were used; it never falls. Rows are locked in
/// the order of their ids, which is that of the list, so that two replicas do not wait for each other.
async fn raise_last_uses(connection: &mut PgConnection, entries: &[AuditEntry]) -> Result<()> {
    let uses = last_uses(entries);
    if uses.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = uses.iter().map(|used| used.key.uuid()).collect();
    let workspaces: Vec<&str> = uses.iter().map(|used| used.workspace.as_str()).collect();
    let times: Vec<_> = uses.iter().map(|used| used.at).collect();
    sqlx::query(
        "-- postgres::audit::raise_last_uses
        with used as (
            select key.id, used.at
            from unnest($1::uuid[], $2::text[], $3::timestamptz[]) as used (id, workspace, at)
            join api_key key on key.id = used.id and key.workspace = used.workspace
            where key.last_used_at is null or key.last_used_at < used.at
            order by key.id
            for no key update of key
        )
        update api_key
        set last_used_at = greatest(api_key.last_used_at, used.at)
        from used
        where api_key.id = used.id",
    )
    .bind(ids)
    .bind(workspaces)
    .bind(times)
    .execute(connection)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

#[derive(FromRow)]
struct AuditRow {
    workspace: String,
    id: Uuid,
    actor: String,
    action: String,
    object: Option<String>,
    address: Option<String>,
    request_id: Option<String>,
    method: Option<String>,
    route: Option<String>,
    status: Option<i32>,
    before: Option<String>,
    after: Option<String>,
}

impl AuditRow {
    fn into_entry(self) -> Result<AuditEntry> {
        let request = match (self.method, self.route, self.status) {
            (Some(method), Some(route), Some(status)) => Some(Request {
                method,
                route,
                status: read_status(status)?,
            }),
            _ => None,
        };
        let state = |column, text: Option<String>| -> Result<Option<Value>> {
            text.map(|text| parse(column, &text)).transpose()
        };
        Ok(AuditEntry {
            workspace: parse("audit_log.workspace", &self.workspace)?,
            id: AuditId::from_uuid(self.id),
            actor: parse("audit_log.actor", &self.actor)?,
            action: parse("audit_log.action", &self.action)?,
            object: self.object,
            address: self
                .address
                .map(|text| parse::<IpAddr>("audit_log.address", &text))
                .transpose()?,
            request_id: self.request_id,
            request,
            before: state("audit_log.before", self.before)?,
            after: state("audit_log.after", self.after)?,
        })
    }
}
