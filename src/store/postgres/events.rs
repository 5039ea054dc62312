//! Taking events in: six round trips for a batch, whatever its size.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::PgTransaction;
use uuid::Uuid;

use super::errors::{expect_rows, from_sqlx, retrying};
use super::rows::{interval, lane_number};
use super::{PostgresStore, Result, commit};
use crate::domain::delivery::Lane;
use crate::domain::ids::{DeliveryId, EditionId, ProjectId};
use crate::domain::payload::Payload;
use crate::store::identity::{delivery_id, event_key};
use crate::store::intake::{Intake, Permit};
use crate::store::targets::{Target, Targets};
use crate::store::{
    AcceptOutcome, Accepted, EventStore, LeasedDelivery, Leasing, MAX_FAN_OUT_ROWS,
};

/// The lock under which feed positions are drawn.
const FEED_LOCK: i64 = 0x666f_7267_6566_6565;

/// The epoch of a delivery that was born leased.
const FIRST_EPOCH: i32 = 1;

#[async_trait]
impl EventStore for PostgresStore {
    async fn accept(
        &self,
        events: &[Arc<Payload>],
        leasing: Leasing,
        intake: &dyn Intake,
    ) -> Result<Accepted> {
        if events.is_empty() {
            return Ok(Accepted::default());
        }
        retrying(|| self.accept_once(events, leasing, intake)).await
    }
}

impl PostgresStore {
    async fn accept_once(
        &self,
        events: &[Arc<Payload>],
        leasing: Leasing,
        intake: &dyn Intake,
    ) -> Result<Accepted> {
        // Read before the database reads its own clock: our end of a lease is never the later one.
        let leased_until = self.clock.monotonic() + leasing.lease;
        let mut tx = self.begin().await?;
        let targets = self.current_targets(&mut tx).await?;
        let taken = take(events, &targets);
        let arrivals = insert_keys(&mut tx, &taken).await?;

        let new = arrived(&taken, &arrivals, Arrival::New);
        let again = arrived(&taken, &arrivals, Arrival::Again);
        let mut births: Vec<Birth<'_>> = routes(&new)
            .map(|(payload, target)| Birth::of(payload, target, intake))
            .collect();
        if !new.is_empty() {
            insert_events(&mut tx, &new, &births, leasing).await?;
        }
        if !again.is_empty() {
            births.extend(adopt(&mut tx, &again, leasing, intake).await?);
        }
        if !new.is_empty() {
            insert_feed(&mut tx, &new).await?;
        }
        commit(tx).await?;

        let pending = births.iter().filter(|birth| birth.permit.is_none()).count();
        Ok(Accepted {
            outcomes: arrivals.into_iter().map(Arrival::outcome).collect(),
            leased: births
                .into_iter()
                .filter_map(|birth| birth.leased(leased_until))
                .collect(),
            pending,
        })
    }
}

/// One event of the part of the batch that is taken.
struct Taken<'a> {
    payload: &'a Arc<Payload>,
    key: [u8; 16],
    /// `None` for one that the batch holds twice.
    targets: Option<Vec<&'a Arc<Target>>>,
}

/// What an event turned out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// Never seen.
    New,
    /// Committed by an earlier try of the same call, under the same id.
    Again,
    /// Another event had its identity.
    Duplicate,
}

impl Arrival {
    fn outcome(self) -> AcceptOutcome {
        match self {
            Self::New | Self::Again => AcceptOutcome::Stored,
            Self::Duplicate => AcceptOutcome::Duplicate,
        }
    }
}

