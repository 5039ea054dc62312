//! What outcomes mean beyond their deliveries: receivers are left alone or disabled, and it is told.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::PgTransaction;

use super::changes::disable;
use super::events::Kept;
use super::{PostgresStore, Result, circuits, drafts, outbox};
use crate::domain::event::Event;
use crate::domain::payload::Payload;
use crate::store::circuits::{Judged, ends_something, may_matter, tallies, tell};
use crate::store::operational::{
    Disabled, NOBODY, Teller, Told, Tries, ending, is_wanted, no_lease,
};
use crate::store::outbox::Appended;
use crate::store::{Maintenance, Settlement};

/// What is told of behind the commit.
#[must_use = "it is told of after the commit"]
#[derive(Default)]
pub(super) struct Consequences {
    judged: Vec<Judged>,
    telling: Option<Telling>,
}

/// Events of ours that a transaction holds which is not committed yet.
#[must_use = "it is told of after the commit"]
pub(super) struct Telling {
    kept: Vec<Kept>,
    appended: Appended,
}

impl PostgresStore {
    /// Draws them, of outcomes that changed what they name (`is_held`), in the order in which those
    /// ended.
    pub(super) async fn draw_consequences(
        &self,
        tx: &mut PgTransaction<'_>,
        settlements: &[Settlement],
        is_held: impl FnMut(&&Settlement) -> bool,
    ) -> Result<Consequences> {
        let known = self.held_targets();
        if !may_matter(settlements.iter(), &known) {
            return Ok(Consequences::default());
        }
        let held: Vec<&Settlement> = settlements.iter().filter(is_held).collect();
        let tallies = tallies(held.iter().copied(), &known);
        if tallies.is_empty() && !held.iter().any(|settlement| ends_something(settlement)) {
            return Ok(Consequences::default());
        }
        // Read before anything is changed: what is in memory was committed.
        let targets = self.current_targets(&mut *tx).await?;
        let judged = match self.circuit_rules.get() {
            Some(rules) if !tallies.is_empty() => circuits::judge(tx, rules, &tallies).await?,
            _ => Vec::new(),
        };
        let tries = Tries {
            targets: &targets,
            rules: self.circuit_rules.get(),
        };
        let disabled = disable_ending(tx, ending(&held, &judged, &tries)).await?;
        if !is_wanted(&targets, &self.outbox) {
            return Ok(Consequences {
                judged,
                telling: None,
            });
        }
        let teller = Teller {
            targets: &targets,
            door: &self.outbox,
            now: match judged.first() {
                Some(judged) => judged.at,
                None => drafts::now(tx).await?,
            },
        };
        let told = teller.settled(held.iter().copied(), &judged, &disabled)?;
        let telling = Some(self.write_told(tx, &told).await?);
        Ok(Consequences { judged, telling })
    }

    /// Takes in what is told of, and appends it to the outbox.
    pub(super) async fn write_told(
        &self,
        tx: &mut PgTransaction<'_>,
        told: &Told,
    ) -> Result<Telling> {
        let mut rest: &[Arc<Payload>] = &told.named;
        let mut kept = Vec::new();
        while !rest.is_empty() {
            let some = self
                .keep_for(
                    tx,
                    rest,
                    (no_lease(), &NOBODY),
                    (&told.targets, &HashMap::new()),
                )
                .await?;
            rest = rest.get(some.taken()..).unwrap_or_default();
            kept.push(some);
        }
        let all: Vec<&Event> = told.all.iter().map(|payload| payload.event()).collect();
        let appended = outbox::append(tx, &self.outbox, &all).await?;
        Ok(Telling { kept, appended })
    }

    /// Tells of them, behind the commit.
    pub(super) async fn tell_consequences(&self, consequences: Consequences) {
        if consequences.judged.iter().any(Judged::is_news) {
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
            if self.kept(kept).pending > 0 {
                self.announce();
            }
        }
        telling.appended.committed();
    }
}

/// Disables the subscriptions that are not to be tried any more.
async fn disable_ending(
    tx: &mut PgTransaction<'_>,
    ending: Vec<Disabled>,
) -> Result<Vec<Disabled>> {
    if ending.is_empty() {
        return Ok(Vec::new());
    }
    let disabled = disable(tx, &ending).await?;
    Ok(ending
        .into_iter()
        .filter(|one| disabled.contains(&one.id))
        .collect())
}
