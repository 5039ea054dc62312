//! Telling of our own work: events of ours, committed with what they tell of.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::circuits::{GONE_REASON, Judged, is_current, is_given_up};
use super::intake::NoDispatch;
use super::outbox::Door;
use super::targets::{TargetChange, Targets};
use super::{Leasing, MAX_FAN_OUT_ROWS, Result, Settlement, StoreError};
use crate::domain::attempt::{Attempt, ErrorClass};
use crate::domain::audit::{Act, Action, AuditEntry};
use crate::domain::circuit::{CircuitRules, Transition};
use crate::domain::delivery::Verdict;
use crate::domain::filter::EventType;
use crate::domain::ids::{EventId, OwnerId, SubscriptionId, WorkspaceId, created_at, new_id};
use crate::domain::operational::Operational;
use crate::domain::own_event::OwnEvent;
use crate::domain::payload::{Payload, timestamp};
use crate::domain::replay::Was;
use crate::domain::retry::RetrySchedule;
use crate::domain::subscription::{Subscription, SubscriptionStatus};

/// Nobody sends what is told here: its deliveries wait for anyone.
pub(super) const NOBODY: NoDispatch = NoDispatch;

/// The lease that nobody gets.
pub(super) fn no_lease() -> Leasing {
    Leasing {
        owner: OwnerId::from_uuid(Uuid::nil()),
        lease: Duration::ZERO,
    }
}

/// A subscription that was disabled, and why.
pub(super) struct Disabled {
    pub(super) id: SubscriptionId,
    pub(super) workspace: WorkspaceId,
    pub(super) reason: String,
    /// From when on it has missed events.
    pub(super) missing_since: DateTime<Utc>,
    /// Which it was when that was found: one that was changed since is another.
    pub(super) version: i64,
}

/// What says that its receiver is gone for good, of subscriptions that are still as they were when it
/// was sent.
pub(super) fn gone<'s>(
    held: &[&'s Settlement],
    current: &Targets,
) -> impl Iterator<Item = &'s Settlement> {
    let is_gone = |one: &&Settlement| one.verdict == Verdict::Gone && is_current(one, current);
    held.iter().copied().filter(is_gone)
}

/// The subscriptions that are not to be tried any more, each once and in order.
pub(super) fn ending(held: &[&Settlement], judged: &[Judged], tries: &Tries) -> Vec<Disabled> {
    let gone = gone(held, tries.targets).map(|gone| Disabled {
        id: gone.subscription,
        workspace: gone.workspace.clone(),
        reason: GONE_REASON.to_owned(),
        missing_since: tries.refused_since(gone),
        version: gone.version,
    });
    let given_up = judged.iter().filter(|judged| judged.is_given_up());
    let given_up = given_up.filter_map(|judged| {
        let target = tries.targets.get(judged.subscription)?;
        Some(Disabled {
            id: judged.subscription,
            workspace: judged.workspace.clone(),
            reason: judged.reason(),
            missing_since: tries.begun(judged.subscription, judged.failing_since()),
            version: target.subscription.version,
        })
    });
    let mut ending: BTreeMap<SubscriptionId, Disabled> = BTreeMap::new();
    for one in gone.chain(given_up) {
        match ending.entry(one.id) {
            Entry::Vacant(entry) => {
                entry.insert(one);
            }
            Entry::Occupied(mut entry) => {
                let first = entry.get_mut();
                first.missing_since = first.missing_since.min(one.missing_since);
            }
        }
    }
    ending.into_values().collect()
}

/// For how long deliveries are tried: what failed at a time can be of an event that came so much earlier,
/// and what was missed is selected by when its event came.
pub(super) struct Tries<'a> {
    pub(super) targets: &'a Targets,
    pub(super) rules: Option<&'a CircuitRules>,
}

impl Tries<'_> {
    /// The earliest event of a subscription that can have failed at this time, and none from before the
    /// subscription was there.
    fn begun(&self, id: SubscriptionId, failed_at: DateTime<Utc>) -> DateTime<Utc> {
        let Some(target) = self.targets.get(id) else {
            return failed_at;
        };
        let own = target.subscription.spec.retry_schedule.as_ref();
        let tried_for = own
            .map(RetrySchedule::longest)
            .or(self.rules.map(|rules| rules.tried_for))
            .unwrap_or_default();
        let begun = chrono::Duration::from_std(tried_for)
            .ok()
            .and_then(|tried_for| failed_at.checked_sub_signed(tried_for))
            .unwrap_or(DateTime::<Utc>::MIN_UTC);
        begun.max(target.subscription.created_at)
    }

    /// From when on a subscription misses events whose receiver refused this one for good. A replay's event
    /// can be of any age, and its refusal says nothing of all that came since: it had succeeded then, and
    /// nothing of it is missed, or it is looked back no further than for others.
    fn refused_since(&self, gone: &Settlement) -> DateTime<Utc> {
        let came = created_at(gone.event.uuid());
        let sent = gone.attempt.as_ref().map_or(came, |attempt| attempt.at);
        match gone.replaying.map(|replaying| replaying.was) {
            None | Some(Was::Pending) => came,
            Some(Was::Succeeded) => sent,
            Some(Was::Failed | Was::Unmade) => came.max(self.begun(gone.subscription, sent)),
        }
    }
}