/// The events that one transaction takes, with the subscriptions they go to. Known events count
/// towards the limit too, since only the next statement can tell them.
fn take<'a>(events: &'a [Arc<Payload>], targets: &'a Targets) -> Vec<Taken<'a>> {
    let mut taken: Vec<Taken<'_>> = Vec::with_capacity(events.len());
    let mut keys = HashSet::with_capacity(events.len());
    let mut rows = 0;
    for payload in events {
        let key = event_key(payload.event());
        let matching = keys
            .insert(key)
            .then(|| targets.matching(payload.event()).collect::<Vec<_>>());
        rows += matching.as_ref().map_or(0, Vec::len);
        if rows > MAX_FAN_OUT_ROWS && !taken.is_empty() {
            break;
        }
        taken.push(Taken {
            payload,
            key,
            targets: matching,
        });
    }
    taken
}

/// A delivery about to be written.
struct Birth<'a> {
    id: DeliveryId,
    payload: &'a Arc<Payload>,
    target: &'a Arc<Target>,
    /// Leased from its birth, if there is one.
    permit: Option<Permit>,
}

impl<'a> Birth<'a> {
    fn of(payload: &'a Arc<Payload>, target: &'a Arc<Target>, intake: &dyn Intake) -> Self {
        Self {
            id: delivery_id(payload.event().id, target.id()),
            payload,
            target,
            permit: intake.admit(target, payload.event().envelope.len()),
        }
    }

    fn leased(self, leased_until: Duration) -> Option<(LeasedDelivery, Permit)> {
        let delivery = LeasedDelivery {
            id: self.id,
            epoch: FIRST_EPOCH,
            attempts: 0,
            lost_leases: 0,
            lane: Lane::Fresh,
            payload: Arc::clone(self.payload),
            target: Arc::clone(self.target),
            leased_until,
        };
        self.permit.map(|permit| (delivery, permit))
    }
}

/// The events that arrived so.
fn arrived<'t, 'a>(
    taken: &'t [Taken<'a>],
    arrivals: &[Arrival],
    wanted: Arrival,
) -> Vec<&'t Taken<'a>> {
    taken
        .iter()
        .zip(arrivals)
        .filter(|(_, arrival)| **arrival == wanted)
        .map(|(taken, _)| taken)
        .collect()
}

/// Which event goes where.
fn routes<'a>(events: &[&Taken<'a>]) -> impl Iterator<Item = (&'a Arc<Payload>, &'a Arc<Target>)> {
    events.iter().flat_map(|taken| {
        let payload = taken.payload;
        let targets = taken.targets.iter().flatten().copied();
        targets.map(move |target| (payload, target))
    })
}

/// Claims the identities of the batch, and says what each event turned out to be. Sorted: batches
/// that share keys in another order would wait for each other for ever.
async fn insert_keys(tx: &mut PgTransaction<'_>, taken: &[Taken<'_>]) -> Result<Vec<Arrival>> {
    let mut pairs: Vec<([u8; 16], Uuid)> = taken
        .iter()
        .filter(|taken| taken.targets.is_some())
        .map(|taken| (taken.key, taken.payload.event().id.uuid()))
        .collect();
    pairs.sort_unstable();
    let (keys, event_ids): (Vec<[u8; 16]>, Vec<Uuid>) = pairs.into_iter().unzip();
    let inserted: Vec<Vec<u8>> = sqlx::query_scalar(
        "-- postgres::events::insert_keys
        insert into event_key (key, event_id)
        select key, event_id
        from unnest($1::bytea[], $2::uuid[]) as arriving (key, event_id)
        on conflict do nothing
        returning key",
    )
    .bind(&keys)
    .bind(event_ids)
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let mut inserted: HashSet<Vec<u8>> = inserted.into_iter().collect();
    let known = if inserted.len() < keys.len() {
        known_keys(tx, &keys).await?
    } else {
        HashMap::new()
    };
    let arrivals = taken.iter().map(|taken| {
        if taken.targets.is_none() {
            Arrival::Duplicate
        } else if inserted.remove(taken.key.as_slice()) {
            Arrival::New
        } else if known.get(taken.key.as_slice()) == Some(&taken.payload.event().id.uuid()) {
            Arrival::Again
        } else {
            Arrival::Duplicate
        }
    });
    Ok(arrivals.collect())
}

