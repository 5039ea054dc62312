//! Accepting events: dedupe, keep, fan out. And reading one of them.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::SqliteConnection;

use super::batch::{Batch, Delivery, FIRST_EPOCH, Fresh, admit};
use super::births::{Lease, line_up, write_queue};
use super::bulk::{self, Bulk};
use super::error::store_error;
use super::rows::{self, count, get, id, millis, projects as projects_of, time};
use super::{Approach, SqliteStore, projection, projects};
use crate::domain::ids::{DeliveryId, EditionId, EventId, ProjectId, SubscriptionId};
use crate::domain::payload::Payload;
use crate::domain::reach::Reach;
use crate::store::gates::Place;
use crate::store::identity::{EventKey, event_key};
use crate::store::intake::{Intake, each_once};
use crate::store::projection::Moves;
use crate::store::projects::NewProjects;
use crate::store::targets::Targets;
use crate::store::{Accepted, EventLog, EventRecord, EventStore, Leasing, Result, StoreError};

#[async_trait]
impl EventStore for SqliteStore {
    async fn accept(
        &self,
        events: &[Arc<Payload>],
        leasing: Leasing,
        intake: &dyn Intake,
    ) -> Result<Accepted> {
        let offer = Offer::of(events, leasing, intake);
        if let Some(accepted) = self.take_in(&offer, Approach::Confident).await? {
            return Ok(accepted);
        }
        self.take_in(&offer, Approach::Careful)
            .await?
            .ok_or_else(|| StoreError::corrupt("an event's key is there and cannot be found"))
    }
}

#[async_trait]
impl EventLog for SqliteStore {
    async fn event(&self, reach: &Reach, id: EventId) -> Result<Option<EventRecord>> {
        let row = sqlx::query(
            "-- sqlite::events::event
            select id, workspace, source, external_id, type, project, edition, body, occurred_at,
                accepted_at
            from event
            where workspace = ?1 and id = ?2
                and (?3 is null or project in (select value from json_each(?3)))",
        )
        .bind(reach.workspace.as_str())
        .bind(id.uuid())
        .bind(projects_of(reach)?)
        .fetch_optional(&self.readers)
        .await
        .map_err(store_error)?;
        row.map(|row| {
            Ok(EventRecord::of(
                rows::event(&row)?,
                time(&row, "accepted_at")?,
            ))
        })
        .transpose()
    }
}

/// What an accept was asked to take.
pub(super) struct Offer<'a> {
    events: &'a [Arc<Payload>],
    keys: Vec<EventKey>,
    leasing: Leasing,
    intake: &'a dyn Intake,
}

impl<'a> Offer<'a> {
    pub(super) fn of(events: &'a [Arc<Payload>], leasing: Leasing, intake: &'a dyn Intake) -> Self {
        let keys = events.iter().map(|payload| event_key(payload.event()));
        Self {
            events,
            keys: keys.collect(),
            leasing,
            intake,
        }
    }
}

/// What a transaction that is not committed yet has taken in.
#[must_use = "it is told of after the commit"]
pub(super) struct Kept {
    accepted: Accepted,
    new_projects: NewProjects,
    /// Whether the feed has more.
    moves_feed: bool,
    /// Whether files of the core's are to be taken.
    makes_jobs: bool,
}

impl Kept {
    /// How many events.
    pub(super) fn taken(&self) -> usize {
        self.accepted.outcomes.len()
    }
}

impl SqliteStore {
    /// One transaction; `None` if an event was not as new as it was taken for, and nothing was done.
    async fn take_in(&self, offer: &Offer<'_>, approach: Approach) -> Result<Option<Accepted>> {
        let mut transaction = self.write().await?;
        let Some(kept) = self.keep(&mut transaction, offer, approach).await? else {
            transaction.rollback().await.map_err(store_error)?;
            return Ok(None);
        };
        self.commit(transaction).await?;
        Ok(Some(self.kept(kept)))
    }

    /// Takes events in, in a transaction that may hold other things; `None` if one was not as new as
    /// it was taken for, and then the transaction is to be undone.
    pub(super) async fn keep(
        &self,
        transaction: &mut SqliteConnection,
        offer: &Offer<'_>,
        approach: Approach,
    ) -> Result<Option<Kept>> {
        let targets = self.targets(transaction).await?;
        self.keep_for(transaction, offer, approach, &targets).await
    }

