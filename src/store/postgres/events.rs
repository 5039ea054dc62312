//! Taking events in: four round trips for a batch, whatever its size: begin, what is known, all that
//! is written, commit. One more where an event is the first of its project; one where what is told of an
//! edition can be seen; two where events move outputs (three where these have files to be taken); two
//! where deliveries go by order; and with either of the last two, one more for editions. And reading one of
//! them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::PgTransaction;
use sqlx::postgres::PgBindIterExt;
use uuid::Uuid;

use super::arrivals::write;
use super::births::{Birth, births, crowd};
use super::errors::{expect_rows, from_sqlx, reading, retrying};
use super::rows::{KeptEventRow, interval, projects as projects_of};
use super::{PostgresStore, Result, commit, gates, projection, projects};
use crate::domain::event::Event;
use crate::domain::ids::{EventId, SubscriptionId};
use crate::domain::payload::Payload;
use crate::domain::reach::Reach;
use crate::store::gates::Place;
use crate::store::identity::{delivery_id, event_key};
use crate::store::intake::{Intake, each_once};
use crate::store::projection::{Moves, attributed, unattributed};
use crate::store::projects::NewProjects;
use crate::store::targets::{Target, Targets};
use crate::store::{
    AcceptOutcome, Accepted, EventLog, EventRecord, EventStore, Leasing, MAX_FAN_OUT_ROWS,
};

/// The epoch of a delivery that was born leased.
pub(super) const FIRST_EPOCH: i32 = 1;

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

