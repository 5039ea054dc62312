//! The hot queue: what is due, and taking it. Outcomes are in [`super::settle`], counting is in
//! [`super::depth`].

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgTransaction};
use uuid::Uuid;

use super::errors::{from_sqlx, reading, retrying};
use super::floors::{self, Floors};
use super::rows::{EventRow, count, interval, lane_number, lane_of, limit, optional};
use super::{PostgresStore, Result, StoreError, circuits, commit};
use crate::domain::delivery::{Lane, Sending};
use crate::domain::ids::{DeliveryId, EventId, OwnerId, ReplayId, SubscriptionId};
use crate::domain::payload::Payload;
use crate::domain::replay::{Replaying, Was};
use crate::store::gates::GATES_AT_ONCE;
use crate::store::operational::parts;
use crate::store::targets::{Offer, Target, Targets};
use crate::store::unreadable::{Claimed, Unreadable};
use crate::store::{
    Claim, DeliveryQueue, Due, LeasedDelivery, QueueDepth, SettleOutcome, Settlement,
};

/// How long after its deletion a subscription's deliveries are looked for.
const SWEEP_AGAIN_FOR: Duration = Duration::from_mins(5);

#[async_trait]
impl DeliveryQueue for PostgresStore {
    async fn due(&self, grace: Duration) -> Result<Due> {
        reading(self.look(grace)).await
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<LeasedDelivery>> {
        let claimed = retrying(|| self.claim_once(claim)).await?;
        let owner = claim.leasing.owner;
        Ok(claimed.end_unreadable(self, owner, self.clock.now()).await)
    }

    async fn settle(
        &self,
        owner: OwnerId,
        settlements: &[Settlement],
    ) -> Result<Vec<SettleOutcome>> {
        let mut outcomes = Vec::with_capacity(settlements.len());
        for part in parts(settlements, &self.held_targets()) {
            outcomes.extend(retrying(|| self.settle_once(owner, part)).await?);
        }
        Ok(outcomes)
    }

    async fn cancel_orphans(&self, grace: Duration, limit: usize) -> Result<usize> {
        retrying(|| self.cancel_once(grace, limit)).await
    }

    async fn queue_depth(&self) -> Result<QueueDepth> {
        reading(self.depth()).await
    }
}

impl PostgresStore {
    /// For each active subscription and lane: the first row that is due; the first to come that nobody
    /// holds; and, where nothing is due, the lease that can be taken over soonest. Three descents of
    /// the index, each past at most as many rows as are in flight: where nothing is due, every row
    /// up to the first that nobody holds is leased.
    async fn look(&self, grace: Duration) -> Result<Due> {
        let mut connection = self.connection().await?;
        let targets = self.current_targets(&mut connection).await?;
        if targets.is_empty() {
            return Ok(Due::default());
        }
        let now = circuits::now(&mut connection, &targets).await?;
        let mut due = Due::default();
        let mut ids: Vec<Uuid> = Vec::with_capacity(targets.len());
        let mut asked_only: Vec<bool> = Vec::with_capacity(targets.len());
        for target in targets.iter() {
            ids.push(target.id().uuid());
            let offer = target.offer(now);
            asked_only.push(matches!(offer, Offer::AskedUntil(_)));
            if let Offer::AskedUntil(until) = offer {
                let wait = (until - now).to_std().unwrap_or_default();
                due.next_in = due.next_in.into_iter().chain([wait]).min();
            }
        }
        let rows: Vec<DueRow> = sqlx::query_as(
            "-- postgres::queue::look
            select
                active.subscription_id,
                lanes.lane,
                ready.visible_at as first,
                now() - greatest($3::interval, $6::interval) as before,
                extract(epoch from least(waiting.visible_at, leased.visible_at + $3::interval)
                    - now())::float8 as next_secs
            from unnest($1::uuid[], $4::boolean[]) as active (subscription_id, asked_only)
            join unnest($2::smallint[]) as lanes (lane)
                on not active.asked_only or lanes.lane = $5
            left join lateral (
                select q.visible_at
                from delivery_queue q
                where q.subscription_id = active.subscription_id
                  and q.lane = lanes.lane
                  and q.visible_at <= now()
                  and (q.owner is null or q.visible_at <= now() - $3::interval)
                  and (not active.asked_only or q.replay_id is null)
                order by q.visible_at
                limit 1
            ) as ready on true
            left join lateral (
                select q.visible_at
                from delivery_queue q
                where q.subscription_id = active.subscription_id
                  and q.lane = lanes.lane
                  and q.visible_at > now()
                  -- What waits its turn has no time.
                  and q.visible_at < 'infinity'
                  and q.owner is null
                order by q.visible_at
                limit 1
            ) as waiting on true
            left join lateral (
                select q.visible_at
                from delivery_queue q
                where ready.visible_at is null
                  and q.subscription_id = active.subscription_id
                  and q.lane = lanes.lane
                  and q.visible_at > now() - $3::interval
                  and q.visible_at < coalesce(waiting.visible_at, 'infinity')
                order by q.visible_at
                limit 1
            ) as leased on true
            where ready.visible_at is not null
               or waiting.visible_at is not null
               or leased.visible_at is not null",
        )
        .bind(ids)
        .bind(Lane::ALL.map(lane_number))
        .bind(interval(grace))
        .bind(asked_only)
        .bind(lane_number(Lane::Replay))
        .bind(interval(floors::LATEST))
        .fetch_all(&mut *connection)
        .await
        .map_err(from_sqlx)?;

        // Where there is nothing at all, no time is told, and the one of before holds.
        let mut floors = rows.first().map(|row| Floors::new(&targets, row.before));
        for row in rows {
            let target = targets.get(SubscriptionId::from_uuid(row.subscription_id));
            if let (Some(first), Some(target)) = (row.first, target) {
                due.work.push((Arc::clone(target), lane_of(row.lane)?));
                if let Some(floors) = &mut floors {
                    floors.found(row.subscription_id, row.lane, first);
                }
            }
            due.next_in = due
                .next_in
                .into_iter()
                .chain(row.next_secs.map(seconds))
                .min();
        }
        if let Some(floors) = floors {
            self.hold_floors(floors);
        }
        Ok(due)
    }