    /// The same for these subscriptions.
    pub(super) async fn keep_for(
        &self,
        transaction: &mut SqliteConnection,
        offer: &Offer<'_>,
        approach: Approach,
        targets: &Targets,
    ) -> Result<Option<Kept>> {
        // Read before the time that leases begin: our end of one is never the later one.
        let asked_at = self.clock.monotonic();
        let lease = Lease::begin(offer.leasing, millis(self.clock.now()));
        let known = match approach {
            Approach::Confident => HashMap::new(),
            Approach::Careful => known_keys(transaction, &offer.keys).await?,
        };
        let attributed = projection::attribute(transaction, offer.events).await?;
        let events = attributed.as_deref().unwrap_or(offer.events);
        let batch = Batch::sort(events, &offer.keys, &known, targets);
        if write_keys(transaction, &batch.fresh, lease.now).await? < batch.fresh.len() {
            return Ok(None);
        }

        let repeated = &batch.repeated;
        let held = held_already(transaction, repeated, targets, offer.leasing).await?;
        let mut deliveries = admit(held, offer.intake);
        renew(transaction, &deliveries, &lease).await?;
        let born = line_up(transaction, batch.fan_out()).await?;
        let born = admit(born, offer.intake);
        write_events(transaction, &batch.fresh, lease.now).await?;
        write_feed(transaction, &batch.fresh).await?;
        write_queue(transaction, &born, &lease).await?;
        let new_projects = self
            .known_projects
            .unknown(batch.fresh.iter().map(|new| new.payload.event()));
        projects::write(transaction, &new_projects, lease.now).await?;
        let moves = Moves::of(batch.fresh.iter().map(|new| &**new.payload));
        projection::write(transaction, &moves, lease.now).await?;
        let jobs = if self.output_jobs.fetches() {
            projection::fetch(transaction, &moves, lease.now).await?
        } else {
            projection::leave(transaction, &moves).await?;
            0
        };

        deliveries.extend(born);
        let left = deliveries.iter().filter(|one| one.is_left());
        let left: Vec<SubscriptionId> = left.map(|one| one.target.id()).collect();
        let leased_until = asked_at.saturating_add(offer.leasing.lease);
        let leased: Vec<_> = deliveries
            .into_iter()
            .filter_map(|delivery| delivery.leased(leased_until))
            .collect();
        Ok(Some(Kept {
            new_projects,
            moves_feed: !batch.fresh.is_empty(),
            makes_jobs: jobs > 0,
            accepted: Accepted {
                outcomes: batch.outcomes,
                pending: left.len(),
                pending_of: each_once(left),
                leased,
            },
        }))
    }

    /// Tells of what was taken in, behind the commit.
    pub(super) fn kept(&self, kept: Kept) -> Accepted {
        if kept.moves_feed {
            self.feed_moved();
        }
        if kept.makes_jobs {
            self.output_jobs.ring();
        }
        self.known_projects.remember(kept.new_projects);
        kept.accepted
    }
}

