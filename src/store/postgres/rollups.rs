//! What was attempted and what came of it: appended by settles, read by statistics. Folding and removing
//! are in `retention`.

use chrono::{DateTime, Utc};
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, PgTransaction, Row};
use uuid::Uuid;

use super::Result;
use super::errors::from_sqlx;
use super::rows::{limit, projects};
use crate::domain::ids::SubscriptionId;
use crate::domain::reach::Reach;
use crate::store::rollups::{COLUMNS, Columns, Counts, Deltas, Resolution, count_columns};
use crate::store::stats::{MAX_UNFOLDED, Point, Series, Summed, Window};

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

/// Makes the statement that adds up what was counted of some subscriptions, folded or not, of how that is
/// begun and of what finds their ids by `$1` and the workspace, `$2`. It has a row at least: a left join says
/// whether deltas were left out where there is nothing to add up, too.
macro_rules! summed {
    ($name:literal, $own:literal) => {
        concat!(
            $name,
            "
            with own as materialized (",
            $own,
            "), counted as (
                select start, ",
            count_columns!(names),
            "
                from own
                cross join lateral (
                    select start, ",
            count_columns!(names),
            "
                    from rollup
                    where subscription_id = own.id
                      and workspace = $2
                      and resolution = $3
                      and start >= $4
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
            ), summed as (
                select start, ",
            count_columns!(sums),
            "
                from counted
                group by start
            )
            select looked.cut, summed.start, ",
            count_columns!(names),
            "
            from (
                select count(*) > $5 as cut
                from (select from rollup_delta limit $5 + 1) as look
            ) as looked
            left join summed on true
            order by summed.start"
        )
    };
}

/// What was counted in a window that ends now: of one subscription, which is known to be in reach, or of all
/// in reach together.
pub(super) async fn series(
    connection: &mut PgConnection,
    (reach, one): (&Reach, Option<SubscriptionId>),
    window: Window,
    now: DateTime<Utc>,
) -> Result<Series> {
    let (start, resolution) = (window.start(now), window.resolution());
    let statement = match one {
        Some(id) => sqlx::query(summed!(
            "-- postgres::rollups::series (one)",
            "select $1::uuid as id"
        ))
        .bind(id.uuid()),
        None => sqlx::query(summed!(
            "-- postgres::rollups::series",
            "
                select id
                from subscription
                where workspace = $2
                  and status <> 'deleted'
                  and ($1::text[] is null or project_ids <@ $1)"
        ))
        .bind(projects(reach)),
    };
    let rows = statement
        .bind(reach.workspace.as_str())
        .bind(resolution.as_str())
        .bind(start)
        .bind(limit(MAX_UNFOLDED))
        .fetch_all(&mut *connection)
        .await
        .map_err(from_sqlx)?;
    let rows = rows.iter().map(summed).collect::<Result<_>>()?;
    // Read behind them, it is rather too late than too early.
    let floor = floor(connection, resolution).await?;
    Ok(Series::new(start, floor, rows))
}

fn summed(row: &PgRow) -> Result<Summed> {
    let start: Option<DateTime<Utc>> = row.try_get(1).map_err(from_sqlx)?;
    let point = |start| {
        Ok(Point {
            start,
            counts: Counts::read(|index| row.try_get(2 + index).map_err(from_sqlx))?,
        })
    };
    Ok(Summed {
        cut: row.try_get(0).map_err(from_sqlx)?,
        point: start.map(point).transpose()?,
    })
}

/// From when on the rollups of this resolution are whole.
async fn floor(connection: &mut PgConnection, resolution: Resolution) -> Result<DateTime<Utc>> {
    sqlx::query_scalar(
        "-- postgres::rollups::floor
        select since from rollup_floor where resolution = $1",
    )
    .bind(resolution.as_str())
    .fetch_one(connection)
    .await
    .map_err(from_sqlx)
}
