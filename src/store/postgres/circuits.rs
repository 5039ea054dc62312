//! Circuit breakers: what a settle tells of receivers, and who sends a probe.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::postgres::PgBindIterExt;
use sqlx::{FromRow, PgConnection, PgTransaction};
use uuid::Uuid;

use super::changes::raise_generation;
use super::errors::from_sqlx;
use super::rows::interval;
use super::{PostgresStore, Result};
use crate::domain::circuit::{Circuit, CircuitRules, CircuitState};
use crate::domain::ids::{SubscriptionId, WorkspaceId};
use crate::store::Leasing;
use crate::store::circuits::{self, Circuits, CountColumns, Judged, StateColumns, Tallies};
use crate::store::targets::{Target, Targets};

impl Circuits for PostgresStore {
    fn judge_receivers(&self, rules: CircuitRules) {
        circuits::set_rules(&self.circuit_rules, rules);
    }

    fn circuit(&self, subscription: SubscriptionId) -> CircuitState {
        self.held_targets().circuit(subscription)
    }

    fn held(&self, subscription: SubscriptionId) -> Option<Arc<Target>> {
        self.held_targets().get(subscription).map(Arc::clone)
    }

    fn open_circuits(&self) -> usize {
        self.held_targets().open_circuits()
    }
}

impl PostgresStore {
    /// Loads what this process changed itself, behind the commit. (Inside of its transaction it would be
    /// held to be so even if that came to nothing.)
    pub(super) async fn refresh_targets(&self) {
        let refreshed = async {
            let mut connection = self.connection().await?;
            self.current_targets(&mut connection).await
        };
        if let Err(error) = refreshed.await {
            tracing::debug!(%error, "circuits are looked at with the next look at the queue");
        }
    }
}

#[derive(FromRow)]
pub(super) struct CircuitRow {
    subscription_id: Uuid,
    state: String,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
    pause_ms: Option<i64>,
    probing: bool,
    failures_in_row: i64,
    window_began: DateTime<Utc>,
    window_attempts: i64,
    window_failures: i64,
    failing_since: Option<DateTime<Utc>>,
    is_new: bool,
    at: DateTime<Utc>,
}

impl CircuitRow {
    fn circuit(&self) -> Result<Circuit> {
        if self.is_new {
            return Ok(Circuit::new(self.at));
        }
        let state = StateColumns {
            state: Some(&self.state),
            since: self.since,
            until: self.until,
            pause_ms: self.pause_ms,
            probing: Some(self.probing),
        };
        let counts = CountColumns {
            failures_in_row: self.failures_in_row,
            window_began: self.window_began,
            window_attempts: self.window_attempts,
            window_failures: self.window_failures,
            failing_since: self.failing_since,
        };
        counts.read(state.read()?)
    }
}

/// Notes what is told of receivers, of which this is remembered. Every process has to learn of what is
/// news ([`spread`]).
pub(super) async fn judge(
    tx: &mut PgTransaction<'_>,
    rules: &CircuitRules,
    tallies: &Tallies,
    kept: Vec<(SubscriptionId, CircuitRow)>,
) -> Result<Vec<Judged>> {
    let mut judged = Vec::with_capacity(tallies.len());
    for (id, row) in kept {
        // Nothing is told of one that is gone for good.
        let Some((workspace, tally)) = tallies.get(&id) else {
            continue;
        };
        let circuit = row.circuit()?;
        judged.push(Judged::of(
            (id, workspace.clone()),
            circuit,
            tally,
            rules,
            row.at,
        ));
    }
    let (over, stay): (Vec<&Judged>, Vec<&Judged>) =
        judged.iter().partition(|judged| judged.is_over());
    let uuids = |judged: &[&Judged]| judged.iter().map(|one| one.subscription.uuid()).collect();
    if !over.is_empty() {
        forget(tx, uuids(&over)).await?;
    }
    if !stay.is_empty() {
        keep(tx, &stay).await?;
    }
    Ok(judged)
}

/// What is remembered of these receivers, and of those that are gone for good; the rows stay locked to
/// the end of the transaction, and are made where there were none. None of subscriptions that are
/// disabled or deleted by now. They are locked in order, so that two settles never wait for each other.
pub(super) async fn kept<'a>(
    tx: &mut PgTransaction<'_>,
    tallies: &'a Tallies,
    gone: impl Iterator<Item = (SubscriptionId, &'a WorkspaceId)>,
) -> Result<Vec<(SubscriptionId, CircuitRow)>> {
    let told = tallies.iter().map(|(id, (workspace, _))| (*id, workspace));
    let asked: BTreeMap<SubscriptionId, &WorkspaceId> = told.chain(gone).collect();
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let rows: Vec<CircuitRow> = sqlx::query_as(
        "-- postgres::circuits::kept
        insert into circuit (
            subscription_id, workspace, state, probing, failures_in_row, window_began,
            window_attempts, window_failures
        )
        select s.id, s.workspace, 'watched', false, 0, clock_timestamp(), 0, 0
        from unnest($1::uuid[], $2::text[]) with ordinality as told (id, workspace, place)
        join subscription s on s.id = told.id and s.workspace = told.workspace
        where s.status = 'active'
        order by told.place
        on conflict on constraint circuit_pk do update set workspace = circuit.workspace
        returning
            subscription_id, state, since, until, pause_ms, probing, failures_in_row, window_began,
            window_attempts, window_failures, failing_since,
            state = 'watched' and window_failures = 0 and failures_in_row = 0
                and failing_since is null as is_new,
            date_trunc('milliseconds', clock_timestamp()) as at",
    )
    .bind(asked.keys().map(SubscriptionId::uuid).bind_iter())
    .bind(
        asked
            .values()
            .map(|workspace| workspace.as_str())
            .bind_iter(),
    )
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    let kept = rows
        .into_iter()
        .map(|row| (SubscriptionId::from_uuid(row.subscription_id), row));
    Ok(kept.collect())
}