    async fn claim_once(&self, claim: &Claim) -> Result<Claimed> {
        // Read before the database reads its own clock: our end of a lease is never the later one.
        let leased_until = self.clock.monotonic() + claim.leasing.lease;
        let mut tx = self.begin().await?;
        let targets = self.current_targets(&mut tx).await?;
        let now = circuits::now(&mut tx, &targets).await?;
        let waiting = waiting_for_probes(claim, &targets, now);
        let probed = if waiting.is_empty() {
            waiting
        } else {
            circuits::take_probes(&mut tx, &waiting, claim.leasing).await?
        };
        let wanted = Wanted::of(claim, &targets, &probed, &self.held_floors());
        if wanted.subscription_ids.is_empty() {
            return Ok(Claimed::default());
        }
        let rows = lease(&mut tx, claim, wanted).await?;
        if !probed.is_empty() {
            let leased = rows.iter().map(|row| row.subscription_id);
            let sent = leased.filter(|id| probed.contains(id)).collect();
            circuits::send_probes(&mut tx, &probed, sent).await?;
        }
        let payloads = load_payloads(&mut tx, &rows).await?;
        let mut claimed = Claimed::default();
        for row in rows {
            let id = SubscriptionId::from_uuid(row.subscription_id);
            let target = targets.get(id).ok_or_else(|| {
                StoreError::Corrupt(format!("a delivery of {id}, which did not ask for it"))
            })?;
            let sending = if probed.contains(&row.subscription_id) {
                Sending::Probe
            } else if target.is_left_alone() {
                Sending::Asked
            } else {
                Sending::Usual
            };
            let payload = payloads
                .get(&row.event_id)
                .filter(|payload| payload.event().workspace == target.subscription.workspace);
            match payload {
                Some(payload) => {
                    let how = (claim.lane, sending, leased_until);
                    claimed.leased.push(row.into_leased(how, target, payload)?);
                }
                None => claimed
                    .unreadable
                    .push(row.into_unreadable(sending, target)?),
            }
        }
        commit(tx).await?;
        Ok(claimed)
    }

