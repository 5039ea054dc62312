//! Putting new deliveries into the queue: leased, waiting, or behind others of their edition.

use sqlx::SqliteConnection;
use uuid::Uuid;

use super::batch::{Delivery, FIRST_EPOCH};
use super::bulk::{self, Bulk};
use super::gates;
use super::rows::{count, duration_millis, lane_number};
use crate::domain::delivery::Lane;
use crate::domain::ids::EditionId;
use crate::store::gates::Crowd;
use crate::store::{Leasing, Result};

/// The lease that this accept gives, as it is written.
pub(super) struct Lease {
    owner: Uuid,
    pub(super) now: i64,
    until: i64,
}

impl Lease {
    pub(super) fn begin(leasing: Leasing, now: i64) -> Self {
        Self {
            owner: leasing.owner.uuid(),
            now,
            until: now.saturating_add(duration_millis(leasing.lease)),
        }
    }

    /// The columns `visible_at` and `owner` of what is leased.
    pub(super) fn taken(&self) -> (i64, Option<Uuid>) {
        (self.until, Some(self.owner))
    }

    /// The same of what waits.
    pub(super) fn left(&self) -> (i64, Option<Uuid>) {
        (self.now, None)
    }
}

/// Brings those that go by order to the tails of their gates.
pub(super) async fn line_up(
    transaction: &mut SqliteConnection,
    mut born: Vec<Delivery>,
) -> Result<Vec<Delivery>> {
    let mut crowd = Crowd::default();
    for gate in born.iter().filter_map(Delivery::comes_to) {
        crowd.add(gate);
    }
    let mut places = gates::come(transaction, crowd).await?;
    for delivery in &mut born {
        let gate = delivery.comes_to();
        delivery.place = gate.map(|gate| places.next(&gate)).transpose()?;
    }
    Ok(born)
}

/// Writes what was admitted as leased, and the rest to wait.
pub(super) async fn write_queue(
    transaction: &mut SqliteConnection,
    born: &[Delivery],
    lease: &Lease,
) -> Result<()> {
    static INSERT: Bulk = Bulk::new(
        "-- sqlite::events::write_queue
        with born (delivery_id, event_id, workspace, subscription_id, bytes) as (values ",
        "(?, ?, ?, ?, ?)",
        ")
        insert or fail into delivery_queue (delivery_id, event_id, workspace, subscription_id,
            lane, visible_at, owner, epoch, attempts, lost_leases, bytes)
        select delivery_id, event_id, workspace, subscription_id, ?, ?, ?, ?, 0, 0, bytes
        from born
        where delivery_id is not null",
    );
    let (gated, free): (Vec<_>, Vec<_>) =
        born.iter().partition(|delivery| delivery.place.is_some());
    write_gated(transaction, &gated, lease).await?;
    let (leased, waiting): (Vec<_>, Vec<_>) = free
        .into_iter()
        .partition(|delivery| delivery.permit.is_some());
    for (deliveries, (visible_at, owner)) in [(leased, lease.taken()), (waiting, lease.left())] {
        let statements = INSERT.statements(
            &deliveries,
            |statement, delivery| {
                let event = delivery.payload.event();
                statement
                    .bind(delivery.id.uuid())
                    .bind(event.id.uuid())
                    .bind(event.workspace.to_shared())
                    .bind(delivery.target.id().uuid())
                    .bind(count(event.envelope.len()))
            },
            |statement| {
                statement
                    .bind(lane_number(Lane::Fresh))
                    .bind(visible_at)
                    .bind(owner)
                    .bind(owner.map_or(0, |_| FIRST_EPOCH))
            },
        );
        bulk::execute(transaction, statements).await?;
    }
    Ok(())
}

/// The same of what queues at gates, where a head may be leased and the others wait their turn.
async fn write_gated(
    transaction: &mut SqliteConnection,
    born: &[&Delivery],
    lease: &Lease,
) -> Result<()> {
    static INSERT: Bulk = Bulk::new(
        "-- sqlite::events::write_gated
        with born (delivery_id, event_id, workspace, subscription_id, bytes, gate, ord, visible_at,
            owner, epoch) as (values ",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ")
        insert or fail into delivery_queue (delivery_id, event_id, workspace, subscription_id,
            lane, visible_at, owner, epoch, attempts, lost_leases, bytes, gate, ord)
        select delivery_id, event_id, workspace, subscription_id, ?, visible_at, owner, epoch, 0, 0,
            bytes, gate, ord
        from born
        where delivery_id is not null",
    );
    let statements = INSERT.statements(
        born,
        |statement, delivery| {
            let event = delivery.payload.event();
            let (visible_at, owner) = match (&delivery.permit, delivery.is_left()) {
                (Some(_), _) => lease.taken(),
                (None, true) => lease.left(),
                (None, false) => (gates::NEVER, None),
            };
            statement
                .bind(delivery.id.uuid())
                .bind(event.id.uuid())
                .bind(event.workspace.to_shared())
                .bind(delivery.target.id().uuid())
                .bind(count(event.envelope.len()))
                .bind(delivery.gate().map(EditionId::to_shared))
                .bind(delivery.place.map(|place| place.ord))
                .bind(visible_at)
                .bind(owner)
                .bind(owner.map_or(0, |_| FIRST_EPOCH))
        },
        |statement| statement.bind(lane_number(Lane::Fresh)),
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}
