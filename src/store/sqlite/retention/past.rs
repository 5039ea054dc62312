//! What goes with an event: its deliveries and their attempts, and what is remembered of it.

use std::collections::HashSet;

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::super::bulk::{self, Bulk, Statement};
use super::super::rows::{count, get};
use crate::store::Result;
use crate::store::identity::{EventKey, key_of};
use crate::store::retention::{Kept, Old, Removed, Rest, Swept};

/// The most deliveries that go in one step, each with its attempts.
const MOST_DELIVERIES: usize = 500;

/// An event that is old, and what is needed of it.
pub(super) struct Past {
    pub(super) old: Old,
    pub(super) key: EventKey,
    pub(super) accepted_at: i64,
}

impl Past {
    pub(super) fn new(old: Old, source: &str, external_id: &str, accepted_at: i64) -> Self {
        Self {
            old,
            key: key_of(source, external_id),
            accepted_at,
        }
    }
}

/// Binds what a list of events holds: id, workspace, and the bounds of its deliveries' ids.
fn bind_old(statement: Statement, past: &Past) -> Statement {
    let (first, behind) = past.old.deliveries();
    statement
        .bind(past.old.id)
        .bind(past.old.workspace.clone())
        .bind(first)
        .bind(behind)
}

/// Those that no delivery is under way of.
pub(super) async fn settled<'p>(
    connection: &mut SqliteConnection,
    past: &[&'p Past],
) -> Result<Vec<&'p Past>> {
    static SELECT: Bulk = Bulk::new(
        "-- sqlite::retention::settled
        with old (id, workspace, first, behind) as (values ",
        "(?, ?, ?, ?)",
        ")
        select id
        from old
        where id is not null and exists (
            select 1
            from delivery_queue
            where delivery_queue.delivery_id >= old.first
                and delivery_queue.delivery_id < old.behind
                and delivery_queue.event_id = old.id
                and delivery_queue.workspace = old.workspace
        )",
    );
    without(connection, past, &SELECT).await
}

/// Those that have no history any more.
async fn bare<'p>(connection: &mut SqliteConnection, past: &[&'p Past]) -> Result<Vec<&'p Past>> {
    static SELECT: Bulk = Bulk::new(
        "-- sqlite::retention::bare
        with old (id, workspace, first, behind) as (values ",
        "(?, ?, ?, ?)",
        ")
        select id
        from old
        where id is not null and exists (
            select 1
            from delivery
            where delivery.workspace = old.workspace
                and delivery.id >= old.first
                and delivery.id < old.behind
                and delivery.event_id = old.id
        )",
    );
    without(connection, past, &SELECT).await
}

/// Leaves out what the statement finds.
async fn without<'p>(
    connection: &mut SqliteConnection,
    past: &[&'p Past],
    select: &'static Bulk,
) -> Result<Vec<&'p Past>> {
    let rows = bulk::fetch(
        connection,
        select.statements(past, |it, past| bind_old(it, past), |rest| rest),
    )
    .await?;
    let found: HashSet<Uuid> = rows
        .iter()
        .map(|row| get(row, "id"))
        .collect::<Result<_>>()?;
    let left = past.iter().filter(|past| !found.contains(&past.old.id));
    Ok(left.copied().collect())
}

/// Removes those that nothing holds, each with what was delivered of it before then. Where that is too
/// much for one step ([`Rest::Some`]), the events stay until it is done.
pub(super) async fn remove(
    transaction: &mut SqliteConnection,
    past: &[Past],
    before: i64,
) -> Result<Swept> {
    let past: Vec<&Past> = past.iter().collect();
    let settled = settled(transaction, &past).await?;
    let deliveries = delivered(transaction, &settled, before).await?;
    let mut removed = Removed::default();
    removed.add(
        Kept::Attempt,
        delete_attempts(transaction, &deliveries).await?,
    );
    removed.add(
        Kept::Delivery,
        delete_deliveries(transaction, &deliveries).await?,
    );
    if deliveries.len() == MOST_DELIVERIES {
        return Ok(Swept {
            removed,
            rest: Rest::Some,
        });
    }
    let bare = bare(transaction, &settled).await?;
    list_keys(transaction, &bare).await?;
    removed.add(Kept::Event, delete_events(transaction, &bare).await?);
    Ok(Swept {
        removed,
        rest: Rest::Nothing,
    })
}