/// Which of the keys are taken, and by which event.
async fn known_keys(
    transaction: &mut SqliteConnection,
    keys: &[EventKey],
) -> Result<HashMap<EventKey, EventId>> {
    static SELECT: Bulk = Bulk::new(
        "-- sqlite::events::known_keys
        select key, event_id from event_key where key in (",
        "?",
        ")",
    );
    let statements = SELECT.statements(
        keys,
        |statement, key| statement.bind(key.as_slice()),
        |statement| statement,
    );
    let rows = bulk::fetch(transaction, statements).await?;
    rows.iter()
        .map(|row| {
            let key = EventKey::try_from(get::<&[u8]>(row, "key")?).map_err(StoreError::corrupt)?;
            Ok((key, id(row, "event_id")?))
        })
        .collect()
}

/// The deliveries of these events that are still under their first lease, and that lease ours.
async fn held_already(
    transaction: &mut SqliteConnection,
    repeated: &[&Arc<Payload>],
    targets: &Targets,
    leasing: Leasing,
) -> Result<Vec<Delivery>> {
    static SELECT: Bulk = Bulk::new(
        "-- sqlite::events::held_already
        select delivery_id, ord from delivery_queue where (delivery_id, workspace) in (values ",
        "(?, ?)",
        ") and owner = ? and epoch = ?",
    );
    let asked: HashMap<DeliveryId, Delivery> = repeated
        .iter()
        .flat_map(|payload| {
            targets
                .matching(payload.event())
                .map(|target| Delivery::new(payload, target))
        })
        .map(|delivery| (delivery.id, delivery))
        .collect();
    let mut asked: Vec<Delivery> = asked.into_values().collect();
    let statements = SELECT.statements(
        &asked,
        |statement, delivery| {
            statement
                .bind(delivery.id.uuid())
                .bind(delivery.target.subscription.workspace.to_shared())
        },
        |statement| statement.bind(leasing.owner.uuid()).bind(FIRST_EPOCH),
    );
    let rows = bulk::fetch(transaction, statements).await?;
    let held: HashMap<DeliveryId, Option<i64>> = rows
        .iter()
        .map(|row| Ok((id(row, "delivery_id")?, get(row, "ord")?)))
        .collect::<Result<_>>()?;
    asked.retain_mut(|delivery| {
        let Some(ord) = held.get(&delivery.id) else {
            return false;
        };
        // What was leased is a head.
        delivery.place = ord.map(|ord| Place { ord, is_head: true });
        true
    });
    Ok(asked)
}

/// Leases anew what was admitted again, and gives back what was not.
async fn renew(transaction: &mut SqliteConnection, held: &[Delivery], lease: &Lease) -> Result<()> {
    static UPDATE: Bulk = Bulk::new(
        "-- sqlite::events::renew
        with held (delivery_id, workspace, visible_at, owner) as (values ",
        "(?, ?, ?, ?)",
        ")
        update delivery_queue
        set visible_at = held.visible_at, owner = held.owner
        from held
        where delivery_queue.delivery_id = held.delivery_id
            and delivery_queue.workspace = held.workspace",
    );
    let statements = UPDATE.statements(
        held,
        |statement, delivery| {
            let (visible_at, owner) = match delivery.permit {
                Some(_) => lease.taken(),
                None => lease.left(),
            };
            statement
                .bind(delivery.id.uuid())
                .bind(delivery.target.subscription.workspace.to_shared())
                .bind(visible_at)
                .bind(owner)
        },
        |statement| statement,
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}

/// Writes the keys of new events, and answers how many were new. In the order of the keys: those of
/// one page follow one another.
async fn write_keys(
    transaction: &mut SqliteConnection,
    fresh: &[Fresh<'_>],
    now: i64,
) -> Result<usize> {
    static INSERT: Bulk = Bulk::new(
        "-- sqlite::events::write_keys
        with fresh (key, event_id) as (values ",
        "(?, ?)",
        ")
        insert or fail into event_key (key, event_id, at)
        select key, event_id, ? from fresh where key is not null
        on conflict (key) do nothing",
    );
    let mut by_key: Vec<_> = fresh.iter().collect();
    by_key.sort_unstable_by_key(|new| new.key);
    let statements = INSERT.statements(
        &by_key,
        |statement, new| {
            statement
                .bind(new.key.as_slice())
                .bind(new.payload.event().id.uuid())
        },
        |statement| statement.bind(now),
    );
    bulk::execute(transaction, statements).await
}

async fn write_events(
    transaction: &mut SqliteConnection,
    fresh: &[Fresh<'_>],
    now: i64,
) -> Result<()> {
    static INSERT: Bulk = Bulk::new(
        "-- sqlite::events::write_events
        with fresh (id, workspace, source, external_id, type, project, edition, body,
            occurred_at) as (values ",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ")
        insert or fail into event (id, workspace, source, external_id, type, project, edition,
            body, occurred_at, accepted_at)
        select id, workspace, source, external_id, type, project, edition, body, occurred_at, ?
        from fresh
        where id is not null",
    );
    let statements = INSERT.statements(
        fresh,
        |statement, new| {
            let event = new.payload.event();
            statement
                .bind(event.id.uuid())
                .bind(event.workspace.to_shared())
                .bind(event.source.as_str())
                .bind(event.external_id.as_str())
                .bind(event.event_type.as_str())
                .bind(event.project.as_ref().map(ProjectId::to_shared))
                .bind(event.edition.as_ref().map(EditionId::to_shared))
                .bind(&*event.envelope)
                .bind(millis(event.occurred_at))
        },
        |statement| statement.bind(now),
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}

/// Positions in the order of the batch. There is one writer, so their order is that of the commits.
async fn write_feed(transaction: &mut SqliteConnection, fresh: &[Fresh<'_>]) -> Result<()> {
    static INSERT: Bulk = Bulk::new(
        "-- sqlite::events::write_feed
        with fresh (workspace, position, event_id) as (values ",
        "(?, ?, ?)",
        ")
        insert or fail into event_feed (workspace, position, event_id)
        select workspace, position, event_id from fresh where event_id is not null",
    );
    if fresh.is_empty() {
        return Ok(());
    }
    let last: i64 = sqlx::query_scalar(
        "-- sqlite::events::write_feed
        update event_feed_position set last = last + ?1 returning last",
    )
    .bind(count(fresh.len()))
    .fetch_one(&mut *transaction)
    .await
    .map_err(store_error)?;
    let mut position = last - count(fresh.len());
    let statements = INSERT.statements(
        fresh,
        |statement, new| {
            position += 1;
            let event = new.payload.event();
            statement
                .bind(event.workspace.to_shared())
                .bind(position)
                .bind(event.id.uuid())
        },
        |statement| statement,
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}
