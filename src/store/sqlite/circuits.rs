//! Circuit breakers: what a settle tells of receivers, and who sends a probe.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::bulk::{self, Bulk};
use super::rows::{duration_millis, get, id, millis, optional_time, time};
use super::targets::raise_generation;
use crate::domain::circuit::{Circuit, CircuitRules, CircuitState};
use crate::domain::ids::{SubscriptionId, WorkspaceId};
use crate::store::circuits::{self, Circuits, CountColumns, Judged, StateColumns, Tallies};
use crate::store::targets::{Target, Targets};
use crate::store::{Leasing, Result};

impl Circuits for SqliteStore {
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

impl SqliteStore {
    pub(super) fn held_targets(&self) -> Arc<Targets> {
        Arc::clone(&self.targets.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Loads what this process changed itself, behind the commit. (Inside of its transaction it would be
    /// held to be so even if that came to nothing.)
    pub(super) async fn refresh_targets(&self) {
        let refreshed = async {
            let mut transaction = self.read().await?;
            self.targets(&mut transaction).await
        };
        if let Err(error) = refreshed.await {
            tracing::debug!(%error, "circuits are looked at with the next look at the queue");
        }
    }
}

/// Notes what is told of receivers.
pub(super) async fn judge(
    transaction: &mut SqliteConnection,
    rules: &CircuitRules,
    tallies: &Tallies,
    now: DateTime<Utc>,
) -> Result<Vec<Judged>> {
    let mut kept = kept(transaction, tallies).await?;
    let judged: Vec<Judged> = tallies
        .iter()
        .map(|(id, (workspace, tally))| {
            let circuit = kept.remove(id).unwrap_or_else(|| Circuit::new(now));
            Judged::of((*id, workspace.clone()), circuit, tally, rules, now)
        })
        .collect();
    let (over, stay): (Vec<&Judged>, Vec<&Judged>) =
        judged.iter().partition(|judged| judged.is_over());
    let over: Vec<_> = over.iter().map(|judged| judged.subscription).collect();
    forget(transaction, &over).await?;
    keep(transaction, &stay).await?;
    let news: Vec<_> = judged
        .iter()
        .filter(|judged| judged.is_news())
        .map(|judged| (judged.subscription, judged.workspace.clone()))
        .collect();
    spread(transaction, &news).await?;
    Ok(judged)
}

async fn kept(
    transaction: &mut SqliteConnection,
    tallies: &Tallies,
) -> Result<HashMap<SubscriptionId, Circuit>> {
    static SELECT: Bulk = Bulk::new(
        "-- sqlite::circuits::kept
        select subscription_id, state, since, until, pause_ms, probing, failures_in_row,
            window_began, window_attempts, window_failures, failing_since
        from circuit
        where (subscription_id, workspace) in (values ",
        "(?, ?)",
        ")",
    );
    let asked: Vec<_> = tallies.iter().collect();
    let statements = SELECT.statements(
        &asked,
        |statement, (id, (workspace, _))| statement.bind(id.uuid()).bind(workspace.to_shared()),
        |statement| statement,
    );
    let rows = bulk::fetch(transaction, statements).await?;
    rows.iter()
        .map(|row| Ok((id(row, "subscription_id")?, circuit(row)?)))
        .collect()
}

fn circuit(row: &SqliteRow) -> Result<Circuit> {
    let state = StateColumns {
        state: get(row, "state")?,
        since: optional_time(row, "since")?,
        until: optional_time(row, "until")?,
        pause_ms: get(row, "pause_ms")?,
        probing: get(row, "probing")?,
    };
    let counts = CountColumns {
        failures_in_row: get(row, "failures_in_row")?,
        window_began: time(row, "window_began")?,
        window_attempts: get(row, "window_attempts")?,
        window_failures: get(row, "window_failures")?,
        failing_since: optional_time(row, "failing_since")?,
    };
    counts.read(state.read()?)
}

/// The columns of a subscription's circuit, as a query of `subscription` selects them.
macro_rules! circuit_columns {
    () => {
        "(select state from circuit where subscription_id = subscription.id) as circuit_state,
            (select since from circuit where subscription_id = subscription.id) as circuit_since,
            (select until from circuit where subscription_id = subscription.id) as circuit_until,
            (select pause_ms from circuit where subscription_id = subscription.id)
                as circuit_pause_ms,
            (select probing from circuit where subscription_id = subscription.id)
                as circuit_probing"
    };
}
pub(super) use circuit_columns;

/// What [`circuit_columns`] say.
pub(super) fn state(row: &SqliteRow) -> Result<CircuitState> {
    StateColumns {
        state: get(row, "circuit_state")?,
        since: optional_time(row, "circuit_since")?,
        until: optional_time(row, "circuit_until")?,
        pause_ms: get(row, "circuit_pause_ms")?,
        probing: get(row, "circuit_probing")?,
    }
    .read()
}

async fn keep(transaction: &mut SqliteConnection, judged: &[&Judged]) -> Result<()> {
    static REPLACE: Bulk = Bulk::new(
        "-- sqlite::circuits::keep
        with judged (subscription_id, workspace, state, since, until, pause_ms, probing,
            failures_in_row, window_began, window_attempts, window_failures, failing_since)
        as (values ",
        "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        ")
        insert or replace into circuit (subscription_id, workspace, state, since, until, pause_ms,
            probing, failures_in_row, window_began, window_attempts, window_failures, failing_since)
        select subscription_id, workspace, state, since, until, pause_ms, probing, failures_in_row,
            window_began, window_attempts, window_failures, failing_since
        from judged
        where subscription_id is not null",
    );
    let statements = REPLACE.statements(
        judged,
        |statement, judged| {
            let state = StateColumns::of(&judged.circuit.state);
            let counts = CountColumns::of(&judged.circuit);
            statement
                .bind(judged.subscription.uuid())
                .bind(judged.workspace.to_shared())
                .bind(state.state.map(str::to_owned))
                .bind(state.since.map(millis))
                .bind(state.until.map(millis))
                .bind(state.pause_ms)
                .bind(state.probing)
                .bind(counts.failures_in_row)
                .bind(millis(counts.window_began))
                .bind(counts.window_attempts)
                .bind(counts.window_failures)
                .bind(counts.failing_since.map(millis))
        },
        |statement| statement,
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}

/// Forgets what was remembered of these.
pub(super) async fn forget(
    transaction: &mut SqliteConnection,
    subscriptions: &[SubscriptionId],
) -> Result<()> {
    static DELETE: Bulk = Bulk::new(
        "-- sqlite::circuits::forget
        delete from circuit where subscription_id in (",
        "?",
        ")",
    );
    let statements = DELETE.statements(
        subscriptions,
        |statement, id| statement.bind(id.uuid()),
        |statement| statement,
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}

/// Lets every process learn of what changed of these.
async fn spread(
    transaction: &mut SqliteConnection,
    news: &[(SubscriptionId, WorkspaceId)],
) -> Result<()> {
    static UPDATE: Bulk = Bulk::new(
        "-- sqlite::circuits::spread
        with news (id, workspace) as (values ",
        "(?, ?)",
        ")
        update subscription
        set generation = ?
        where (id, workspace) in news and status = 'active'",
    );
    if news.is_empty() {
        return Ok(());
    }
    let generation = raise_generation(transaction).await?;
    let statements = UPDATE.statements(
        news,
        |statement, (id, workspace)| statement.bind(id.uuid()).bind(workspace.to_shared()),
        |statement| statement.bind(generation),
    );
    bulk::execute(transaction, statements).await?;
    Ok(())
}

/// Makes deliveries that are being leased the probes of their subscriptions.
pub(super) async fn send_probes(
    transaction: &mut SqliteConnection,
    probed: &[(SubscriptionId, WorkspaceId)],
    leasing: Leasing,
    now: i64,
) -> Result<()> {
    static UPDATE: Bulk = Bulk::new(
        "-- sqlite::circuits::send_probes
        with probed (id, workspace) as (values ",
        "(?, ?)",
        ")
        update circuit
        set probing = 1, until = ?
        where (subscription_id, workspace) in probed and state = 'open'",
    );
    let until = now.saturating_add(duration_millis(leasing.lease));
    let statements = UPDATE.statements(
        probed,
        |statement, (id, workspace): &(SubscriptionId, WorkspaceId)| {
            statement.bind(id.uuid()).bind(workspace.to_shared())
        },
        |statement| statement.bind(until),
    );
    bulk::execute(transaction, statements).await?;
    spread(transaction, probed).await
}