async fn keep(tx: &mut PgTransaction<'_>, judged: &[&Judged]) -> Result<()> {
    let each = || judged.iter();
    let states = || each().map(|one| StateColumns::of(&one.circuit.state));
    let counts = || each().map(|one| CountColumns::of(&one.circuit));
    sqlx::query(
        "-- postgres::circuits::keep
        update circuit c
        set state = judged.state, since = judged.since, until = judged.until,
            pause_ms = judged.pause_ms, probing = judged.probing,
            failures_in_row = judged.failures_in_row, window_began = judged.window_began,
            window_attempts = judged.window_attempts, window_failures = judged.window_failures,
            failing_since = judged.failing_since
        from (
            select
                unnest($1::uuid[]) as id, unnest($2::text[]) as state,
                unnest($3::timestamptz[]) as since, unnest($4::timestamptz[]) as until,
                unnest($5::bigint[]) as pause_ms, unnest($6::boolean[]) as probing,
                unnest($7::bigint[]) as failures_in_row,
                unnest($8::timestamptz[]) as window_began, unnest($9::bigint[]) as window_attempts,
                unnest($10::bigint[]) as window_failures,
                unnest($11::timestamptz[]) as failing_since
        ) as judged
        where c.subscription_id = judged.id",
    )
    .bind(each().map(|one| one.subscription.uuid()).bind_iter())
    .bind(states().map(|state| state.state).bind_iter())
    .bind(states().map(|state| state.since).bind_iter())
    .bind(states().map(|state| state.until).bind_iter())
    .bind(states().map(|state| state.pause_ms).bind_iter())
    .bind(states().map(|state| state.probing).bind_iter())
    .bind(counts().map(|counts| counts.failures_in_row).bind_iter())
    .bind(counts().map(|counts| counts.window_began).bind_iter())
    .bind(counts().map(|counts| counts.window_attempts).bind_iter())
    .bind(counts().map(|counts| counts.window_failures).bind_iter())
    .bind(counts().map(|counts| counts.failing_since).bind_iter())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// Forgets what was remembered of these. They are sorted.
pub(super) async fn forget(tx: &mut PgTransaction<'_>, subscriptions: Vec<Uuid>) -> Result<()> {
    sqlx::query(
        "-- postgres::circuits::forget
        delete from circuit where subscription_id = any($1)",
    )
    .bind(subscriptions)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// Waits for what is noted of a receiver at this moment, so that the subscription's row is not waited
/// for by who holds its circuit.
pub(super) async fn hold(tx: &mut PgTransaction<'_>, id: SubscriptionId) -> Result<()> {
    sqlx::query(
        "-- postgres::circuits::hold
        select from circuit where subscription_id = $1 for update",
    )
    .bind(id.uuid())
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// Lets every process learn of what changed of these, by a generation that was raised.
pub(super) async fn spread(
    tx: &mut PgTransaction<'_>,
    subscriptions: Vec<Uuid>,
    generation: i64,
) -> Result<()> {
    if subscriptions.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "-- postgres::circuits::spread
        update subscription
        set generation = $2
        where id = any($1) and status = 'active'",
    )
    .bind(subscriptions)
    .bind(generation)
    .execute(&mut **tx)
    .await
    .map_err(from_sqlx)?;
    Ok(())
}

/// The database's time, where a circuit is to be held against it; any other where none is open.
pub(super) async fn now(connection: &mut PgConnection, targets: &Targets) -> Result<DateTime<Utc>> {
    if targets.open_circuits() == 0 {
        return Ok(DateTime::UNIX_EPOCH);
    }
    sqlx::query_scalar(
        "-- postgres::circuits::now
        select clock_timestamp()",
    )
    .fetch_one(connection)
    .await
    .map_err(from_sqlx)
}

/// Takes the right to send a probe to each of these, where one is due and nobody else takes it. It
/// waits for nobody: whose row is held is being noted something of.
pub(super) async fn take_probes(
    tx: &mut PgTransaction<'_>,
    subscriptions: &[Uuid],
    leasing: Leasing,
) -> Result<Vec<Uuid>> {
    sqlx::query_scalar(
        "-- postgres::circuits::take_probes
        with waiting as materialized (
            select subscription_id
            from circuit
            where subscription_id = any($1) and state = 'open' and until <= clock_timestamp()
            order by subscription_id
            for update skip locked
        )
        update circuit c
        set probing = true, until = date_trunc('milliseconds', clock_timestamp()) + $2::interval
        from waiting
        where c.subscription_id = waiting.subscription_id
        returning c.subscription_id",
    )
    .bind(subscriptions)
    .bind(interval(leasing.lease))
    .fetch_all(&mut **tx)
    .await
    .map_err(from_sqlx)
}

/// Lets others know of probes that were taken, and gives back those for which there was no delivery.
pub(super) async fn send_probes(
    tx: &mut PgTransaction<'_>,
    taken: &[Uuid],
    sent: Vec<Uuid>,
) -> Result<()> {
    let unused: Vec<Uuid> = taken
        .iter()
        .copied()
        .filter(|id| !sent.contains(id))
        .collect();
    if !unused.is_empty() {
        sqlx::query(
            "-- postgres::circuits::send_probes
            update circuit
            set probing = false, until = date_trunc('milliseconds', clock_timestamp())
            where subscription_id = any($1)",
        )
        .bind(unused)
        .execute(&mut **tx)
        .await
        .map_err(from_sqlx)?;
    }
    if !sent.is_empty() {
        let generation = raise_generation(tx).await?;
        spread(tx, sent, generation).await?;
    }
    Ok(())
}
