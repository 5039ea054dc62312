//! Circuit breakers as both databases keep them: judged by every settle, in its transaction.
//!
//! A row exists only while there is something to remember of a receiver, so that nothing is read or
//! written for receivers that take everything. Whatever a process must know of one (that it is there,
//! and its state) raises the subscription's generation, and is so in memory with the subscription
//! ([`super::targets`]); the counts are read where they are changed.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::targets::{Target, Targets};
use super::{Result, Settlement, StoreError};
use crate::domain::circuit::{
    Circuit, CircuitRules, CircuitState, Probe, Tally, Transition, Window,
};
use crate::domain::delivery::{Sending, Verdict};
use crate::domain::ids::{SubscriptionId, WorkspaceId};
use crate::domain::payload::timestamp;
use crate::domain::subscription::{Subscription, SubscriptionSpec, SubscriptionStatus};
use crate::telemetry::metric;

/// Leaving receivers alone that fail.
pub trait Circuits: Send + Sync {
    /// From now on settles judge receivers by these rules. To be called once, by a process that sends;
    /// until then nothing is remembered of them.
    fn judge_receivers(&self, rules: CircuitRules);

    /// Where a subscription's circuit stands, as far as this process knows: it learns of what others
    /// wrote when it looks what is due, and of what it settled itself at once. Does not block.
    fn circuit(&self, subscription: SubscriptionId) -> CircuitState;

    /// The subscription as this process would serve it now, which it learns likewise; `None` of one that
    /// is disabled or deleted. Does not block.
    fn held(&self, subscription: SubscriptionId) -> Option<Arc<Target>>;

    /// How many circuits are open, of active subscriptions, as far as this process knows.
    fn open_circuits(&self) -> usize;
}

/// Why a subscription is disabled whose receiver answered so.
pub(super) const GONE_REASON: &str = "the receiver answered 410 Gone";

/// The rules, once they were said.
pub(super) type Rules = OnceLock<CircuitRules>;

/// Says the rules, once.
pub(super) fn set_rules(held: &Rules, rules: CircuitRules) {
    if held.set(rules).is_err() {
        tracing::warn!("the rules of circuits were set already; the first ones stay");
    }
}

/// Whether a change makes another receiver of it, or begins anew with the one of before: what is
/// remembered is no longer true then.
pub(super) fn is_another_receiver(
    before: &Subscription,
    spec: &SubscriptionSpec,
    status: &SubscriptionStatus,
) -> bool {
    before.spec.url != spec.url || before.status.as_str() != status.as_str()
}

/// What one settle tells of receivers, in the order of their subscriptions.
pub(super) type Tallies = BTreeMap<SubscriptionId, (WorkspaceId, Tally)>;

/// What these settlements, which changed what they name, tell of receivers that have failed, now or
/// of late. Nothing of those that are disabled by them, or were meanwhile; and of those that were
/// changed since only that their probe is over.
pub(super) fn tallies(settled: &[&Settlement], current: &Targets) -> Tallies {
    let mut tallies = Tallies::new();
    for settlement in settled {
        let is_current = is_current(settlement, current);
        let is_told_of = is_current && settlement.verdict != Verdict::Released;
        if current.get(settlement.subscription).is_none()
            || !is_told_of && settlement.sending != Sending::Probe
        {
            continue;
        }
        let (_, tally) = tallies
            .entry(settlement.subscription)
            .or_insert_with(|| (settlement.workspace.clone(), Tally::default()));
        let attempt = settlement.attempt.as_ref().filter(|_| is_current);
        tally.add(attempt, settlement.sending);
    }
    for settlement in settled {
        if settlement.verdict == Verdict::Gone && is_current(settlement, current) {
            tallies.remove(&settlement.subscription);
        }
    }
    let is_known = |id| current.circuit(id) != CircuitState::Closed;
    tallies.retain(|id, (_, tally)| tally.is_noteworthy() || is_known(*id));
    tallies
}

/// Whether the subscription is still as it was when this was sent.
pub(super) fn is_current(settlement: &Settlement, current: &Targets) -> bool {
    let target = current.get(settlement.subscription);
    target.is_some_and(|target| target.subscription.version == settlement.version)
}

/// Whether these can tell anything that is to be noted.
pub(super) fn may_matter<'a>(
    mut settled: impl Iterator<Item = &'a Settlement>,
    known: &Targets,
) -> bool {
    known.has_circuits() || settled.any(is_noteworthy)
}

/// Whether a delivery ended without being taken. One that had succeeded and was replayed has not.
pub(super) fn is_given_up(settlement: &Settlement) -> bool {
    matches!(settlement.verdict, Verdict::Failed | Verdict::Gone) && !settlement.repeats()
}

/// Whether anything may follow from an outcome.
pub(super) fn matters(settlement: &Settlement, known: &Targets) -> bool {
    matches!(settlement.verdict, Verdict::Failed | Verdict::Gone)
        || is_noteworthy(settlement)
        || settlement.verdict != Verdict::Released
            && known.circuit(settlement.subscription) != CircuitState::Closed
}

fn is_noteworthy(settlement: &Settlement) -> bool {
    let attempt = settlement.attempt.as_ref();
    settlement.sending == Sending::Probe || attempt.is_some_and(|attempt| !attempt.succeeded())
}

/// What a settle made of one circuit.
pub(super) struct Judged {
    pub(super) subscription: SubscriptionId,
    pub(super) workspace: WorkspaceId,
    pub(super) circuit: Circuit,
    before: CircuitState,
    pub(super) transition: Option<Transition>,
    pub(super) at: DateTime<Utc>,
}

