//! What outcomes mean beyond their deliveries: receivers are left alone or disabled, and it is told.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::PgTransaction;
use uuid::Uuid;

use super::changes::{disable, raise_generation};
use super::events::Kept;
use super::{PostgresStore, Result, audit, circuits, drafts, outbox};
use crate::domain::event::Event;
use crate::domain::payload::Payload;
use crate::store::circuits::{Judged, matters, may_matter, tallies, tell};
use crate::store::operational::{
    Disabled, NOBODY, Teller, Told, Tries, ending, gone, is_wanted, no_lease,
};
use crate::store::outbox::Appended;
use crate::store::targets::Targets;
use crate::store::{Maintenance, Settlement};

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
        if !held.iter().any(|settlement| matters(settlement, &known)) {
            return Ok(Consequences::default());
        }
        // Read before anything is changed: what is in memory was committed.
        let targets = self.current_targets(&mut *tx).await?;
        let (judged, disabled) = self.judge(tx, &held, &targets).await?;
        let is_wanted = is_wanted(&targets, &self.outbox);
        if !is_wanted && disabled.is_empty() {
            return Ok(Consequences {
                judged,
                ..Consequences::default()
            });
        }
        let now = match judged.first() {
            Some(judged) => judged.at,
            None => drafts::now(tx).await?,
        };
        for one in &disabled {
            if let Some(before) = targets.get(one.id) {
                audit::tell(tx, one.entry(&before.subscription, now)).await?;
            }
        }
        if !is_wanted {
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
        let telling = Some(self.write_told(tx, &told).await?);
        Ok(Consequences {
            judged,
            disabled,
            telling,
        })
    }

    /// Notes what is told of receivers, and disables subscriptions that are not to be tried any more.
    /// First every circuit of both is locked, in order, and last the generation is raised, once: two
    /// settles that tell of the same receivers never wait for each other crosswise.
    async fn judge(
        &self,
        tx: &mut PgTransaction<'_>,
        held: &[&Settlement],
        targets: &Targets,
    ) -> Result<(Vec<Judged>, Vec<Disabled>)> {
        let rules = self.circuit_rules.get();
        let tallies = rules.map(|_| tallies(held, targets)).unwrap_or_default();
        let ids = gone(held, targets).map(|gone| (gone.subscription, &gone.workspace));
        let kept = circuits::kept(tx, &tallies, ids).await?;
        let judged = match rules {
            Some(rules) => circuits::judge(tx, rules, &tallies, kept).await?,
            None => Vec::new(),
        };
        let tries = Tries { targets, rules };
        let ending = ending(held, &judged, &tries);
        let news: Vec<Uuid> = judged
            .iter()
            .filter(|judged| judged.is_news())
            .map(|judged| judged.subscription.uuid())
            .collect();
        if news.is_empty() && ending.is_empty() {
            return Ok((judged, Vec::new()));
        }
        circuits::forget(tx, ending.iter().map(|one| one.id.uuid()).collect()).await?;
        let generation = raise_generation(tx).await?;
        circuits::spread(tx, news, generation).await?;
        let disabled = disable(tx, &ending, generation).await?;
        let disabled = ending
            .into_iter()
            .filter(|one| disabled.contains(&one.id))
            .collect();
        Ok((judged, disabled))
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
            if self.kept(kept).pending > 0 {
                self.announce();
            }
        }
        telling.appended.committed();
    }
}
