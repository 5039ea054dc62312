//! The hot queue: what is due, who leases it, what is cancelled. Settling is in `settle`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;
use uuid::Uuid;

use super::SqliteStore;
use super::bulk::{self, Bulk, Statement};
use super::circuits::send_probes;
use super::error::store_error;
use super::rows::{
    count, duration_millis, event, get, id, lane_number, lane_of, millis, optional_parsed, unsigned,
};
use crate::domain::delivery::{Lane, Sending};
use crate::domain::ids::{DeliveryId, EditionId, EventId, OwnerId, ReplayId};
use crate::domain::payload::Payload;
use crate::domain::replay::Replaying;
use crate::store::gates::GATES_AT_ONCE;
use crate::store::operational::parts;
use crate::store::targets::{Offer, Target, Targets};
use crate::store::unreadable::{Claimed, Unreadable};
use crate::store::{
    Claim, DeliveryQueue, Due, LeasedDelivery, QueueDepth, Result, SettleOutcome, Settlement,
};

/// How long after its deletion a subscription is looked at for deliveries to cancel. Here none can
/// come after the deletion was committed; the time is that of the other store, where an accept that
/// began before may end after.
const SWEPT_AFTER: Duration = Duration::from_mins(10);

#[async_trait]
impl DeliveryQueue for SqliteStore {
    async fn due(&self, grace: Duration) -> Result<Due> {
        let mut transaction = self.read().await?;
        let time = self.clock.now();
        let now = millis(time);
        let targets = self.targets(&mut transaction).await?;
        let rows = lanes(
            &mut transaction,
            now,
            now.saturating_sub(duration_millis(grace)),
            &targets,
        )
        .await?;

        let mut due = Due::default();
        let mut next: Option<i64> = None;
        for row in &rows {
            let Some(target) = targets.get(id(row, "subscription_id")?) else {
                continue;
            };
            let lane = lane_of(get(row, "lane")?)?;
            if let Offer::AskedUntil(until) = target.offer(time) {
                let at = millis(until);
                next = Some(next.map_or(at, |next| next.min(at)));
                if get(row, "is_asked")? {
                    due.work.push((Arc::clone(target), lane));
                }
                continue;
            }
            if get::<Option<i64>>(row, "due_at")?.is_some() {
                due.work.push((Arc::clone(target), lane));
            }
            if let Some(at) = get::<Option<i64>>(row, "next_at")? {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        due.next_in = next
            .and_then(|at| u64::try_from(at.saturating_sub(now)).ok())
            .map(Duration::from_millis);
        Ok(due)
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<LeasedDelivery>> {
        let claimed = self.claim_once(claim).await?;
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
            outcomes.extend(self.write_outcomes(owner, part).await?);
        }
        Ok(outcomes)
    }

    async fn cancel_orphans(&self, grace: Duration, limit: usize) -> Result<usize> {
        let mut transaction = self.write().await?;
        let now = millis(self.clock.now());
        let orphans = orphans(
            &mut transaction,
            now.saturating_sub(duration_millis(grace)),
            limit,
        )
        .await?;
        cancel(&mut transaction, &orphans, now).await?;
        mark_swept(&mut transaction, now).await?;
        self.commit(transaction).await?;
        Ok(orphans.len())
    }

    async fn queue_depth(&self) -> Result<QueueDepth> {
        self.depth().await
    }
}

impl SqliteStore {
    async fn claim_once(&self, claim: &Claim) -> Result<Claimed> {
        let asked_at = self.clock.monotonic();
        let mut transaction = self.write().await?;
        let time = self.clock.now();
        let now = millis(time);
        let targets = self.targets(&mut transaction).await?;

        let mut asked = HashSet::new();
        let mut waiting = Vec::new();
        for (subscription, wanted) in &claim.wants {
            // Asked for twice, the same rows would be found twice.
            if let Some(target) = targets.get(*subscription)
                && asked.insert(subscription)
            {
                let (wanted, sending) = match target.offer(time) {
                    Offer::Everything => (*wanted, Sending::Usual),
                    Offer::Probe => (1.min(*wanted), Sending::Probe),
                    Offer::AskedUntil(_) if claim.lane == Lane::Replay => (*wanted, Sending::Asked),
                    Offer::AskedUntil(_) => continue,
                };
                let asked = (wanted, sending);
                waiting.push(candidates(&mut transaction, target, asked, claim, now).await?);
            }
        }
        let found = in_turns(waiting, claim.max_bytes);
        if found.is_empty() {
            return Ok(Claimed::default());
        }
        let payloads = payloads(&mut transaction, &found).await?;
        lease(&mut transaction, &found, claim, now).await?;
        let probed: Vec<_> = found
            .iter()
            .filter(|candidate| candidate.sending == Sending::Probe)
            .map(|probe| {
                (
                    probe.target.id(),
                    probe.target.subscription.workspace.clone(),
                )
            })
            .collect();
        send_probes(&mut transaction, &probed, claim.leasing, now).await?;
        self.commit(transaction).await?;
        let leased_until = asked_at.saturating_add(claim.leasing.lease);
        let mut claimed = Claimed::default();
        for candidate in found {
            match payloads.get(&candidate.event.uuid()) {
                Some(payload) => {
                    let leased = candidate.leased(payload, claim.lane, leased_until);
                    claimed.leased.push(leased);
                }
                None => claimed.unreadable.push(candidate.unreadable()),
            }
        }
        Ok(claimed)
    }
}

/// For each subscription with rows and each lane: the first due time, and the first to come.
///
/// The walk over the index goes from one subscription to the next in one seek each, so a million
/// rows of one cost as much as one row. Whether somebody asked for any by itself is looked for only where
/// circuits may be open.
async fn lanes(
    transaction: &mut SqliteConnection,
    now: i64,
    lost_before: i64,
    targets: &Targets,
) -> Result<Vec<SqliteRow>> {
    sqlx::query(
        "-- sqlite::queue::lanes
        with recursive present (subscription_id) as (
            select min(subscription_id) from delivery_queue
            union all
            select (
                select min(delivery_queue.subscription_id)
                from delivery_queue
                where delivery_queue.subscription_id > present.subscription_id
            )
            from present
            where present.subscription_id is not null
        ),
        lane (number) as (values (0), (1), (2))
        select present.subscription_id, lane.number as lane,
            (
                select visible_at
                from delivery_queue
                where subscription_id = present.subscription_id and lane = lane.number
                    and visible_at <= ?1 and (owner is null or visible_at <= ?2)
                order by visible_at
                limit 1
            ) as due_at,
            (
                select visible_at
                from delivery_queue
                where subscription_id = present.subscription_id and lane = lane.number
                    -- What waits its turn has no time.
                    and visible_at > ?1 and visible_at < 9223372036854775807
                order by visible_at
                limit 1
            ) as next_at,
            iif(?3 and lane.number = ?4, exists (
                select 1
                from delivery_queue
                where subscription_id = present.subscription_id and lane = lane.number
                    and visible_at <= ?1 and (owner is null or visible_at <= ?2)
                    and replay_id is null
            ), 0) as is_asked
        from present
        cross join lane
        where present.subscription_id is not null",
    )
    .bind(now)
    .bind(lost_before)
    .bind(targets.has_circuits())
    .bind(lane_number(Lane::Replay))
    .fetch_all(transaction)
    .await
    .map_err(store_error)
}

/// What is due of one subscription, oldest first; of what is sent because it was asked for, only that.
async fn candidates(
    transaction: &mut SqliteConnection,
    target: &Arc<Target>,
    (wanted, sending): (usize, Sending),
    claim: &Claim,
    now: i64,
) -> Result<VecDeque<Candidate>> {
    let rows = sqlx::query(
        "-- sqlite::queue::candidates
        select delivery_id, event_id, epoch, attempts, base, replayed, replay_id, gate, lost_leases,
            bytes, owner is not null as was_lost
        from delivery_queue
        where subscription_id = ?1 and workspace = ?2 and lane = ?3 and visible_at <= ?4
            and (owner is null or visible_at <= ?5)
            and (not ?7 or replay_id is null)
        order by visible_at
        limit ?6",
    )
    .bind(target.id().uuid())
    .bind(target.subscription.workspace.as_str())
    .bind(lane_number(claim.lane))
    .bind(now)
    .bind(now.saturating_sub(duration_millis(claim.grace)))
    .bind(count(wanted))
    .bind(sending == Sending::Asked)
    .fetch_all(transaction)
    .await
    .map_err(store_error)?;
    rows.iter()
        .map(|row| Candidate::of(row, target, sending))
        .collect()
}

/// A delivery that may be leased.
struct Candidate {
    id: DeliveryId,
    event: EventId,
    target: Arc<Target>,
    bytes: usize,
    epoch: i32,
    attempts: u32,
    base: u32,
    gate: Option<EditionId>,
    replaying: Option<Replaying>,
    lost_leases: u32,
    sending: Sending,
}

impl Candidate {
    fn of(row: &SqliteRow, target: &Arc<Target>, sending: Sending) -> Result<Self> {
        let lost: u32 = unsigned(row, "lost_leases")?;
        Ok(Self {
            id: id(row, "delivery_id")?,
            event: id(row, "event_id")?,
            target: Arc::clone(target),
            bytes: unsigned(row, "bytes")?,
            epoch: get::<i32>(row, "epoch")? + 1,
            attempts: unsigned(row, "attempts")?,
            base: unsigned(row, "base")?,
            gate: optional_parsed(row, "gate")?,
            replaying: replaying(row)?,
            lost_leases: lost + u32::from(get::<bool>(row, "was_lost")?),
            sending,
        })
    }

    fn leased(self, payload: &Arc<Payload>, lane: Lane, leased_until: Duration) -> LeasedDelivery {
        LeasedDelivery {
            id: self.id,
            epoch: self.epoch,
            attempts: self.attempts,
            base: self.base,
            gate: self.gate,
            replaying: self.replaying,
            lost_leases: self.lost_leases,
            lane,
            sending: self.sending,
            payload: Arc::clone(payload),
            target: self.target,
            leased_until,
        }
    }

    fn unreadable(self) -> Unreadable {
        Unreadable {
            delivery: self.id,
            event: self.event,
            target: self.target,
            epoch: self.epoch,
            attempts: self.attempts,
            gate: self.gate,
            replaying: self.replaying,
            lost_leases: self.lost_leases,
            sending: self.sending,
        }
    }
}

fn replaying(row: &SqliteRow) -> Result<Option<Replaying>> {
    let bulk = get::<Option<Uuid>>(row, "replay_id")?.map(ReplayId::from_uuid);
    let was = optional_parsed(row, "replayed")?;
    Ok(was.map(|was| Replaying { was, bulk }))
}

/// The oldest of each subscription, then the second of each, until the bytes are spent: large
/// events of one leave room for the others. At least one is taken, however large.
fn in_turns(mut waiting: Vec<VecDeque<Candidate>>, max_bytes: usize) -> Vec<Candidate> {
    let mut taken: Vec<Candidate> = Vec::new();
    let mut bytes: usize = 0;
    while waiting.iter().any(|of_one| !of_one.is_empty()) {
        for candidate in waiting.iter_mut().filter_map(VecDeque::pop_front) {
            bytes = bytes.saturating_add(candidate.bytes);
            if bytes > max_bytes && !taken.is_empty() {
                return taken;
            }
            taken.push(candidate);
        }
    }
    taken
}

/// The events of the deliveries, each once.
async fn payloads(
    transaction: &mut SqliteConnection,
    deliveries: &[Candidate],
) -> Result<HashMap<Uuid, Arc<Payload>>> {
    static SELECT: Bulk = Bulk::new(
        "-- sqlite::queue::payloads
        select id, workspace, source, external_id, type, project, edition, body, occurred_at
        from event
        where (id, workspace) in (values ",
        "(?, ?)",
        ")",
    );
    let mut wanted: Vec<(Uuid, Arc<str>)> = deliveries
        .iter()
        .map(|delivery| {
            let workspace = delivery.target.subscription.workspace.to_shared();
            (delivery.event.uuid(), workspace)
        })
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    let statements = SELECT.statements(
        &wanted,
        |statement, (event, workspace)| statement.bind(*event).bind(Arc::clone(workspace)),
        |statement| statement,
    );
    let mut payloads = HashMap::with_capacity(wanted.len());
    for statement in statements {
        let rows = statement.fetch_all(&mut *transaction).await;
        for row in &rows.map_err(store_error)? {
            match event(row) {
                Ok(event) => {
                    payloads.insert(event.id.uuid(), Arc::new(Payload::new(event)));
                }
                Err(error) => tracing::error!(%error, "an event cannot be read back"),
            }
        }
    }
    Ok(payloads)
}

async fn lease(
    transaction: &mut SqliteConnection,
    deliveries: &[Candidate],
    claim: &Claim,
    now: i64,
) -> Result<()> {
    static UPDATE: Bulk = Bulk::new(
        "-- sqlite::queue::lease
        with found (delivery_id, workspace) as (values ",
        "(?, ?)",
        ")
        update or fail delivery_queue
        set visible_at = ?, owner = ?, epoch = epoch + 1,
            lost_leases = lost_leases + (owner is not null)
        where (delivery_id, workspace) in found",
    );
    let until = now.saturating_add(duration_millis(claim.leasing.lease));
    let statements = UPDATE.statements(
        deliveries,
        |statement, delivery| {
            statement
                .bind(delivery.id.uuid())
                .bind(delivery.target.subscription.workspace.to_shared())
        },
        |statement| statement.bind(until).bind(claim.leasing.owner.uuid()),
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}

/// Deliveries of deleted subscriptions that nobody is sending.
async fn orphans(
    transaction: &mut SqliteConnection,
    lost_before: i64,
    limit: usize,
) -> Result<Vec<(Uuid, Arc<str>)>> {
    sqlx::query_as(
        "-- sqlite::queue::orphans
        select delivery_queue.delivery_id, delivery_queue.workspace
        from subscription
        join delivery_queue on delivery_queue.subscription_id = subscription.id
            and delivery_queue.workspace = subscription.workspace
        where subscription.status = 'deleted' and subscription.swept = 0
            and (delivery_queue.owner is null or delivery_queue.visible_at <= ?1)
        limit ?2",
    )
    .bind(lost_before)
    .bind(count(limit))
    .fetch_all(transaction)
    .await
    .map_err(store_error)
}

/// Moves deliveries to history as cancelled. What is there already, and was to be sent once more, stays
/// there as it is.
async fn cancel(
    transaction: &mut SqliteConnection,
    orphans: &[(Uuid, Arc<str>)],
    now: i64,
) -> Result<()> {
    static COPY: Bulk = Bulk::new(
        "-- sqlite::queue::cancel
        with orphan (delivery_id, workspace) as (values ",
        "(?, ?)",
        ")
        insert into delivery (workspace, id, event_id, subscription_id, state, attempts, epoch,
            settled_at)
        select workspace, delivery_id, event_id, subscription_id, 'cancelled', attempts, epoch, ?
        from delivery_queue
        where (delivery_id, workspace) in orphan and replayed is not 'succeeded'",
    );
    static REMOVE: Bulk = Bulk::new(
        "-- sqlite::queue::cancel
        delete from delivery_queue where (delivery_id, workspace) in (values ",
        "(?, ?)",
        ")",
    );
    let bind = |statement: Statement, (delivery, workspace): &(Uuid, Arc<str>)| {
        statement.bind(*delivery).bind(Arc::clone(workspace))
    };
    let copies = COPY.statements(orphans, bind, |statement| statement.bind(now));
    bulk::execute(transaction, copies).await?;
    let removals = REMOVE.statements(orphans, bind, |statement| statement);
    bulk::execute(transaction, removals).await?;
    Ok(())
}

/// Subscriptions deleted a while ago with nothing left in the queue need not be looked at again. Before
/// that their gates go, so many at once.
async fn mark_swept(transaction: &mut SqliteConnection, now: i64) -> Result<()> {
    let before = now.saturating_sub(duration_millis(SWEPT_AFTER));
    sqlx::query(
        "-- sqlite::queue::mark_swept (gates)
        delete from order_gate
        where (subscription_id, edition) in (
            select order_gate.subscription_id, order_gate.edition
            from subscription
            join order_gate on order_gate.subscription_id = subscription.id
            where subscription.status = 'deleted' and subscription.swept = 0
                and subscription.deleted_at <= ?1
                and not exists (
                    select 1 from delivery_queue
                    where delivery_queue.subscription_id = subscription.id
                        and delivery_queue.workspace = subscription.workspace
                )
            limit ?2
        )",
    )
    .bind(before)
    .bind(count(GATES_AT_ONCE))
    .execute(&mut *transaction)
    .await
    .map_err(store_error)?;
    sqlx::query(
        "-- sqlite::queue::mark_swept
        update subscription
        set swept = 1
        where status = 'deleted' and swept = 0 and deleted_at <= ?1
            and not exists (
                select 1 from delivery_queue
                where delivery_queue.subscription_id = subscription.id
                    and delivery_queue.workspace = subscription.workspace
            )
            and not exists (
                select 1 from order_gate where order_gate.subscription_id = subscription.id
            )",
    )
    .bind(before)
    .execute(&mut *transaction)
    .await
    .map_err(store_error)?;
    Ok(())
}