impl Judged {
    /// Notes what is told of one. A row that was just made stands for a circuit of which nothing was
    /// known.
    pub(super) fn of(
        (subscription, workspace): (SubscriptionId, WorkspaceId),
        mut circuit: Circuit,
        tally: &Tally,
        rules: &CircuitRules,
        now: DateTime<Utc>,
    ) -> Self {
        let before = circuit.state;
        let transition = circuit.record(tally, rules, now);
        Self {
            subscription,
            workspace,
            circuit,
            before,
            transition,
            at: now,
        }
    }

    /// Whether there is nothing to be kept any more.
    pub(super) fn is_over(&self) -> bool {
        self.circuit.state == CircuitState::Closed || self.is_given_up()
    }

    /// Whether the subscription is to be disabled.
    pub(super) fn is_given_up(&self) -> bool {
        self.transition == Some(Transition::GivenUp)
    }

    /// Whether every process must learn of it.
    pub(super) fn is_news(&self) -> bool {
        self.circuit.state != self.before && !self.is_given_up()
    }

    /// Why it is disabled.
    pub(super) fn reason(&self) -> String {
        format!(
            "nothing but failures since {}",
            timestamp(self.failing_since())
        )
    }

    /// Since when there were failures only.
    pub(super) fn failing_since(&self) -> DateTime<Utc> {
        self.circuit.failing_since.unwrap_or(self.at)
    }

    /// Tells operators, behind the commit.
    fn tell(&self) {
        let Some(transition) = self.transition else {
            return;
        };
        metrics::counter!(metric::CIRCUIT_TRANSITIONS, "to" => transition.as_str()).increment(1);
        let until = self.circuit.state.open_until().map(timestamp);
        macro_rules! line {
            ($level:ident, $said:literal) => {
                tracing::$level!(
                    target: "forge_dispatch::circuit",
                    subscription = %self.subscription,
                    workspace = %self.workspace,
                    transition = transition.as_str(),
                    failures_in_row = self.circuit.failures_in_row,
                    until,
                    $said,
                )
            };
        }
        match transition {
            Transition::Opened => line!(warn, "the circuit opened: deliveries wait"),
            Transition::StillOpen => line!(info, "a probe failed: deliveries go on waiting"),
            Transition::Recovering => line!(info, "a probe was taken: deliveries are sent again"),
            Transition::Closed => line!(info, "the circuit closed"),
            Transition::GivenUp => line!(warn, "nothing but failures: disabled"),
        }
    }
}

/// Tells operators what a settle made of circuits, behind its commit.
pub(super) fn tell(judged: &[Judged]) {
    judged.iter().for_each(Judged::tell);
}

/// The columns of a row that a subscription is shown and served by, as both databases give them.
pub(super) struct StateColumns<'a> {
    /// `None` where there is no row.
    pub(super) state: Option<&'a str>,
    pub(super) since: Option<DateTime<Utc>>,
    pub(super) until: Option<DateTime<Utc>>,
    pub(super) pause_ms: Option<i64>,
    pub(super) probing: Option<bool>,
}

impl StateColumns<'_> {
    pub(super) fn read(&self) -> Result<CircuitState> {
        let times = || {
            let pause = u64::try_from(self.pause_ms?).ok()?;
            Some((self.since?, self.until?, Duration::from_millis(pause)))
        };
        let read = match self.state {
            None => Some(CircuitState::Closed),
            Some("watched") => Some(CircuitState::Watched),
            Some("open") => times().map(|(since, until, pause)| CircuitState::Open {
                since,
                until,
                pause,
                probe: match self.probing {
                    Some(true) => Probe::Sent,
                    _ => Probe::Waiting,
                },
            }),
            Some("recovering") => times().map(|(since, until, pause)| CircuitState::Recovering {
                since,
                until,
                pause,
            }),
            Some(_) => None,
        };
        read.ok_or_else(|| StoreError::corrupt(format!("circuit.state: {:?}", self.state)))
    }

    /// Those of a circuit.
    pub(super) fn of(state: &CircuitState) -> Self {
        let columns = |state, since, until, pause: Duration, probing| Self {
            state: Some(state),
            since: Some(since),
            until: Some(until),
            pause_ms: Some(i64::try_from(pause.as_millis()).unwrap_or(i64::MAX)),
            probing: Some(probing),
        };
        match *state {
            CircuitState::Open {
                since,
                until,
                pause,
                probe,
            } => columns("open", since, until, pause, probe == Probe::Sent),
            CircuitState::Recovering {
                since,
                until,
                pause,
            } => columns("recovering", since, until, pause, false),
            CircuitState::Closed | CircuitState::Watched => Self {
                state: Some("watched"),
                since: None,
                until: None,
                pause_ms: None,
                probing: Some(false),
            },
        }
    }
}

/// The columns that only a settle looks at.
pub(super) struct CountColumns {
    pub(super) failures_in_row: i64,
    pub(super) window_began: DateTime<Utc>,
    pub(super) window_attempts: i64,
    pub(super) window_failures: i64,
    pub(super) failing_since: Option<DateTime<Utc>>,
}

impl CountColumns {
    pub(super) fn read(&self, state: CircuitState) -> Result<Circuit> {
        let number = |count: i64| u32::try_from(count).map_err(StoreError::corrupt);
        Ok(Circuit {
            state,
            failures_in_row: number(self.failures_in_row)?,
            window: Window {
                began: self.window_began,
                attempts: number(self.window_attempts)?,
                failures: number(self.window_failures)?,
            },
            failing_since: self.failing_since,
        })
    }

    pub(super) fn of(circuit: &Circuit) -> Self {
        Self {
            failures_in_row: circuit.failures_in_row.into(),
            window_began: circuit.window.began,
            window_attempts: circuit.window.attempts.into(),
            window_failures: circuit.window.failures.into(),
            failing_since: circuit.failing_since,
        }
    }
}
