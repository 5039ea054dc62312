//! What the parts know of their own health, gathered for `/readyz`.
//!
//! Each part writes its own line; nobody needs to know who reads it.

use std::sync::{Mutex, PoisonError};

/// The parts whose absence operators want to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The database. Without it nothing works: not ready.
    Database,
    /// The broker. Without it what is queued is still delivered: degraded.
    Broker,
}

impl Part {
    /// The name in `/readyz` and in logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Broker => "broker",
        }
    }
}

/// The parts that are down at the moment, each with a reason for operators.
#[derive(Debug, Default)]
pub struct Health(Mutex<Vec<(Part, String)>>);

impl Health {
    /// The part does not work. The reason must hold no secret.
    pub fn down(&self, part: Part, reason: impl Into<String>) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.retain(|(faulty, _)| *faulty != part);
        faults.push((part, reason.into()));
        faults.sort_by_key(|(faulty, _)| *faulty);
    }

    /// The part works.
    pub fn up(&self, part: Part) {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        faults.retain(|(faulty, _)| *faulty != part);
    }

    /// What is down, and why.
    pub fn faults(&self) -> Vec<(Part, String)> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
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
    }
}