async fn known_keys(
    tx: &mut PgTransaction<'_>,
    keys: &[[u8; 16]],
) -> Result<HashMap<Vec<u8>, Uuid>> {
    let rows: Vec<(Vec<u8>, Uuid)> = sqlx::query_as(
        "-- postgres::events::known_keys
        select key, event_id
        from event_key
        where key = any($1::bytea[])",
    )
    .bind(keys)
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(rows.into_iter().collect())
}

/// Writes events and their deliveries.
async fn insert_events(
    tx: &mut PgTransaction<'_>,
    new: &[&Taken<'_>],
    births: &[Birth<'_>],
    leasing: Leasing,
) -> Result<()> {
    let events = EventColumns::of(new);
    let deliveries = BirthColumns::of(births);
    let (kept, queued): (i64, i64) = sqlx::query_as(
        "-- postgres::events::insert_events
        with kept as (
            insert into event (
                id, workspace, source, external_id, type, project, edition, body, occurred_at
            )
            select id, workspace, source, external_id, type, project, edition, body, occurred_at
            from unnest(
                $1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                $8::text[], $9::timestamptz[]
            ) as arriving (
                id, workspace, source, external_id, type, project, edition, body, occurred_at
            )
            returning id
        ), queued as (
            insert into delivery_queue (
                delivery_id, event_id, workspace, subscription_id, bytes,
                lane, visible_at, owner, epoch, attempts, lost_leases
            )
            select
                delivery_id, event_id, workspace, subscription_id, bytes,
                $16,
                case when leased then clock_timestamp() + $17::interval else clock_timestamp() end,
                case when leased then $18::uuid end,
                case when leased then $19::integer else 0 end,
                0,
                0
            from unnest(
                $10::uuid[], $11::uuid[], $12::text[], $13::uuid[], $14::integer[], $15::boolean[]
            ) as born (delivery_id, event_id, workspace, subscription_id, bytes, leased)
            returning delivery_id
        )
        select (select count(*) from kept), (select count(*) from queued)",
    )
    .bind(events.ids)
    .bind(events.workspaces)
    .bind(events.sources)
    .bind(events.external_ids)
    .bind(events.types)
    .bind(events.projects)
    .bind(events.editions)
    .bind(events.bodies)
    .bind(events.times)
    .bind(deliveries.ids)
    .bind(deliveries.event_ids)
    .bind(deliveries.workspaces)
    .bind(deliveries.subscription_ids)
    .bind(deliveries.bytes)
    .bind(deliveries.leased)
    .bind(lane_number(Lane::Fresh))
    .bind(interval(leasing.lease))
    .bind(leasing.owner.uuid())
    .bind(FIRST_EPOCH)
    .fetch_one(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("event", new.len(), kept)?;
    expect_rows("delivery_queue", births.len(), queued)
}

#[derive(Default)]
struct EventColumns<'a> {
    ids: Vec<Uuid>,
    workspaces: Vec<&'a str>,
    sources: Vec<&'a str>,
    external_ids: Vec<&'a str>,
    types: Vec<&'a str>,
    projects: Vec<Option<&'a str>>,
    editions: Vec<Option<&'a str>>,
    bodies: Vec<&'a str>,
    times: Vec<DateTime<Utc>>,
}

impl<'a> EventColumns<'a> {
    fn of(new: &[&Taken<'a>]) -> Self {
        let mut columns = Self::default();
        for event in new.iter().map(|taken| taken.payload.event()) {
            columns.ids.push(event.id.uuid());
            columns.workspaces.push(event.workspace.as_str());
            columns.sources.push(&event.source);
            columns.external_ids.push(&event.external_id);
            columns.types.push(event.event_type.as_str());
            columns
                .projects
                .push(event.project.as_ref().map(ProjectId::as_str));
            columns
                .editions
                .push(event.edition.as_ref().map(EditionId::as_str));
            columns.bodies.push(&event.envelope);
            columns.times.push(event.occurred_at);
        }
        columns
    }
}

#[derive(Default)]
struct BirthColumns<'a> {
    ids: Vec<Uuid>,
    event_ids: Vec<Uuid>,
    workspaces: Vec<&'a str>,
    subscription_ids: Vec<Uuid>,
    bytes: Vec<i32>,
    leased: Vec<bool>,
}

impl<'a> BirthColumns<'a> {
    fn of(births: &[Birth<'a>]) -> Self {
        let mut columns = Self::default();
        for birth in births {
            let event = birth.payload.event();
            columns.ids.push(birth.id.uuid());
            columns.event_ids.push(event.id.uuid());
            columns.workspaces.push(event.workspace.as_str());
            columns.subscription_ids.push(birth.target.id().uuid());
            columns
                .bytes
                .push(i32::try_from(event.envelope.len()).unwrap_or(i32::MAX));
            columns.leased.push(birth.permit.is_some());
        }
        columns
    }
}

/// Takes back the deliveries that an earlier try of this call committed as ours and that nobody
/// sent: those that get a permit are leased anew at the same epoch, the others wait for anyone.
async fn adopt<'a>(
    tx: &mut PgTransaction<'_>,
    again: &[&Taken<'a>],
    leasing: Leasing,
    intake: &dyn Intake,
) -> Result<Vec<Birth<'a>>> {
    let routes: HashMap<Uuid, (&Arc<Payload>, &Arc<Target>)> = routes(again)
        .map(|(payload, target)| {
            let id = delivery_id(payload.event().id, target.id());
            (id.uuid(), (payload, target))
        })
        .collect();
    let asked: Vec<Uuid> = routes.keys().copied().collect();
    let ours: Vec<Uuid> = sqlx::query_scalar(
        "-- postgres::events::adopt (find)
        select delivery_id
        from delivery_queue
        where delivery_id = any($1) and owner = $2 and epoch = $3
        order by delivery_id
        for update",
    )
    .bind(asked)
    .bind(leasing.owner.uuid())
    .bind(FIRST_EPOCH)
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let births: Vec<Birth<'_>> = ours
        .iter()
        .filter_map(|id| routes.get(id))
        .map(|(payload, target)| Birth::of(payload, target, intake))
        .collect();
    let permitted: Vec<bool> = births.iter().map(|birth| birth.permit.is_some()).collect();
    let adopted = sqlx::query(
        "-- postgres::events::adopt (lease)
        update delivery_queue q
        set owner = case when ours.permitted then q.owner end,
            visible_at = case
                when ours.permitted then clock_timestamp() + $3::interval
                else clock_timestamp()
            end
        from unnest($1::uuid[], $2::boolean[]) as ours (delivery_id, permitted)
        where q.delivery_id = ours.delivery_id",
    )
    .bind(&ours)
    .bind(permitted)
    .bind(interval(leasing.lease))
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("delivery_queue", ours.len(), adopted.rows_affected())?;
    Ok(births)
}

/// Gives the events their places in the feed, in the order given. The lock is the last thing that
/// the transaction waits for and is held to its end, so positions become visible in their order.
async fn insert_feed(tx: &mut PgTransaction<'_>, new: &[&Taken<'_>]) -> Result<()> {
    let events = || new.iter().map(|taken| taken.payload.event());
    let workspaces: Vec<&str> = events().map(|event| event.workspace.as_str()).collect();
    let ids: Vec<Uuid> = events().map(|event| event.id.uuid()).collect();
    let placed = sqlx::query(
        "-- postgres::events::insert_feed
        with turn as materialized (
            select pg_advisory_xact_lock($1)
        )
        insert into event_feed (workspace, position, event_id)
        select arriving.workspace, nextval('event_feed_position'), arriving.event_id
        from turn
        cross join unnest($2::text[], $3::uuid[]) as arriving (workspace, event_id)",
    )
    .bind(FEED_LOCK)
    .bind(workspaces)
    .bind(ids)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("event_feed", new.len(), placed.rows_affected())
}
