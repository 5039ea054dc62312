//! The gates of ordered subscriptions: coming to them, and leaving them. There is one writer, so what is
//! read in a transaction that writes stays as it is to its end.

use std::collections::HashMap;

use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::bulk::{self, Bulk, Statement};
use super::rows::{get, lane_of};
use crate::domain::ids::EditionId;
use crate::store::Result;
use crate::store::gates::{Comer, Crowd, Gate, Kept, Place, Places, Released};

/// When what waits its turn is due. (`2^63 - 1`, as it stands in the statements.)
pub(super) const NEVER: i64 = i64::MAX;

/// Brings a crowd to its gates; what is made for them must be queued in the same transaction.
pub(super) async fn come(transaction: &mut SqliteConnection, crowd: Crowd) -> Result<Places> {
    static INSERT: Bulk = Bulk::new(
        "-- sqlite::gates::come
        with coming (subscription_id, edition, workspace, number) as (values ",
        "(?, ?, ?, ?)",
        ")
        insert into order_gate (subscription_id, edition, workspace, depth, tail)
        select subscription_id, edition, workspace, number, number
        from coming
        where subscription_id is not null
        on conflict (subscription_id, edition) do update
        set depth = depth + excluded.depth, tail = tail + excluded.tail
        returning subscription_id, edition, depth, tail",
    );
    if crowd.is_empty() {
        return Ok(Places::default());
    }
    let coming: Vec<(&Gate, i64)> = crowd.iter().collect();
    let statements = INSERT.statements(
        &coming,
        |statement, (gate, number)| {
            bind(statement, gate)
                .bind(gate.workspace.to_shared())
                .bind(*number)
        },
        |statement| statement,
    );
    let rows = bulk::fetch(transaction, statements).await?;
    let kept: Vec<Kept> = rows.iter().map(read).collect::<Result<_>>()?;
    Places::of(crowd, kept)
}

/// Brings deliveries that are replayed to the tails of their gates, in this order; by delivery, where
/// each stands.
pub(super) async fn line_up(
    transaction: &mut SqliteConnection,
    comers: Vec<Comer>,
) -> Result<HashMap<Uuid, (EditionId, Place)>> {
    let mut places = come(transaction, Crowd::of(&comers)).await?;
    comers
        .into_iter()
        .map(|comer| {
            let place = places.next(&comer.gate)?;
            Ok((comer.delivery.uuid(), (comer.gate.edition, place)))
        })
        .collect()
}

/// Lets a crowd leave its gates, whose rows in the queue are gone by now, and makes those due who are
/// first there then; answers at which gates.
pub(super) async fn leave(
    transaction: &mut SqliteConnection,
    crowd: &Crowd,
    now: i64,
) -> Result<Released> {
    static LOWER: Bulk = Bulk::new(
        "-- sqlite::gates::leave (lower)
        with leaving (subscription_id, edition, number) as (values ",
        "(?, ?, ?)",
        ")
        update order_gate
        set depth = max(depth - leaving.number, 0)
        from leaving
        where order_gate.subscription_id = leaving.subscription_id
            and order_gate.edition = leaving.edition",
    );
    static CLOSE: Bulk = Bulk::new(
        "-- sqlite::gates::leave (close)
        delete from order_gate where (subscription_id, edition) in (values ",
        "(?, ?)",
        ") and depth = 0",
    );
    static RELEASE: Bulk = Bulk::new(
        "-- sqlite::gates::leave (release)
        with left_behind (subscription_id, edition) as (values ",
        "(?, ?)",
        ")
        update delivery_queue
        set visible_at = ?
        where delivery_id in (
                select (
                    select head.delivery_id
                    from delivery_queue as head
                    where head.subscription_id = left_behind.subscription_id
                        and head.gate = left_behind.edition
                    order by head.ord
                    limit 1
                )
                from left_behind
            )
            and visible_at = 9223372036854775807
        returning subscription_id, gate, lane",
    );
    let leaving: Vec<(&Gate, i64)> = crowd.iter().collect();
    let lowered = LOWER.statements(
        &leaving,
        |statement, (gate, number)| bind(statement, gate).bind(*number),
        |statement| statement,
    );
    bulk::execute(transaction, lowered).await?;
    let only_gate = |statement, (gate, _): &(&Gate, i64)| bind(statement, gate);
    let closed = CLOSE.statements(&leaving, only_gate, |statement| statement);
    bulk::execute(transaction, closed).await?;
    let released = RELEASE.statements(&leaving, only_gate, |statement| statement.bind(now));
    let rows = bulk::fetch(transaction, released).await?;
    rows.iter()
        .map(|row| {
            let gate = (get(row, "subscription_id")?, get(row, "gate")?);
            Ok((gate, lane_of(get(row, "lane")?)?))
        })
        .collect()
}

fn bind(statement: Statement, gate: &Gate) -> Statement {
    statement
        .bind(gate.subscription.uuid())
        .bind(gate.edition.to_shared())
}

fn read(row: &SqliteRow) -> Result<Kept> {
    Ok(Kept {
        subscription: get(row, "subscription_id")?,
        edition: get(row, "edition")?,
        depth: get(row, "depth")?,
        tail: get(row, "tail")?,
    })
}
