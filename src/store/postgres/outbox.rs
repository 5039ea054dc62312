//! The outbox: written by whoever writes what its events tell of, emptied by the leader.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;
use uuid::Uuid;

use super::errors::{expect_rows, from_sqlx, reading, retrying};
use super::queue::seconds;
use super::rows::limit;
use super::{PostgresStore, Result, StoreError, commit};
use crate::domain::event::Event;
use crate::domain::ids::EditionId;
use crate::store::identity::event_key;
use crate::store::lease::{Lease, Standing};
use crate::store::outbox::{
    Appended, COUNTED, Door, Outbox, OutboxDepth, Outgoing, OutgoingRequest, OutgoingRow,
};
use crate::wake::Wake;

/// Half of the locks under which places within a key are drawn; the other half is the key's hash.
const KEY_LOCK: i32 = 0x6f75_7462;

#[async_trait]
impl Outbox for PostgresStore {
    fn open_outbox(&self, bell: Arc<Wake>) {
        self.outbox.open(bell);
    }

    async fn publish(&self, events: &[Event]) -> Result<()> {
        retrying(|| async {
            let mut tx = self.begin().await?;
            let appended =
                append(&mut tx, &self.outbox, &events.iter().collect::<Vec<_>>()).await?;
            commit(tx).await?;
            appended.committed();
            Ok(())
        })
        .await
    }