#[async_trait]
impl EventLog for PostgresStore {
    async fn event(&self, reach: &Reach, id: EventId) -> Result<Option<EventRecord>> {
        let row: Option<KeptEventRow> = reading(async {
            sqlx::query_as(
                "-- postgres::events::event
                select
                    id, workspace, source, external_id, type, project, edition, body, occurred_at,
                    accepted_at
                from event
                where workspace = $1 and id = $2 and ($3::text[] is null or project = any($3))",
            )
            .bind(reach.workspace.as_str())
            .bind(id.uuid())
            .bind(projects_of(reach))
            .fetch_optional(&self.pool)
            .await
            .map_err(from_sqlx)
        })
        .await?;
        row.map(KeptEventRow::into_record).transpose()
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

impl PostgresStore {
    async fn accept_once(
        &self,
        events: &[Arc<Payload>],
        leasing: Leasing,
        intake: &dyn Intake,
    ) -> Result<Accepted> {
        let mut tx = self.begin().await?;
        let kept = self.keep(&mut tx, events, leasing, intake).await?;
        commit(tx).await?;
        Ok(self.kept(kept))
    }

    /// Takes events in, in a transaction that may hold other things.
    pub(super) async fn keep(
        &self,
        tx: &mut PgTransaction<'_>,
        events: &[Arc<Payload>],
        leasing: Leasing,
        intake: &dyn Intake,
    ) -> Result<Kept> {
        let keys: Vec<Uuid> = events.iter().map(|payload| key(payload.event())).collect();
        let looked_up = self.look_up(tx, &keys, &unattributed(events)).await?;
        let projects = Some(&looked_up.projects).filter(|projects| !projects.is_empty());
        let attributed = projects.map(|projects| attributed(events, projects));
        self.keep_for(
            tx,
            attributed.as_deref().unwrap_or(events),
            (leasing, intake),
            (&looked_up.targets, &looked_up.known),
        )
        .await
    }

    /// The same for these subscriptions, where these keys are known.
    pub(super) async fn keep_for(
        &self,
        tx: &mut PgTransaction<'_>,
        events: &[Arc<Payload>],
        (leasing, intake): (Leasing, &dyn Intake),
        (targets, known): (&Targets, &HashMap<Uuid, Uuid>),
    ) -> Result<Kept> {
        // Read before the database reads its own clock: our end of a lease is never the later one.
        let leased_until = self.clock.monotonic() + leasing.lease;
        let keys: Vec<Uuid> = events.iter().map(|payload| key(payload.event())).collect();
        let taken = take(events, &keys, targets, known);

        let new = arrived(&taken, Arrival::New);
        let again = arrived(&taken, Arrival::Again);
        let adopted = if again.is_empty() {
            Vec::new()
        } else {
            adopt(tx, &again, leasing, intake).await?
        };
        let new_projects = self
            .known_projects
            .unknown(new.iter().map(|taken| taken.payload.event()));
        if !new_projects.is_empty() {
            projects::write(tx, &new_projects).await?;
        }
        let moves = Moves::of(new.iter().map(|taken| &**taken.payload));
        let crowd = crowd(&new);
        // Editions come first of what accepts wait for: with the rest, if there is nothing between.
        let with_the_rest = crowd.is_empty() && moves.outputs.is_empty();
        let mut shown = projection::Shown::new();
        if !with_the_rest {
            shown = projection::remember(tx, &moves).await?;
        }
        let mut births = births(&new, gates::come(tx, crowd).await?, intake)?;
        if !new.is_empty() {
            let (gated, free): (Vec<_>, Vec<_>) =
                births.iter().partition(|birth| birth.place.is_some());
            gates::queue(tx, &gated, leasing).await?;
            let editions = with_the_rest.then_some(&moves.editions);
            shown.extend(write(tx, &new, &free, editions, leasing).await?);
        }
        projection::show(tx, &shown).await?;
        let jobs = if self.output_jobs.fetches() {
            projection::fetch(tx, &moves).await?
        } else {
            projection::leave(tx, &moves).await?;
            0
        };

        births.extend(adopted);
        let left = births.iter().filter(|birth| birth.is_left());
        let left: Vec<SubscriptionId> = left.map(|birth| birth.target.id()).collect();
        Ok(Kept {
            new_projects,
            // Those that an earlier try committed too: its answer was lost, and it rang for nobody.
            moves_feed: !(new.is_empty() && again.is_empty()),
            makes_jobs: jobs > 0,
            accepted: Accepted {
                outcomes: taken.iter().map(|taken| taken.arrival.outcome()).collect(),
                leased: births
                    .into_iter()
                    .filter_map(|birth| birth.leased(leased_until))
                    .collect(),
                pending: left.len(),
                pending_of: each_once(left),
            },
        })
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

/// The key as the database keeps it: a `uuid` is its type for sixteen bytes of any kind.
fn key(event: &Event) -> Uuid {
    Uuid::from_bytes(event_key(event))
}

/// One event of the part of the batch that is taken.
pub(super) struct Taken<'a> {
    pub(super) payload: &'a Arc<Payload>,
    pub(super) key: Uuid,
    arrival: Arrival,
    targets: Vec<&'a Arc<Target>>,
}

/// What an event turned out to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arrival {
    /// Never seen.
    New,
    /// Committed by an earlier try of the same call, under the same id.
    Again,
    /// Another event had its identity, of this batch or of an earlier one.
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

/// The events that one transaction takes, with what each turned out to be and the subscriptions it
/// goes to.
fn take<'a>(
    events: &'a [Arc<Payload>],
    keys: &[Uuid],
    targets: &'a Targets,
    known: &HashMap<Uuid, Uuid>,
) -> Vec<Taken<'a>> {
    let mut taken: Vec<Taken<'_>> = Vec::with_capacity(events.len());
    let mut seen = HashSet::with_capacity(events.len());
    let mut rows = 0;
    for (payload, &key) in events.iter().zip(keys) {
        let event = payload.event();
        let arrival = match known.get(&key) {
            _ if !seen.insert(key) => Arrival::Duplicate,
            None => Arrival::New,
            Some(id) if *id == event.id.uuid() => Arrival::Again,
            Some(_) => Arrival::Duplicate,
        };
        let targets: Vec<_> = match arrival {
            Arrival::New | Arrival::Again => targets.matching(event).collect(),
            Arrival::Duplicate => Vec::new(),
        };
        rows += targets.len();
        if rows > MAX_FAN_OUT_ROWS && !taken.is_empty() {
            break;
        }
        taken.push(Taken {
            payload,
            key,
            arrival,
            targets,
        });
    }
    taken
}

/// The events that arrived so.
fn arrived<'t, 'a>(taken: &'t [Taken<'a>], wanted: Arrival) -> Vec<&'t Taken<'a>> {
    taken
        .iter()
        .filter(|taken| taken.arrival == wanted)
        .collect()
}

/// Which event goes where.
pub(super) fn routes<'a>(
    events: &[&Taken<'a>],
) -> impl Iterator<Item = (&'a Arc<Payload>, &'a Arc<Target>)> {
    events.iter().flat_map(|taken| {
        let payload = taken.payload;
        taken.targets.iter().map(move |target| (payload, *target))
    })
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
    let ours: Vec<(Uuid, Option<i64>)> = sqlx::query_as(
        "-- postgres::events::adopt (find)
        select delivery_id, ord
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
        .filter_map(|(id, ord)| {
            let (payload, target) = routes.get(id)?;
            // What was leased is a head.
            let place = ord.map(|ord| Place { ord, is_head: true });
            Some(Birth::of(payload, target, place, intake))
        })
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
    .bind(ours.iter().map(|(id, _)| id).bind_iter())
    .bind(permitted)
    .bind(interval(leasing.lease))
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    expect_rows("delivery_queue", ours.len(), adopted.rows_affected())?;
    Ok(births)
}
