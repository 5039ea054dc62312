//! What was attempted and what came of it: appended by settles, read by statistics. Folding and removing
//! are in `retention`.

use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::bulk::{self, Bulk, Statement};
use super::error::store_error;
use super::rows::{count, duration_millis, millis, projects, subscription_within, to_time};
use crate::domain::ids::{SubscriptionId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::store::Result;
use crate::store::rollups::{COLUMNS, Columns, Counts, Deltas, Resolution, count_columns};
use crate::store::stats::{MAX_UNFOLDED, Point};

/// Appends what a settle counts.
pub(super) async fn append(transaction: &mut SqliteConnection, deltas: &Deltas) -> Result<()> {
    static INSERT: Bulk = Bulk::new(
        concat!(
            "-- sqlite::rollups::append
            with made (workspace, subscription_id, minute, ",
            count_columns!(names),
            ") as (values "
        ),
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        concat!(
            ")
            insert or fail into rollup_delta (workspace, subscription_id, minute, ",
            count_columns!(names),
            ")
            select workspace, subscription_id, minute, ",
            count_columns!(names),
            "
            from made
            where workspace is not null"
        ),
    );
    let deltas = deltas.to_vec();
    let statements = INSERT.statements(
        &deltas,
        |statement, delta| {
            let statement = statement
                .bind(delta.workspace.to_shared())
                .bind(delta.subscription.uuid())
                .bind(millis(delta.minute));
            delta
                .counts
                .columns()
                .into_iter()
                .fold(statement, Statement::bind)
        },
        |statement| statement,
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}

/// From when on the rollups of this resolution are whole.
pub(super) async fn floor(
    connection: &mut SqliteConnection,
    resolution: Resolution,
) -> Result<DateTime<Utc>> {
    let since: i64 = sqlx::query_scalar(
        "-- sqlite::rollups::floor
        select since from rollup_floor where resolution = ?1",
    )
    .bind(resolution.as_str())
    .fetch_one(connection)
    .await
    .map_err(store_error)?;
    to_time(since)
}

/// What was counted of one subscription since then, folded or not.
pub(super) async fn of_subscription(
    connection: &mut SqliteConnection,
    (workspace, id): (&WorkspaceId, SubscriptionId),
    resolution: Resolution,
    from: DateTime<Utc>,
) -> Result<Vec<Point>> {
    let rows = sqlx::query(concat!(
        "-- sqlite::rollups::of_subscription
        with
        unfolded as (
            select workspace, subscription_id, minute, ",
        count_columns!(names),
        "
            from rollup_delta
            limit ?5
        ),
        counted as (
            select start, ",
        count_columns!(names),
        "
            from rollup
            where subscription_id = ?1 and workspace = ?2 and resolution = ?3 and start >= ?4
            union all
            select minute - minute % ?6, ",
        count_columns!(names),
        "
            from unfolded
            where subscription_id = ?1 and workspace = ?2 and minute >= ?4
        )
        select start, ",
        count_columns!(sums),
        "
        from counted
        group by start
        order by start"
    ))
    .bind(id.uuid())
    .bind(workspace.as_str())
    .bind(resolution.as_str())
    .bind(millis(from))
    .bind(count(MAX_UNFOLDED))
    .bind(duration_millis(resolution.length()))
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    rows.iter().map(point).collect()
}

/// What was counted of all subscriptions in reach together. (A cross join keeps its order here.)
pub(super) async fn of_workspace(
    connection: &mut SqliteConnection,
    reach: &Reach,
    resolution: Resolution,
    from: DateTime<Utc>,
) -> Result<Vec<Point>> {
    let rows = sqlx::query(concat!(
        "-- sqlite::rollups::of_workspace
        with
        own as materialized (
            select id
            from subscription
            where workspace = ?2 and status <> 'deleted'
                and (?1 is null or (",
        subscription_within!("?1"),
        "))
        ),
        unfolded as (
            select workspace, subscription_id, minute, ",
        count_columns!(names),
        "
            from rollup_delta
            limit ?5
        ),
        counted as (
            select start, ",
        count_columns!(names),
        "
            from own
            cross join rollup
            where rollup.subscription_id = own.id and resolution = ?3 and start >= ?4
            union all
            select minute - minute % ?6, ",
        count_columns!(names),
        "
            from unfolded
            where workspace = ?2 and minute >= ?4 and subscription_id in (select id from own)
        )
        select start, ",
        count_columns!(sums),
        "
        from counted
        group by start
        order by start"
    ))
    .bind(projects(reach)?)
    .bind(reach.workspace.as_str())
    .bind(resolution.as_str())
    .bind(millis(from))
    .bind(count(MAX_UNFOLDED))
    .bind(duration_millis(resolution.length()))
    .fetch_all(connection)
    .await
    .map_err(store_error)?;
    rows.iter().map(point).collect()
}

fn point(row: &SqliteRow) -> Result<Point> {
    let mut columns: Columns = [0; COLUMNS];
    for (index, column) in columns.iter_mut().enumerate() {
        *column = row.try_get(1 + index).map_err(store_error)?;
    }
    Ok(Point {
        start: to_time(row.try_get(0).map_err(store_error)?)?,
        counts: Counts::of(columns)?,
    })
}