    async fn outgoing(
        &self,
        held: &Lease,
        request: OutgoingRequest<'_>,
    ) -> Result<Option<Vec<Outgoing>>> {
        let rows: Vec<Row> = reading(async {
            sqlx::query_as(
                "-- postgres::outbox::outgoing
                with leader as materialized (
                    select 1
                    from lease
                    where name = $1 and owner = $2 and fence = $3 and until > clock_timestamp()
                ), next as (
                    select seq, workspace, key, message_id, type, body, bytes
                    from outbox waiting
                    where seq <> all($4)
                      and not exists (
                          select 1
                          from outbox failed
                          where failed.seq = any($4)
                            and failed.workspace = waiting.workspace
                            and failed.key = waiting.key
                      )
                    order by seq
                    limit $5
                ), fitting as (
                    select
                        seq, workspace, key, message_id, type, body,
                        sum(bytes) over (order by seq) - bytes as before
                    from next
                )
                select seq, workspace, key, message_id, type, body
                from leader
                left join fitting on fitting.before < $6
                order by seq",
            )
            .bind(held.name.as_str())
            .bind(held.owner.uuid())
            .bind(held.fence)
            .bind(request.failed)
            .bind(limit(request.limit))
            .bind(limit(request.max_bytes))
            .fetch_all(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        // A leader with nothing to do gets one row of nothing.
        if rows.is_empty() {
            return Ok(None);
        }
        let found = rows.into_iter().filter_map(Row::found);
        found
            .map(Outgoing::try_from)
            .collect::<Result<_>>()
            .map(Some)
    }

    async fn confirm_outgoing(&self, held: &Lease, seqs: &[i64]) -> Result<Standing> {
        let leaders: i64 = reading(async {
            sqlx::query_scalar(
                "-- postgres::outbox::confirm_outgoing
                with leader as materialized (
                    select 1 from lease where name = $1 and owner = $2 and fence = $3
                ), gone as (
                    delete from outbox
                    where seq = any($4) and exists (select from leader)
                )
                select count(*) from leader",
            )
            .bind(held.name.as_str())
            .bind(held.owner.uuid())
            .bind(held.fence)
            .bind(seqs)
            .fetch_one(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        Ok(match leaders {
            0 => Standing::Deposed,
            _ => Standing::Leads,
        })
    }

    async fn outbox_depth(&self) -> Result<OutboxDepth> {
        let (waiting, oldest): (i64, Option<f64>) = sqlx::query_as(
            "-- postgres::outbox::outbox_depth
            select
                (select count(*) from (select 1 from outbox order by seq limit $1) as counted),
                (
                    select extract(epoch from now() - appended_at)::float8
                    from outbox
                    order by seq
                    limit 1
                )",
        )
        .bind(COUNTED)
        .fetch_one(&self.pool)
        .await
        .map_err(from_sqlx)?;
        Ok(OutboxDepth {
            waiting: u64::try_from(waiting).map_err(StoreError::corrupt)?,
            oldest: oldest.map(seconds),
        })
    }
}

/// Appends events of our own, in the order given, and makes their keys known. Nothing happens while
/// the outbox is not open. An event that this transaction also accepts is accepted before.
///
/// To be called late: writers of one key wait here for each other to the end of their transactions,
/// so that the places within a key become visible in their order. Those of other keys need no order,
/// and wait for nobody: a place that becomes visible late is still found, since the leader deletes row
/// by row and remembers no position.
pub(super) async fn append(
    tx: &mut PgTransaction<'_>,
    door: &Door,
    events: &[&Event],
) -> Result<Appended> {
    if !door.is_open() || events.is_empty() {
        return Ok(door.appended(0));
    }
    write_keys(tx, events).await?;
    wait_for_turn(tx, events).await?;
    let written = sqlx::query(
        "-- postgres::outbox::append
        insert into outbox (workspace, key, message_id, type, body, bytes)
        select
            unnest($1::text[]), unnest($2::text[]), unnest($3::text[]), unnest($4::text[]),
            unnest($5::text[]), unnest($6::integer[])",
    )
    .bind(
        events
            .iter()
            .map(|event| event.workspace.as_str())
            .bind_iter(),
    )
    .bind(events.iter().map(|event| key_of(event)).bind_iter())
    .bind(
        events
            .iter()
            .map(|event| event.external_id.as_str())
            .bind_iter(),
    )
    .bind(
        events
            .iter()
            .map(|event| event.event_type.as_str())
            .bind_iter(),
    )
    .bind(events.iter().map(|event| &*event.envelope).bind_iter())
    .bind(
        events
            .iter()
            .map(|event| i32::try_from(event.envelope.len()).unwrap_or(i32::MAX))
            .bind_iter(),
    )
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("outbox", events.len(), written.rows_affected())?;
    Ok(door.appended(events.len()))
}

fn key_of(event: &Event) -> Option<&str> {
    event.edition.as_ref().map(EditionId::as_str)
}

/// Sorted, like those of an accept. One that an accept of this transaction wrote stays. The event may be
/// kept nowhere else: then nobody else would remember when its key is to be forgotten.
async fn write_keys(tx: &mut PgTransaction<'_>, events: &[&Event]) -> Result<()> {
    let mut keys: Vec<(Uuid, Uuid)> = events
        .iter()
        .map(|event| (Uuid::from_bytes(event_key(event)), event.id.uuid()))
        .collect();
    keys.sort_unstable();
    sqlx::query(
        "-- postgres::outbox::write_keys
        with ages as (
            insert into event_key_age (at, key)
            select now(), unnest($1::uuid[])
            on conflict on constraint event_key_age_pk do nothing
        )
        insert into event_key (key, event_id)
        select unnest($1::uuid[]), unnest($2::uuid[])
        on conflict on constraint event_key_pk do nothing",
    )
    .bind(keys.iter().map(|(key, _)| key).bind_iter())
    .bind(keys.iter().map(|(_, event_id)| event_id).bind_iter())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// Waits for the other writers of these keys, in an order that all keep.
async fn wait_for_turn(tx: &mut PgTransaction<'_>, events: &[&Event]) -> Result<()> {
    let keys: BTreeSet<String> = events
        .iter()
        .filter_map(|event| Some(format!("{}/{}", event.workspace, key_of(event)?)))
        .collect();
    if keys.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "-- postgres::outbox::wait_for_turn
        select pg_advisory_xact_lock($1, hash)
        from (
            select distinct hashtext(key) as hash from unnest($2::text[]) as keys (key) order by hash
        ) as sorted",
    )
    .bind(KEY_LOCK)
    .bind(keys.iter().map(String::as_str).bind_iter())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// A row of the join: all null for a leader with nothing to do.
#[derive(sqlx::FromRow)]
struct Row {
    seq: Option<i64>,
    workspace: Option<String>,
    key: Option<String>,
    message_id: Option<String>,
    #[sqlx(rename = "type")]
    event_type: Option<String>,
    body: Option<String>,
}

impl Row {
    fn found(self) -> Option<OutgoingRow> {
        Some(OutgoingRow {
            seq: self.seq?,
            workspace: self.workspace?,
            key: self.key,
            message_id: self.message_id?,
            event_type: self.event_type?,
            body: self.body?,
        })
    }
}