    async fn cancel_once(&self, grace: Duration, most: usize) -> Result<usize> {
        let mut tx = self.begin().await?;
        let cancelled: i64 = sqlx::query_scalar(
            "-- postgres::queue::cancel_once (move)
            with orphan as materialized (
                select waiting.delivery_id
                from subscription s
                cross join lateral (
                    select q.delivery_id
                    from delivery_queue q
                    where q.subscription_id = s.id
                      and q.workspace = s.workspace
                      and (q.owner is null or q.visible_at <= now() - $1::interval)
                    limit $2
                    for update skip locked
                ) as waiting
                where s.status = 'deleted' and not s.swept
                limit $2
            ), cancelled as (
                delete from delivery_queue
                where delivery_id = any(array(select delivery_id from orphan))
                returning
                    delivery_id, event_id, workspace, subscription_id, epoch, attempts, replayed
            ), moved as (
                insert into delivery (
                    id, event_id, workspace, subscription_id, epoch, attempts, state, settled_at
                )
                select
                    delivery_id, event_id, workspace, subscription_id, epoch, attempts, 'cancelled',
                    clock_timestamp()
                from cancelled
                -- What was to be sent once more is in history already, and stays there as it is.
                where replayed is distinct from 'succeeded'
            )
            select count(*) from cancelled",
        )
        .bind(interval(grace))
        .bind(limit(most))
        .fetch_one(&mut *tx)
        .await
        .map_err(from_sqlx)?;
        if cancelled == 0 {
            mark_swept(&mut tx).await?;
        }
        commit(tx).await?;
        usize::try_from(cancelled).map_err(StoreError::corrupt)
    }
}

/// Seconds out of the database; a clock that was set back makes them zero.
pub(super) fn seconds(value: f64) -> Duration {
    Duration::try_from_secs_f64(value.max(0.0)).unwrap_or_default()
}

/// Those of the subscriptions that are asked for to which a probe may be due.
fn waiting_for_probes(claim: &Claim, targets: &Targets, now: DateTime<Utc>) -> Vec<Uuid> {
    let asked = claim.wants.iter().filter_map(|(id, _)| targets.get(*id));
    asked
        .filter(|target| target.offer(now) == Offer::Probe)
        .map(|target| target.id().uuid())
        .collect()
}

/// What a claim asks for, of active subscriptions only, each once; one delivery of those that are to
/// be probed, and of others that are left alone only what somebody asked for by itself.
#[derive(Default)]
struct Wanted<'a> {
    subscription_ids: Vec<Uuid>,
    workspaces: Vec<&'a str>,
    limits: Vec<i64>,
    asked_only: Vec<bool>,
    /// From when on.
    floors: Vec<DateTime<Utc>>,
}

impl<'a> Wanted<'a> {
    fn of(claim: &Claim, targets: &'a Targets, probed: &[Uuid], floors: &Floors) -> Self {
        let mut wanted = Self::default();
        let mut seen = HashSet::new();
        for (id, most) in &claim.wants {
            if let Some(target) = targets.get(*id)
                && seen.insert(*id)
            {
                let (most, asked_only) = match (target.is_left_alone(), probed.contains(&id.uuid()))
                {
                    (false, _) => (*most, false),
                    (true, true) => (1.min(*most), false),
                    (true, false) if claim.lane == Lane::Replay => (*most, true),
                    (true, false) => continue,
                };
                wanted.subscription_ids.push(id.uuid());
                wanted
                    .workspaces
                    .push(target.subscription.workspace.as_str());
                wanted.limits.push(limit(most));
                wanted.asked_only.push(asked_only);
                let floor = floors.of(targets, id.uuid(), claim.lane);
                wanted.floors.push(floor);
            }
        }
        wanted
    }
}

