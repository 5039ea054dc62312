//! What was attempted and what came of it: appended by settles, read by statistics. Folding and removing
//! are in `retention`.

use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, SqliteConnection};

use super::bulk::{self, Bulk, Statement};
use super::error::store_error;
use super::rows::{count, duration_millis, millis, projects, subscription_within, to_time};
use crate::domain::ids::SubscriptionId;
use crate::domain::reach::Reach;
use crate::store::Result;
use crate::store::rollups::{Counts, Deltas, Resolution, count_columns};
use crate::store::stats::{MAX_UNFOLDED, Point, Series, Summed, Window};

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

/// Makes the statement that adds up what was counted of some subscriptions, folded or not, of how that is
/// begun and of what finds their ids by `?1` and the workspace, `?2`. It has a row at least: a left join says
/// whether deltas were left out where there is nothing to add up, too. (A cross join keeps its order here.)
macro_rules! summed {
    ($name:literal, $($own:expr),+) => {
        concat!(
            $name,
            "
            with
            own as materialized (",
            $($own),+,
            "),
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
                where rollup.subscription_id = own.id and rollup.workspace = ?2
                    and rollup.resolution = ?3 and rollup.start >= ?4
                union all
                select minute - minute % ?6, ",
            count_columns!(names),
            "
                from unfolded
                where workspace = ?2 and minute >= ?4 and subscription_id in (select id from own)
            ),
            summed as (
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
                select count(*) > ?5 as cut
                from (select 1 from rollup_delta limit ?5 + 1)
            ) as looked
            left join summed on true
            order by summed.start"
        )
    };
}

/// What was counted in a window that ends now: of one subscription, which is known to be in reach, or of all
/// in reach together.
pub(super) async fn series(
    connection: &mut SqliteConnection,
    (reach, one): (&Reach, Option<SubscriptionId>),
    window: Window,
    now: DateTime<Utc>,
) -> Result<Series> {
    let (start, resolution) = (window.start(now), window.resolution());
    let statement = match one {
        Some(id) => sqlx::query(summed!(
            "-- sqlite::rollups::series (one)",
            "select ?1 as id"
        ))
        .bind(id.uuid()),
        None => sqlx::query(summed!(
            "-- sqlite::rollups::series",
            "
                select id
                from subscription
                where workspace = ?2 and status <> 'deleted'
                    and (?1 is null or (",
            subscription_within!("?1"),
            "))"
        ))
        .bind(projects(reach)?),
    };
    let rows = statement
        .bind(reach.workspace.as_str())
        .bind(resolution.as_str())
        .bind(millis(start))
        .bind(count(MAX_UNFOLDED))
        .bind(duration_millis(resolution.length()))
        .fetch_all(&mut *connection)
        .await
        .map_err(store_error)?;
    let rows = rows.iter().map(summed).collect::<Result<_>>()?;
    let floor = floor(connection, resolution).await?;
    Ok(Series::new(start, floor, rows))
}

fn summed(row: &SqliteRow) -> Result<Summed> {
    let start: Option<i64> = row.try_get(1).map_err(store_error)?;
    let point = |start| {
        Ok(Point {
            start: to_time(start)?,
            counts: Counts::read(|index| row.try_get(2 + index).map_err(store_error))?,
        })
    };
    Ok(Summed {
        cut: row.try_get(0).map_err(store_error)?,
        point: start.map(point).transpose()?,
    })
}

/// From when on the rollups of this resolution are whole.
async fn floor(connection: &mut SqliteConnection, resolution: Resolution) -> Result<DateTime<Utc>> {
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
