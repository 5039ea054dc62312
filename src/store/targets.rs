//! The subscriptions, held in memory for matching and sending.
//!
//! Every change of a subscription raises one number in the database, its row's `generation`, in the
//! same transaction. Accept and claim read that number inside their own transaction: equal to the
//! one in memory, the memory is exact; greater, the rows changed since then are loaded first. So no
//! accept fans out to, and no claim serves, a subscription as it was before its last commit.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use super::{Result, StoreError};
use crate::domain::circuit::CircuitState;
use crate::domain::event::Event;
use crate::domain::filter::{EventFilter, EventType};
use crate::domain::ids::{SubscriptionId, WorkspaceId};
use crate::domain::signature::SigningKey;
use crate::domain::subscription::Subscription;

/// A signing key and the end of its overlap, if a rotation gave it one.
#[derive(Clone, Debug)]
pub struct LiveKey {
    /// The key.
    pub key: SigningKey,
    /// Signs until then; `None` is the current one.
    pub expires_at: Option<DateTime<Utc>>,
}

/// A subscription with its signing keys: all that matching and sending need.
#[derive(Clone)]
pub struct Target {
    /// The subscription.
    pub subscription: Subscription,
    /// Its keys, newest first.
    pub keys: Vec<LiveKey>,
}

impl Target {
    /// The keys that sign at this instant, newest first.
    pub fn signing_keys(&self, now: DateTime<Utc>) -> Vec<SigningKey> {
        self.keys
            .iter()
            .filter(|live| live.expires_at.is_none_or(|end| now < end))
            .map(|live| live.key.clone())
            .collect()
    }

    /// Its id.
    pub fn id(&self) -> SubscriptionId {
        self.subscription.id
    }

    /// What a claim may take of it at this instant.
    pub(super) fn offer(&self, now: DateTime<Utc>) -> Offer {
        match self.subscription.circuit.open_until() {
            None => Offer::Everything,
            Some(until) if until <= now => Offer::Probe,
            Some(until) => Offer::AskedUntil(until),
        }
    }

    /// Whether deliveries wait for probes to succeed.
    pub(super) fn is_left_alone(&self) -> bool {
        self.subscription.circuit.open_until().is_some()
    }
}

/// What may be claimed of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// Whatever is due.
    Everything,
    /// One delivery, to find out whether its receiver is back.
    Probe,
    /// Before this, only what somebody asked for by itself: replays of one delivery.
    AskedUntil(DateTime<Utc>),
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("id", &self.id().to_string())
            .finish_non_exhaustive()
    }
}

/// A row that changed since a generation.
#[derive(Debug)]
pub enum TargetChange {
    /// Active: it is matched and served.
    Active(Box<Target>),
    /// Disabled or deleted: it is neither.
    Gone(SubscriptionId),
}

impl TargetChange {
    /// What a row that says `active` comes to. One that cannot be read, or whose keys cannot (its
    /// secrets go first when it is deleted), is passed over: it must not stop its neighbours.
    pub(super) fn of_active(id: SubscriptionId, read: Result<Target>) -> Result<Self> {
        match read {
            Ok(target) => Ok(Self::Active(Box::new(target))),
            Err(error @ (StoreError::Corrupt(_) | StoreError::MasterKey(_))) => {
                tracing::error!(subscription = %id, %error, "passed over: it cannot be read");
                Ok(Self::Gone(id))
            }
            Err(error) => Err(error),
        }
    }
}

/// All active subscriptions, as of one generation. Replaced whole, never changed.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    generation: i64,
    by_id: HashMap<SubscriptionId, Arc<Target>>,
    by_workspace: HashMap<WorkspaceId, Vec<Arc<Target>>>,
    has_circuits: bool,
    wants_operational: bool,
}

impl Targets {
    /// The generation that this is exact for.
    pub fn generation(&self) -> i64 {
        self.generation
    }

    /// The active subscription of this id.
    pub fn get(&self, id: SubscriptionId) -> Option<&Arc<Target>> {
        self.by_id.get(&id)
    }

    /// All active subscriptions.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Target>> {
        self.by_id.values()
    }

    /// How many are active.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether none is active.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// Where this one's circuit stands.
    pub(super) fn circuit(&self, id: SubscriptionId) -> CircuitState {
        let target = self.get(id);
        target.map_or(CircuitState::Closed, |target| target.subscription.circuit)
    }

    /// Whether anything is remembered of any receiver.
    pub(super) fn has_circuits(&self) -> bool {
        self.has_circuits
    }

    /// Whether anybody wants to be told of our own work.
    pub(super) fn wants_operational(&self) -> bool {
        self.wants_operational
    }

    /// How many receivers are left alone.
    pub(super) fn open_circuits(&self) -> usize {
        if !self.has_circuits {
            return 0;
        }
        self.iter().filter(|target| target.is_left_alone()).count()
    }

    /// The subscriptions that an event goes to.
    pub fn matching<'a>(&'a self, event: &'a Event) -> impl Iterator<Item = &'a Arc<Target>> {
        self.by_workspace
            .get(&event.workspace)
            .into_iter()
            .flatten()
            .filter(|target| target.subscription.receives(event))
    }

    /// How many subscriptions of a workspace an event of this type may go to.
    pub(super) fn naming(&self, workspace: &WorkspaceId, event_type: &str) -> usize {
        let Ok(event_type) = EventType::new(event_type) else {
            return 0;
        };
        let targets = self.by_workspace.get(workspace).into_iter().flatten();
        let names = |target: &&Arc<Target>| {
            let filters = &target.subscription.spec.event_types;
            filters.iter().any(|filter| filter.matches(&event_type))
        };
        targets.filter(names).count()
    }

    /// What this becomes with the changes up to `generation`.
    #[must_use]
    pub fn with(&self, generation: i64, changes: Vec<TargetChange>) -> Self {
        let mut by_id = self.by_id.clone();
        for change in changes {
            match change {
                TargetChange::Active(target) => {
                    by_id.insert(target.id(), Arc::from(target));
                }
                TargetChange::Gone(id) => {
                    by_id.remove(&id);
                }
            }
        }
        let mut by_workspace: HashMap<WorkspaceId, Vec<Arc<Target>>> = HashMap::new();
        for target in by_id.values() {
            by_workspace
                .entry(target.subscription.workspace.clone())
                .or_default()
                .push(Arc::clone(target));
        }
        // The order of fan-out is the order of registration, whatever a hash map says.
        for targets in by_workspace.values_mut() {
            targets.sort_by_key(|target| target.id());
        }
        let has_circuits = by_id
            .values()
            .any(|target| target.subscription.circuit != CircuitState::Closed);
        let wants_operational = by_id.values().any(|target| {
            let filters = &target.subscription.spec.event_types;
            filters.iter().any(EventFilter::is_operational)
        });
        Self {
            generation,
            by_id,
            by_workspace,
            has_circuits,
            wants_operational,
        }
    }
}