/// What a look finds of a subscription and lane.
#[derive(FromRow)]
struct DueRow {
    subscription_id: Uuid,
    lane: i16,
    /// When the first that is due became so.
    first: Option<DateTime<Utc>>,
    /// What became due before this is `first`, or not there.
    before: DateTime<Utc>,
    next_secs: Option<f64>,
}

#[derive(FromRow)]
struct LeasedRow {
    delivery_id: Uuid,
    event_id: Uuid,
    subscription_id: Uuid,
    epoch: i32,
    attempts: i32,
    base: i32,
    replayed: Option<String>,
    replay_id: Option<Uuid>,
    gate: Option<String>,
    lost_leases: i32,
    turn: i64,
}

impl LeasedRow {
    fn into_leased(
        self,
        (lane, sending, leased_until): (Lane, Sending, Duration),
        target: &Arc<Target>,
        payload: &Arc<Payload>,
    ) -> Result<LeasedDelivery> {
        Ok(LeasedDelivery {
            id: DeliveryId::from_uuid(self.delivery_id),
            epoch: self.epoch,
            attempts: count("delivery_queue.attempts", self.attempts)?,
            base: count("delivery_queue.base", self.base)?,
            replaying: self.replaying()?,
            gate: optional("delivery_queue.gate", self.gate)?,
            lost_leases: count("delivery_queue.lost_leases", self.lost_leases)?,
            lane,
            sending,
            payload: Arc::clone(payload),
            target: Arc::clone(target),
            leased_until,
        })
    }

    fn into_unreadable(self, sending: Sending, target: &Arc<Target>) -> Result<Unreadable> {
        Ok(Unreadable {
            delivery: DeliveryId::from_uuid(self.delivery_id),
            event: EventId::from_uuid(self.event_id),
            target: Arc::clone(target),
            epoch: self.epoch,
            attempts: count("delivery_queue.attempts", self.attempts)?,
            replaying: self.replaying()?,
            gate: optional("delivery_queue.gate", self.gate)?,
            lost_leases: count("delivery_queue.lost_leases", self.lost_leases)?,
            sending,
        })
    }

    fn replaying(&self) -> Result<Option<Replaying>> {
        let was = optional::<Was>("delivery_queue.replayed", self.replayed.clone())?;
        let bulk = self.replay_id.map(ReplayId::from_uuid);
        Ok(was.map(|was| Replaying { was, bulk }))
    }
}

