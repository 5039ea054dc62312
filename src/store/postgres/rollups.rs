//! What was attempted and what came of it: appended by settles, read by statistics. Folding and removing
//! are in `retention`.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgTransaction, Row};
use uuid::Uuid;

use super::Result;
use super::errors::from_sqlx;
use super::rows::{limit, projects};
use crate::domain::ids::{SubscriptionId, WorkspaceId};
use crate::domain::reach::Reach;
use crate::store::rollups::{COLUMNS, Columns, Counts, Deltas, Resolution, count_columns};
use crate::store::stats::{MAX_UNFOLDED, Point};

/// Appends what a settle counts. Nobody waits for anybody here.
pub(super) async fn append(tx: &mut PgTransaction<'_>, deltas: &Deltas) -> Result<()> {
    let deltas = deltas.to_vec();
    if deltas.is_empty() {
        return Ok(());
    }
    let workspaces: Vec<&str> = deltas.iter().map(|it| it.workspace.as_str()).collect();
    let subscriptions: Vec<Uuid> = deltas.iter().map(|it| it.subscription.uuid()).collect();
    let minutes: Vec<DateTime<Utc>> = deltas.iter().map(|it| it.minute).collect();
    let rows: Vec<Columns> = deltas.iter().map(|it| it.counts.columns()).collect();
    let mut statement = sqlx::query(concat!(
        "-- postgres::rollups::append
        insert into rollup_delta (workspace, subscription_id, minute, ",
        count_columns!(names),
        ")
        select
            unnest($1::text[]), unnest($2::uuid[]), unnest($3::timestamptz[]),
            unnest($4::bigint[]), unnest($5::bigint[]), unnest($6::bigint[]),
            unnest($7::bigint[]), unnest($8::bigint[]), unnest($9::bigint[]),
            unnest($10::bigint[]), unnest($11::bigint[]), unnest($12::bigint[]),
            unnest($13::bigint[]), unnest($14::bigint[]), unnest($15::bigint[]),
            unnest($16::bigint[]), unnest($17::bigint[]), unnest($18::bigint[]),
            unnest($19::bigint[]), unnest($20::bigint[]), unnest($21::bigint[]),
            unnest($22::bigint[])"
    ))
    .bind(workspaces)
    .bind(subscriptions)
    .bind(minutes);
    for column in 0..COLUMNS {
        let values = rows.iter().filter_map(|row| row.get(column).copied());
        statement = statement.bind(values.collect::<Vec<i64>>());
    }
    statement.execute(&mut **tx).await.map_err(from_sqlx)?;
    Ok(())
}

/// From when on the rollups of this resolution are whole.
pub(super) async fn floor(
    connection: &mut PgConnection,
    resolution: Resolution,
) -> Result<DateTime<Utc>> {
    sqlx::query_scalar(
        "-- postgres::rollups::floor
        select since from rollup_floor where resolution = $1",
    )
    .bind(resolution.as_str())
    .fetch_one(connection)
    .await
    .map_err(from_sqlx)
}

/// What was counted of one subscription since then, folded or not.
pub(super) async fn of_subscription(
    connection: &mut PgConnection,
    (workspace, id): (&WorkspaceId, SubscriptionId),
    resolution: Resolution,
    from: DateTime<Utc>,
) -> Result<Vec<Point>> {
    let rows = sqlx::query(concat!(
        "-- postgres::rollups::of_subscription
        with counted as (
            select start, ",
        count_columns!(names),
        "
            from rollup
            where subscription_id = $1 and workspace = $2 and resolution = $3 and start >= $4
            union all
            select date_trunc($3, minute, 'UTC'), ",
        count_columns!(names),
        "
            from (
                select workspace, subscription_id, minute, ",
        count_columns!(names),
        "
                from rollup_delta
                limit $5
            ) as unfolded
            where subscription_id = $1 and workspace = $2 and minute >= $4
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
    .bind(from)
    .bind(limit(MAX_UNFOLDED))
    .fetch_all(connection)
    .await
    .map_err(from_sqlx)?;
    rows.iter().map(point).collect()
}

/// What was counted of all subscriptions in reach together.
pub(super) async fn of_workspace(
    connection: &mut PgConnection,
    reach: &Reach,
    resolution: Resolution,
    from: DateTime<Utc>,
) -> Result<Vec<Point>> {
    let rows = sqlx::query(concat!(
        "-- postgres::rollups::of_workspace
        with own as materialized (
            select id
            from subscription
            where workspace = $2
              and status <> 'deleted'
              and ($1::text[] is null or project_ids <@ $1)
        ), counted as (
            select start, ",
        count_columns!(names),
        "
            from own
            cross join lateral (
                select start, ",
        count_columns!(names),
        "
                from rollup
                where subscription_id = own.id and resolution = $3 and start >= $4
            ) as folded
            union all
            select date_trunc($3, minute, 'UTC'), ",
        count_columns!(names),
        "
            from (
                select workspace, subscription_id, minute, ",
        count_columns!(names),
        "
                from rollup_delta
                limit $5
            ) as unfolded
            where workspace = $2
              and minute >= $4
              and subscription_id in (select id from own)
        )
        select start, ",
        count_columns!(sums),
        "
        from counted
        group by start
        order by start"
    ))
    .bind(projects(reach))
    .bind(reach.workspace.as_str())
    .bind(resolution.as_str())
    .bind(from)
    .bind(limit(MAX_UNFOLDED))
    .fetch_all(connection)
    .await
    .map_err(from_sqlx)?;
    rows.iter().map(point).collect()
}

fn point(row: &PgRow) -> Result<Point> {
    let mut columns: Columns = [0; COLUMNS];
    for (index, column) in columns.iter_mut().enumerate() {
        *column = row.try_get(1 + index).map_err(from_sqlx)?;
    }
    Ok(Point {
        start: row.try_get(0).map_err(from_sqlx)?,
        counts: Counts::of(columns)?,
    })
}