impl Disabled {
    /// What the audit log says of it: nobody's act, but this program's.
    pub(super) fn entry(&self, before: &Subscription, now: DateTime<Utc>) -> AuditEntry {
        let after = Subscription {
            status: SubscriptionStatus::Disabled {
                reason: self.reason.clone(),
            },
            version: before.version + 1,
            ..before.clone()
        };
        // A version ends once, so its end has one id.
        let digest = Sha256::new()
            .chain_update(self.id.uuid())
            .chain_update(before.version.to_be_bytes())
            .finalize();
        let act = Act::by_program(new_id(now, std::array::from_fn(|index| digest[index])));
        act.changed(Action::SubscriptionUpdated, before, &after)
    }

    /// What a change disabled, if it did.
    pub(super) fn between(before: &Subscription, after: &Subscription) -> Option<Self> {
        let was_active = before.status == SubscriptionStatus::Active;
        let reason = after.status.reason().filter(|_| was_active)?;
        Some(Self {
            id: after.id,
            workspace: after.workspace.clone(),
            reason: reason.to_owned(),
            missing_since: after.missing_since.unwrap_or(after.updated_at),
            version: before.version,
        })
    }
}

/// Events to be told of, and who is to be told.
pub(super) struct Told {
    /// All of them, for the outbox.
    pub(super) all: Vec<Arc<Payload>>,
    /// Those that a subscription names.
    pub(super) named: Vec<Arc<Payload>>,
    /// The subscriptions, without those that are disabled by now.
    pub(super) targets: Arc<Targets>,
}

/// Makes events, for workspaces in which somebody wants to know.
pub(super) struct Teller<'a> {
    pub(super) targets: &'a Arc<Targets>,
    pub(super) door: &'a Door,
    pub(super) now: DateTime<Utc>,
}

