//! What outcomes mean beyond their deliveries: receivers are left alone or disabled, and it is told.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sqlx::SqliteConnection;

use super::changes::disable;
use super::events::{Kept, Offer};
use super::rows::millis;
use super::{Approach, SqliteStore, audit, circuits, outbox};
use crate::domain::event::Event;
use crate::domain::payload::Payload;
use crate::store::circuits::{Judged, matters, tallies, tell};
use crate::store::operational::{
    Disabled, NOBODY, Teller, Told, Tries, ending, is_wanted, no_lease,
};
use crate::store::outbox::Appended;
use crate::store::{Result, Settlement, StoreError};

/// What is told of behind the commit.
#[must_use = "it is told of after the commit"]
#[derive(Default)]
pub(super) struct Consequences {
    judged: Vec<Judged>,
    disabled: Vec<Disabled>,
    telling: Option<Telling>,
}

/// Events of ours that a transaction holds which is not committed yet.
#[must_use = "it is told of after the commit"]
pub(super) struct Telling {
    kept: Vec<Kept>,
    appended: Appended,
}

impl SqliteStore {
    /// Draws them, of outcomes that changed what they name, in the order in which those ended.
    pub(super) async fn draw_consequences(
        &self,
        transaction: &mut SqliteConnection,
        held: &[&Settlement],
        now: DateTime<Utc>,
    ) -> Result<Consequences> {
        let known = self.held_targets();
        if !held.iter().any(|settlement| matters(settlement, &known)) {
            return Ok(Consequences::default());
        }
        // Read before anything is changed: what is in memory was committed.
        let targets = self.targets(transaction).await?;
        let judged = match self.circuit_rules.get() {
            None => Vec::new(),
            Some(rules) => {
                let tallies = tallies(held, &targets);
                circuits::judge(transaction, rules, &tallies, now).await?
            }
        };
        let mut disabled = Vec::new();
        let tries = Tries {
            targets: &targets,
            rules: self.circuit_rules.get(),
        };
        for one in ending(held, &judged, &tries) {
            if disable(transaction, &one, millis(now)).await? {
                if let Some(before) = targets.get(one.id) {
                    audit::tell(transaction, one.entry(&before.subscription, now)).await?;
                }
                disabled.push(one);
            }
        }
        if !is_wanted(&targets, &self.outbox) {
            return Ok(Consequences {
                judged,
                disabled,
                telling: None,
            });
        }
        let teller = Teller {
            targets: &targets,
            door: &self.outbox,
            now,
        };
        let told = teller.settled(held.iter().copied(), &judged, &disabled)?;
        let telling = Some(self.write_told(transaction, &told, now).await?);
        Ok(Consequences {
            judged,
            disabled,
            telling,
        })
    }

    /// Takes in what is told of, and appends it to the outbox.
    pub(super) async fn write_told(
        &self,
        transaction: &mut SqliteConnection,
        told: &Told,
        now: DateTime<Utc>,
    ) -> Result<Telling> {
        let mut rest: &[Arc<Payload>] = &told.named;
        let mut kept = Vec::new();
        while !rest.is_empty() {
            let offer = Offer::of(rest, no_lease(), &NOBODY);
            let some = self
                .keep_for(transaction, &offer, Approach::Confident, &told.targets)
                .await?
                .ok_or_else(|| StoreError::corrupt("an event of ours was there before"))?;
            rest = rest.get(some.taken()..).unwrap_or_default();
            kept.push(some);
        }
        let all: Vec<&Event> = told.all.iter().map(|payload| payload.event()).collect();
        let appended = outbox::append(transaction, &self.outbox, &all, millis(now)).await?;
        Ok(Telling { kept, appended })
    }

    /// Tells of them, behind the commit.
    pub(super) async fn tell_consequences(&self, consequences: Consequences) {
        let changed = consequences.judged.iter().any(Judged::is_news);
        // What is leased of them already must not be sent.
        if changed || !consequences.disabled.is_empty() {
            self.refresh_targets().await;
        }
        tell(&consequences.judged);
        if let Some(telling) = consequences.telling {
            self.told(telling);
        }
    }

    /// Tells whom it concerns, behind the commit.
    pub(super) fn told(&self, telling: Telling) {
        for kept in telling.kept {
            self.kept(kept);
        }
        telling.appended.committed();
    }
}