/// Leases what is due, in turns: the oldest of each subscription, then the second of each, until
/// the bytes are spent. Rows that another claim holds are passed over.
///
/// The rows are updated where they were found, by an array and not by a join: after a vacuum of a
/// nearly empty queue the planner takes any later backlog for a handful of rows, and would hold each
/// of them against the whole claim. While this transaction holds their locks nobody moves
/// them, and they need not be looked up again. One that moved between the statement's start and its
/// lock is left for the next claim. They come back in no order, each with its turn.
async fn lease(
    tx: &mut PgTransaction<'_>,
    claim: &Claim,
    wanted: Wanted<'_>,
) -> Result<Vec<LeasedRow>> {
    let mut rows: Vec<LeasedRow> = sqlx::query_as(
        "-- postgres::queue::lease
        with candidate as materialized (
            select
                due.delivery_id,
                due.found_at,
                due.bytes,
                wanted.place,
                row_number() over (partition by wanted.place order by due.visible_at) as round
            from unnest($1::uuid[], $2::text[], $3::bigint[], $9::boolean[], $10::timestamptz[])
                with ordinality
                as wanted (subscription_id, workspace, most, asked_only, floor, place)
            cross join lateral (
                select q.delivery_id, q.ctid as found_at, q.bytes, q.visible_at
                from delivery_queue q
                where q.subscription_id = wanted.subscription_id
                  and q.workspace = wanted.workspace
                  and q.lane = $4
                  and q.visible_at >= wanted.floor
                  and q.visible_at <= now()
                  and (q.owner is null or q.visible_at <= now() - $5::interval)
                  and (not wanted.asked_only or q.replay_id is null)
                order by q.visible_at
                limit wanted.most
                for update skip locked
            ) as due
        ), queued as (
            select
                delivery_id,
                found_at,
                row_number() over in_turn as turn,
                sum(bytes) over in_turn as bytes_so_far
            from candidate
            window in_turn as (order by round, place rows unbounded preceding)
        ), chosen as materialized (
            select delivery_id, found_at, turn
            from queued
            where turn = 1 or bytes_so_far <= $6
        ), leased as (
            update delivery_queue
            set owner = $7,
                epoch = epoch + 1,
                lost_leases = lost_leases + case when owner is null then 0 else 1 end,
                visible_at = clock_timestamp() + $8::interval
            where ctid = any(array(select found_at from chosen))
            returning
                delivery_id, event_id, subscription_id, epoch, attempts, base, replayed, replay_id,
                gate, lost_leases
        )
        select
            leased.delivery_id, leased.event_id, leased.subscription_id, leased.epoch,
            leased.attempts, leased.base, leased.replayed, leased.replay_id, leased.gate,
            leased.lost_leases, chosen.turn
        from leased
        join chosen using (delivery_id)",
    )
    .bind(wanted.subscription_ids)
    .bind(wanted.workspaces)
    .bind(wanted.limits)
    .bind(lane_number(claim.lane))
    .bind(interval(claim.grace))
    .bind(limit(claim.max_bytes))
    .bind(claim.leasing.owner.uuid())
    .bind(interval(claim.leasing.lease))
    .bind(wanted.asked_only)
    .bind(wanted.floors)
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    rows.sort_unstable_by_key(|row| row.turn);
    Ok(rows)
}

/// The events of these deliveries, each once, however many deliveries share it.
async fn load_payloads(
    tx: &mut PgTransaction<'_>,
    rows: &[LeasedRow],
) -> Result<HashMap<Uuid, Arc<Payload>>> {
    let ids: HashSet<Uuid> = rows.iter().map(|row| row.event_id).collect();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let events: Vec<EventRow> = sqlx::query_as(
        "-- postgres::queue::load_payloads
        select id, workspace, source, external_id, type, project, edition, body, occurred_at
        from event
        where id = any($1)",
    )
    .bind(Vec::from_iter(ids))
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let mut payloads = HashMap::with_capacity(events.len());
    for row in events {
        let id = row.id;
        match row.into_event() {
            Ok(event) => {
                payloads.insert(id, Arc::new(Payload::new(event)));
            }
            Err(error) => tracing::error!(%error, "an event cannot be read back"),
        }
    }
    Ok(payloads)
}

/// Leaves deleted subscriptions out of the next sweeps once nothing of them can appear any more: an
/// accept that knew them still may have been in progress when they were deleted, but no transaction
/// lives for minutes. Before that their gates go, so many at once.
async fn mark_swept(tx: &mut PgTransaction<'_>) -> Result<()> {
    sqlx::query(
        "-- postgres::queue::mark_swept (gates)
        delete from order_gate
        where ctid = any(array(
            select gate.found_at
            from subscription s
            cross join lateral (
                select g.ctid as found_at
                from order_gate g
                where g.subscription_id = s.id
                limit $2
            ) as gate
            where s.status = 'deleted'
              and not s.swept
              and s.deleted_at < now() - $1::interval
              and not exists (select from delivery_queue q where q.subscription_id = s.id)
            limit $2
        ))",
    )
    .bind(SWEEP_AGAIN_FOR)
    .bind(limit(GATES_AT_ONCE))
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    sqlx::query(
        "-- postgres::queue::mark_swept
        update subscription s
        set swept = true
        where s.status = 'deleted'
          and not s.swept
          and s.deleted_at < now() - $1::interval
          and not exists (select from delivery_queue q where q.subscription_id = s.id)
          and not exists (select from order_gate g where g.subscription_id = s.id)",
    )
    .bind(SWEEP_AGAIN_FOR)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}
