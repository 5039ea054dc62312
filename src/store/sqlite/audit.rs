//! The audit log.

use std::net::IpAddr;

use async_trait::async_trait;
use serde_json::Value;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

use super::SqliteStore;
use super::bulk::{self, Bulk};
use super::error::store_error;
use super::rows::{count, get, id, millis, optional_parsed, parsed};
use crate::domain::audit::{Action, AuditEntry, Request};
use crate::domain::ids::{AuditId, WorkspaceId, first_at};
use crate::store::access::{address_text, kept_status, last_uses, read_status};
use crate::store::{Audit, AuditFilter, Page, PageRequest, Result, StoreError};

#[async_trait]
impl Audit for SqliteStore {
    async fn append_audit(&self, entries: &[AuditEntry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut transaction = self.write().await?;
        append(&mut transaction, entries).await?;
        raise_last_uses(&mut transaction, entries).await?;
        self.commit(transaction).await
    }

    async fn audit_log(
        &self,
        workspace: &WorkspaceId,
        filter: &AuditFilter,
        page: PageRequest<AuditId>,
    ) -> Result<Page<AuditEntry, AuditId>> {
        let rows = select(workspace, filter, page)
            .build()
            .fetch_all(&self.readers)
            .await
            .map_err(store_error)?;
        let items = rows.iter().map(from_row).collect::<Result<_>>()?;
        Ok(Page::of(items, page.limit, |entry: &AuditEntry| entry.id))
    }
}

/// Writes the entry of an act, in the act's own transaction.
pub(super) async fn tell(transaction: &mut SqliteConnection, entry: AuditEntry) -> Result<()> {
    match append(transaction, &[entry]).await? {
        1 => Ok(()),
        _ => Err(StoreError::AlreadyExists),
    }
}

/// Writes entries; those that are there already stay as they are. Answers how many are new.
async fn append(transaction: &mut SqliteConnection, entries: &[AuditEntry]) -> Result<usize> {
    static INSERT: Bulk = Bulk::new(
        "-- sqlite::audit::append
        with fresh (workspace, id, at, actor, action, object, address, request_id, method, route,
            status, before, after) as (values ",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ")
        insert or fail into audit_log (workspace, id, at, actor, action, object, address,
            request_id, method, route, status, before, after)
        select workspace, id, at, actor, action, object, address, request_id, method, route,
            status, before, after
        from fresh
        where id is not null
        on conflict (workspace, id) do nothing",
    );
    let statements = INSERT.statements(
        entries,
        |statement, entry| {
            let request = entry.request.as_ref();
            statement
                .bind(entry.workspace.as_str())
                .bind(entry.id.uuid())
                .bind(millis(entry.at()))
                .bind(entry.actor.to_string())
                .bind(entry.action.as_str())
                .bind(entry.object.as_deref())
                .bind(entry.address.map(address_text))
                .bind(entry.request_id.as_deref())
                .bind(request.map(|request| request.method.as_str()))
                .bind(request.map(|request| request.route.as_str()))
                .bind(request.map(kept_status))
                .bind(entry.before.as_ref().map(Value::to_string))
                .bind(entry.after.as_ref().map(Value::to_string))
        },
        |statement| statement,
    );
    bulk::execute(transaction, statements).await
}

/// Raises the time of the last use of the keys that were used; it never falls.
async fn raise_last_uses(transaction: &mut SqliteConnection, entries: &[AuditEntry]) -> Result<()> {
    static UPDATE: Bulk = Bulk::new(
        "-- sqlite::audit::raise_last_uses
        with used (id, workspace, at) as (values ",
        "(?, ?, ?)",
        ")
        update api_key
        set last_used_at = used.at
        from used
        where api_key.id = used.id and api_key.workspace = used.workspace
            and (api_key.last_used_at is null or api_key.last_used_at < used.at)",
    );
    let uses = last_uses(entries);
    let statements = UPDATE.statements(
        &uses,
        |statement, used| {
            statement
                .bind(used.key.uuid())
                .bind(used.workspace.as_str())
                .bind(millis(used.at))
        },
        |statement| statement,
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}

/// One page. A condition that is not asked for is left out, so that those that are find their index.
fn select(
    workspace: &WorkspaceId,
    filter: &AuditFilter,
    page: PageRequest<AuditId>,
) -> QueryBuilder<Sqlite> {
    let mut select = QueryBuilder::<Sqlite>::new(
        "-- sqlite::audit::select
        select workspace, id, actor, action, object, address, request_id, method, route, status,
            before, after
        from audit_log
        where workspace = ",
    );
    select.push_bind(workspace.as_str().to_owned());
    if let Some(actor) = filter.actor {
        select.push(" and actor = ").push_bind(actor.to_string());
    }
    if let Some(action) = filter.action {
        select.push(" and action = ").push_bind(action.as_str());
        if action != Action::Request {
            // In the words of the index on acts, so that it is found.
            select.push(" and action <> 'request'");
        }
    }
    if let Some(address) = filter.address {
        select
            .push(" and address = ")
            .push_bind(address_text(address));
    }
    if let Some(since) = filter.since {
        select.push(" and id >= ").push_bind(first_at(since));
    }
    // The list goes down: what bounds it from above is its beginning.
    let until = filter.until.map(first_at);
    let after = page.after.map(|id| id.uuid());
    if let Some(below) = [until, after].into_iter().flatten().min() {
        select.push(" and id < ").push_bind(below);
    }
    select
        .push(" order by id desc limit ")
        .push_bind(count(page.limit.saturating_add(1)));
    select
}

fn from_row(row: &SqliteRow) -> Result<AuditEntry> {
    let request = match get::<Option<String>>(row, "method")? {
        Some(method) => Some(Request {
            method,
            route: get(row, "route")?,
            status: read_status(get(row, "status")?)?,
        }),
        None => None,
    };
    Ok(AuditEntry {
        workspace: parsed(row, "workspace")?,
        id: id(row, "id")?,
        actor: parsed(row, "actor")?,
        action: parsed(row, "action")?,
        object: get(row, "object")?,
        address: optional_parsed::<IpAddr>(row, "address")?,
        request_id: get(row, "request_id")?,
        request,
        before: optional_parsed(row, "before")?,
        after: optional_parsed(row, "after")?,
    })
}
