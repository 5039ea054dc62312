//! The outbox: written by whoever writes what its events tell of, emptied by the leader.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::bulk::{self, Bulk};
use super::error::store_error;
use super::lease::stand;
use super::rows::{count, get, list, millis};
use crate::domain::event::Event;
use crate::domain::ids::EditionId;
use crate::store::identity::event_key;
use crate::store::lease::{Lease, Standing};
use crate::store::outbox::{
    Appended, COUNTED, Door, Outbox, OutboxDepth, Outgoing, OutgoingRequest, OutgoingRow,
};
use crate::store::{Result, StoreError};
use crate::wake::Wake;

#[async_trait]
impl Outbox for SqliteStore {
    fn open_outbox(&self, bell: Arc<Wake>) {
        self.outbox.open(bell);
    }

    async fn publish(&self, events: &[Event]) -> Result<()> {
        let mut transaction = self.write().await?;
        let now = millis(self.clock.now());
        let events: Vec<&Event> = events.iter().collect();
        let appended = append(&mut transaction, &self.outbox, &events, now).await?;
        self.commit(transaction).await?;
        appended.committed();
        Ok(())
    }

    async fn outgoing(
        &self,
        held: &Lease,
        request: OutgoingRequest<'_>,
    ) -> Result<Option<Vec<Outgoing>>> {
        let mut transaction = self.read().await?;
        let now = Some(millis(self.clock.now()));
        if stand(&mut transaction, held, now).await? == Standing::Deposed {
            return Ok(None);
        }
        let rows = sqlx::query(
            "-- sqlite::outbox::outgoing
            with next as (
                select seq, workspace, key, message_id, type, body, bytes
                from outbox as waiting
                where seq not in (select value from json_each(?1))
                    and not exists (
                        select 1
                        from json_each(?1) as numbers
                        join outbox as failed on failed.seq = numbers.value
                        where failed.workspace = waiting.workspace and failed.key = waiting.key
                    )
                order by seq
                limit ?2
            ), fitting as (
                select seq, workspace, key, message_id, type, body,
                    sum(bytes) over (order by seq) - bytes as before
                from next
            )
            select seq, workspace, key, message_id, type, body
            from fitting
            where before < ?3
            order by seq",
        )
        .bind(list(&request.failed)?)
        .bind(count(request.limit))
        .bind(count(request.max_bytes))
        .fetch_all(&mut *transaction)
        .await
        .map_err(store_error)?;
        rows.iter().map(outgoing).collect::<Result<_>>().map(Some)
    }

    async fn confirm_outgoing(&self, held: &Lease, seqs: &[i64]) -> Result<Standing> {
        static DELETE: Bulk = Bulk::new(
            "-- sqlite::outbox::confirm_outgoing
            delete from outbox where seq in (",
            "?",
            ")",
        );
        let mut transaction = self.write().await?;
        let standing = stand(&mut transaction, held, None).await?;
        if standing == Standing::Leads {
            let statements =
                DELETE.statements(seqs, |statement, seq| statement.bind(*seq), |rest| rest);
            bulk::execute(&mut transaction, statements).await?;
        }
        self.commit(transaction).await?;
        Ok(standing)
    }

    async fn outbox_depth(&self) -> Result<OutboxDepth> {
        let row = sqlx::query(
            "-- sqlite::outbox::outbox_depth
            select
                (select count(*) from (select 1 from outbox limit ?1)) as waiting,
                (select appended_at from outbox order by seq limit 1) as oldest",
        )
        .bind(COUNTED)
        .fetch_one(&self.readers)
        .await
        .map_err(store_error)?;
        let waiting: i64 = get(&row, "waiting")?;
        let now = millis(self.clock.now());
        let age = |since| Duration::from_millis(u64::try_from(now - since).unwrap_or_default());
        Ok(OutboxDepth {
            waiting: u64::try_from(waiting).map_err(StoreError::corrupt)?,
            oldest: get::<Option<i64>>(&row, "oldest")?.map(age),
        })
    }
}

/// Appends events of our own, in the order given, and makes their keys known. Nothing happens while
/// the outbox is not open. An event that this transaction also accepts is accepted before. There is
/// one writer, so the order of places is that of the commits.
pub(super) async fn append(
    transaction: &mut SqliteConnection,
    door: &Door,
    events: &[&Event],
    now: i64,
) -> Result<Appended> {
    static KEYS: Bulk = Bulk::new(
        "-- sqlite::outbox::append (keys)
        with appended (key, event_id) as (values ",
        "(?, ?)",
        ")
        insert or ignore into event_key (key, event_id, at)
        select key, event_id, ? from appended where key is not null",
    );
    // The event may be kept nowhere else: then nobody else would remember when its key is to be forgotten.
    static AGES: Bulk = Bulk::new(
        "-- sqlite::outbox::append (ages)
        with appended (key) as (values ",
        "(?)",
        ")
        insert or ignore into event_key_age (at, key)
        select ?, key from appended where key is not null",
    );
    static INSERT: Bulk = Bulk::new(
        "-- sqlite::outbox::append (events)
        with appended (place, workspace, key, message_id, type, body, bytes) as (values ",
        "(?, ?, ?, ?, ?, ?, ?)",
        ")
        insert into outbox (workspace, key, message_id, type, body, bytes, appended_at)
        select workspace, key, message_id, type, body, bytes, ?
        from appended
        where place is not null
        order by place",
    );
    if !door.is_open() || events.is_empty() {
        return Ok(door.appended(0));
    }
    let keys = KEYS.statements(
        events,
        |statement, event| {
            statement
                .bind(event_key(event).to_vec())
                .bind(event.id.uuid())
        },
        |statement| statement.bind(now),
    );
    bulk::execute(transaction, keys).await?;
    let ages = AGES.statements(
        events,
        |statement, event| statement.bind(event_key(event).to_vec()),
        |statement| statement.bind(now),
    );
    bulk::execute(transaction, ages).await?;
    let mut place = 0;
    let rows = INSERT.statements(
        events,
        |statement, event| {
            place += 1;
            statement
                .bind(place)
                .bind(event.workspace.to_shared())
                .bind(event.edition.as_ref().map(EditionId::to_shared))
                .bind(event.external_id.clone())
                .bind(event.event_type.to_string())
                .bind(event.envelope.to_string())
                .bind(count(event.envelope.len()))
        },
        |statement| statement.bind(now),
    );
    bulk::execute(transaction, rows).await?;
    Ok(door.appended(events.len()))
}

fn outgoing(row: &SqliteRow) -> Result<Outgoing> {
    OutgoingRow {
        seq: get(row, "seq")?,
        workspace: get(row, "workspace")?,
        key: get(row, "key")?,
        message_id: get(row, "message_id")?,
        event_type: get(row, "type")?,
        body: get(row, "body")?,
    }
    .try_into()
}