impl Teller<'_> {
    /// What these outcomes are to be told of, in their order: deliveries that were given up, circuits
    /// that opened, subscriptions that were disabled. Of operational events nothing is told, or one that
    /// cannot be delivered would make another for ever; nor of those of which nobody knows what they are.
    pub(super) fn settled<'s>(
        &self,
        settled: impl Iterator<Item = &'s Settlement>,
        judged: &[Judged],
        disabled: &[Disabled],
    ) -> Result<Told> {
        let mut events = Vec::new();
        for settlement in settled {
            let told_of = settlement.event_type.as_ref();
            if is_given_up(settlement)
                && let Some(event_type) = told_of.filter(|it| !it.is_operational())
            {
                events.push(self.failed(settlement, event_type)?);
            }
        }
        for judged in judged {
            if judged.transition == Some(Transition::Opened) {
                events.push(self.opened(judged)?);
            }
        }
        for disabled in disabled {
            events.push(self.disabled(disabled)?);
        }
        Ok(self.told(events, disabled))
    }

    /// The same of a subscription that an admin disabled.
    pub(super) fn by_admin(&self, disabled: Disabled) -> Result<Told> {
        let event = self.disabled(&disabled)?;
        Ok(self.told(vec![event], &[disabled]))
    }

    fn told(&self, all: Vec<Arc<Payload>>, disabled: &[Disabled]) -> Told {
        let targets = if disabled.is_empty() {
            Arc::clone(self.targets)
        } else {
            let gone = disabled.iter().map(|one| TargetChange::Gone(one.id));
            let generation = self.targets.generation();
            Arc::new(self.targets.with(generation, gone.collect()))
        };
        let is_named = |event: &&Arc<Payload>| targets.matching(event.event()).next().is_some();
        let named = all.iter().filter(is_named).cloned().collect();
        let all = if self.door.is_open() { all } else { Vec::new() };
        Told {
            all,
            named,
            targets,
        }
    }

    fn failed(&self, settlement: &Settlement, event_type: &EventType) -> Result<Arc<Payload>> {
        let attempt = settlement.attempt.as_ref();
        let event = Operational::DeliveryFailed {
            delivery_id: settlement.delivery.to_string(),
            event_id: settlement.event.to_string(),
            event_type: event_type.to_string(),
            subscription_id: settlement.subscription.to_string(),
            host: None,
            attempts: settlement.attempts_before.saturating_add(1),
            status: attempt.and_then(|attempt| attempt.status),
            error: attempt
                .and_then(|attempt| attempt.error)
                .map(ErrorClass::as_str),
        };
        let what = (settlement.subscription, &settlement.workspace);
        // A lease ends once, so the event of its end has one id.
        let lease = settlement.epoch.to_be_bytes();
        self.build(
            &event,
            what,
            &[settlement.delivery.uuid().as_bytes(), &lease],
        )
    }

    fn opened(&self, judged: &Judged) -> Result<Arc<Payload>> {
        let event = Operational::CircuitOpened {
            subscription_id: judged.subscription.to_string(),
            host: None,
            failures_in_row: judged.circuit.failures_in_row,
            until: judged.circuit.state.open_until().map(timestamp),
        };
        self.build(&event, (judged.subscription, &judged.workspace), &[])
    }

    fn disabled(&self, disabled: &Disabled) -> Result<Arc<Payload>> {
        let event = Operational::disabled(disabled.id, &disabled.reason);
        self.build(&event, (disabled.id, &disabled.workspace), &[])
    }

    fn build(
        &self,
        event: &Operational,
        (subscription, workspace): (SubscriptionId, &WorkspaceId),
        parts: &[&[u8]],
    ) -> Result<Arc<Payload>> {
        let target = self.targets.get(subscription);
        let host = target.map(|target| target.subscription.spec.url.host());
        let event = event.clone().at(host);
        let id = self.id(event.event_type(), subscription, parts);
        let built = OwnEvent::Operational(&event).build(id, workspace, self.now, None);
        built.map(Arc::new).map_err(StoreError::corrupt)
    }

    /// The same for the same thing at the same time: no randomness is needed here.
    fn id(&self, event_type: &str, subscription: SubscriptionId, parts: &[&[u8]]) -> EventId {
        let mut digest = Sha256::new()
            .chain_update(event_type)
            .chain_update(subscription.uuid())
            .chain_update(self.now.timestamp_millis().to_be_bytes());
        for part in parts {
            digest.update(part);
        }
        let digest = digest.finalize();
        new_id(self.now, std::array::from_fn(|index| digest[index]))
    }
}

/// A batch of outcomes in parts, nearly always one: what is told of a part makes no more deliveries than
/// [`MAX_FAN_OUT_ROWS`], or is of one outcome. So two thousand failures of which fifty subscriptions want
/// to know do not hold the feed's lock for a hundred thousand rows.
pub(super) fn parts<'s>(settlements: &'s [Settlement], known: &Targets) -> Vec<&'s [Settlement]> {
    let mut parts = Vec::new();
    let mut rest = settlements;
    while !rest.is_empty() {
        let (part, behind) = rest.split_at(first_part(rest, known));
        parts.push(part);
        rest = behind;
    }
    parts
}

/// How many of them are in the first part.
fn first_part(settlements: &[Settlement], known: &Targets) -> usize {
    if !known.wants_operational() {
        return settlements.len();
    }
    let mut named: HashMap<&WorkspaceId, (usize, usize)> = HashMap::new();
    let mut failing = HashSet::new();
    let mut rows = 0;
    for (place, settlement) in settlements.iter().enumerate() {
        let attempt = settlement.attempt.as_ref();
        if attempt.is_none_or(Attempt::succeeded) {
            continue;
        }
        let workspace = &settlement.workspace;
        let (of_delivery, of_receiver) = *named.entry(workspace).or_insert_with(|| {
            let [failed, opened, disabled] =
                Operational::TYPES.map(|event_type| known.naming(workspace, event_type));
            (failed, opened.max(disabled))
        });
        if is_given_up(settlement) {
            rows += of_delivery;
        }
        // Of a receiver one thing is told, if any: that it is left alone, or that it is disabled.
        if failing.insert(settlement.subscription) {
            rows += of_receiver;
        }
        if rows > MAX_FAN_OUT_ROWS && place > 0 {
            return place;
        }
    }
    settlements.len()
}

/// Whether anybody is to be told of anything.
pub(super) fn is_wanted(targets: &Targets, door: &Door) -> bool {
    door.is_open() || targets.wants_operational()
}
