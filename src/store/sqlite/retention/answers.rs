//! What receivers answered to attempts.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::super::SqliteStore;
use super::super::bulk::{self, Bulk};
use super::super::error::store_error;
use super::super::rows::{count, duration_millis, get, to_time};
use crate::domain::ids::first_at;
use crate::store::Result;
use crate::store::lease::Lease;
use crate::store::retention::{FIRST_ATTEMPT_WITHIN, Kept, Removed, Swept};

/// What an attempt is known by: delivery and epoch.
type Attempt = (Vec<u8>, i64);

impl SqliteStore {
    /// In the order of the table, up to deliveries whose first attempts are old enough for certain; then
    /// later attempts, which may have come behind that.
    pub(super) async fn sweep_answers(
        &self,
        held: &Lease,
        before: i64,
        limit: usize,
    ) -> Result<Option<Swept>> {
        let mut reader = self.reader().await?;
        let next = in_order(&mut reader, before, limit).await?;
        let again = match next.last() {
            Some(_) => Vec::new(),
            None => made_again(&mut reader, before, limit).await?,
        };
        drop(reader);
        if next.is_empty() && again.is_empty() {
            return self.nothing_to_do(held).await;
        }
        let Some(mut transaction) = self.write_as(held).await? else {
            return Ok(None);
        };
        let mut removed = strip(&mut transaction, &next, before).await?;
        if let Some(last) = next.last() {
            move_mark(&mut transaction, last).await?;
        }
        removed += strip(&mut transaction, &again, before).await?;
        self.commit(transaction).await?;
        Ok(Some(Swept::some(Removed::of(Kept::Answer, removed))))
    }
}

/// The attempts behind the mark.
async fn in_order(
    reader: &mut SqliteConnection,
    before: i64,
    limit: usize,
) -> Result<Vec<Attempt>> {
    let behind = before.saturating_sub(duration_millis(FIRST_ATTEMPT_WITHIN));
    let mark = sqlx::query(
        "-- sqlite::retention::in_order (mark)
        select delivery_id, epoch from attempt_mark",
    )
    .fetch_one(&mut *reader)
    .await
    .map_err(store_error)?;
    let (delivery, epoch) = attempt(&mark)?;
    let rows = sqlx::query(
        "-- sqlite::retention::in_order
        select delivery_id, epoch
        from attempt
        where (delivery_id, epoch) > (?1, ?2) and delivery_id < ?3
        order by delivery_id, epoch
        limit ?4",
    )
    .bind(delivery)
    .bind(epoch)
    .bind(first_at(to_time(behind)?))
    .bind(count(limit))
    .fetch_all(reader)
    .await
    .map_err(store_error)?;
    rows.iter().map(attempt).collect()
}

/// Later attempts and a replay's that are old enough, and have an answer yet. In the words of the index.
async fn made_again(
    reader: &mut SqliteConnection,
    before: i64,
    limit: usize,
) -> Result<Vec<Attempt>> {
    let rows = sqlx::query(
        "-- sqlite::retention::made_again
        select delivery_id, epoch
        from attempt
        where (epoch > 1 or trigger = 'replay')
          and (response_headers <> '[]' or response_excerpt <> '')
          and at < ?1
        order by at
        limit ?2",
    )
    .bind(before)
    .bind(count(limit))
    .fetch_all(reader)
    .await
    .map_err(store_error)?;
    rows.iter().map(attempt).collect()
}

fn attempt(row: &SqliteRow) -> Result<Attempt> {
    Ok((get(row, "delivery_id")?, get(row, "epoch")?))
}

async fn strip(
    transaction: &mut SqliteConnection,
    attempts: &[Attempt],
    before: i64,
) -> Result<u64> {
    static UPDATE: Bulk = Bulk::new(
        "-- sqlite::retention::strip
        update attempt
        set response_headers = '[]', response_excerpt = ''
        where (delivery_id, epoch) in (values ",
        "(?, ?)",
        ") and at < ? and (response_headers <> '[]' or response_excerpt <> '')",
    );
    let statements = UPDATE.statements(
        attempts,
        |statement, (delivery, epoch)| statement.bind(delivery.clone()).bind(*epoch),
        |rest| rest.bind(before),
    );
    Ok(bulk::execute(transaction, statements).await? as u64)
}

async fn move_mark(transaction: &mut SqliteConnection, last: &Attempt) -> Result<()> {
    sqlx::query(
        "-- sqlite::retention::move_mark
        update attempt_mark set delivery_id = ?1, epoch = ?2",
    )
    .bind(&last.0)
    .bind(last.1)
    .execute(transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}
