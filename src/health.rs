//! What the parts know of their own health, gathered for `/readyz`.
//!
//! Each part writes its own line; nobody needs to know who reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The parts whose absence operators want to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The database. Without it nothing works: not ready.
    Database,
    /// The broker. Without it what is queued is still delivered: degraded.
    Broker,
    /// The broker's queue of state. Without it what is read gets old: degraded.
    Snapshots,
    /// What we publish ourselves. Without it that waits: degraded.
    Outbox,
}

impl Part {
    /// The name in `/readyz` and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Broker => "broker",
            Self::Snapshots => "snapshots",
            Self::Outbox => "outbox",
        }
    }
}

/// The parts that ever said how they are, and the reason (for operators) of each that is down.
#[derive(Debug, Default)]
pub struct Health(Mutex<BTreeMap<Part, Option<String>>>);

impl Health {
    /// The part does not work. The reason must hold no secret.
    pub fn down(&self, part: Part, reason: impl Into<String>) {
        self.lock().insert(part, Some(reason.into()));
    }

    /// The part works.
    pub fn up(&self, part: Part) {
        self.lock().insert(part, None);
    }

    /// What is known of each part; a part that the configuration leaves out says nothing.
    pub fn parts(&self) -> Vec<(Part, Option<String>)> {
        self.lock()
            .iter()
            .map(|(part, fault)| (*part, fault.clone()))
            .collect()
    }

    /// What is down, and why.
    pub fn faults(&self) -> Vec<(Part, String)> {
        self.parts()
            .into_iter()
            .filter_map(|(part, fault)| Some((part, fault?)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Part, Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Tells of one loop's faults: health each time, the log once for each change, however often the same
/// fault comes again.
#[derive(Debug)]
pub struct Reporter {
    health: Arc<Health>,
    /// The fault that was told last; `None` while all is well.
    last: Option<String>,
}

impl Reporter {
    /// Nothing was told yet.
    pub fn new(health: Arc<Health>) -> Self {
        Self { health, last: None }
    }

    /// The part works.
    pub fn up(&mut self, part: Part) {
        self.last = None;
        self.health.up(part);
    }

    /// The part does not work. The reason must hold no secret.
    pub fn down(&mut self, part: Part, reason: String) {
        self.health.down(part, reason.clone());
        if self.last.as_ref() == Some(&reason) {
            tracing::debug!(reason, "{}: still away", part.as_str());
        } else {
            tracing::warn!(reason, "{}: away, trying again", part.as_str());
            self.last = Some(reason);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_has_one_line_and_loses_it_when_it_works_again() {
        let health = Health::default();
        health.down(Part::Broker, "refused");
        health.down(Part::Broker, "timed out");
        health.down(Part::Database, "away");
        assert_eq!(
            health.faults(),
            [
                (Part::Database, "away".to_owned()),
                (Part::Broker, "timed out".to_owned())
            ]
        );
        health.up(Part::Broker);
        health.up(Part::Broker);
        assert_eq!(health.faults().len(), 1);
        assert_eq!(health.parts().len(), 2);
    }
}