/// A delivery: workspace and id.
type Delivered = (String, Uuid);

/// What was settled of these before then, at most [`MOST_DELIVERIES`].
async fn delivered(
    transaction: &mut SqliteConnection,
    past: &[&Past],
    before: i64,
) -> Result<Vec<Delivered>> {
    static SELECT: Bulk = Bulk::new(
        "-- sqlite::retention::delivered
        with old (id, workspace, first, behind) as (values ",
        "(?, ?, ?, ?)",
        ")
        select delivery.workspace, delivery.id
        from old
        cross join delivery
        where delivery.workspace = old.workspace
            and delivery.id >= old.first
            and delivery.id < old.behind
            and delivery.event_id = old.id
            and delivery.settled_at < ?
        limit ?",
    );
    let mut found = Vec::new();
    let statements = SELECT.statements(
        past,
        |it, past| bind_old(it, past),
        |rest| rest.bind(before).bind(count(MOST_DELIVERIES)),
    );
    for row in &bulk::fetch(transaction, statements).await? {
        found.push((get(row, "workspace")?, get(row, "id")?));
    }
    found.truncate(MOST_DELIVERIES);
    Ok(found)
}

async fn delete_attempts(
    transaction: &mut SqliteConnection,
    deliveries: &[Delivered],
) -> Result<u64> {
    static DELETE: Bulk = Bulk::new(
        "-- sqlite::retention::delete_attempts
        delete from attempt where (delivery_id, workspace) in (values ",
        "(?, ?)",
        ")",
    );
    let statements = DELETE.statements(
        deliveries,
        |statement, (workspace, id)| statement.bind(*id).bind(workspace.clone()),
        |rest| rest,
    );
    Ok(bulk::execute(transaction, statements).await? as u64)
}

async fn delete_deliveries(
    transaction: &mut SqliteConnection,
    deliveries: &[Delivered],
) -> Result<u64> {
    static DELETE: Bulk = Bulk::new(
        "-- sqlite::retention::delete_deliveries
        delete from delivery where (workspace, id) in (values ",
        "(?, ?)",
        ")",
    );
    let statements = DELETE.statements(
        deliveries,
        |statement, (workspace, id)| statement.bind(workspace.clone()).bind(*id),
        |rest| rest,
    );
    Ok(bulk::execute(transaction, statements).await? as u64)
}

/// Lists what the events are recognised by, so that it can be forgotten in its time.
async fn list_keys(transaction: &mut SqliteConnection, past: &[&Past]) -> Result<()> {
    static INSERT: Bulk = Bulk::new(
        "-- sqlite::retention::list_keys
        with gone (at, key) as (values ",
        "(?, ?)",
        ")
        insert or ignore into event_key_age (at, key)
        select at, key from gone where key is not null",
    );
    let statements = INSERT.statements(
        past,
        |statement, past| statement.bind(past.accepted_at).bind(past.key.to_vec()),
        |rest| rest,
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}

async fn delete_events(transaction: &mut SqliteConnection, past: &[&Past]) -> Result<u64> {
    static DELETE: Bulk = Bulk::new(
        "-- sqlite::retention::delete_events
        delete from event where (id, workspace) in (values ",
        "(?, ?)",
        ")",
    );
    let statements = DELETE.statements(
        past,
        |statement, past| statement.bind(past.old.id).bind(past.old.workspace.clone()),
        |rest| rest,
    );
    Ok(bulk::execute(transaction, statements).await? as u64)
}
