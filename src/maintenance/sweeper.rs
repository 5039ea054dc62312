//! One run: each kind of thing, step by step until nothing old is left of it.

use std::time::Duration;

use metrics::{counter, gauge};

use super::Parts;
use crate::clock::pause;
use crate::domain::ids::EventId;
use crate::store::retention::LOOSE_FOR;
use crate::store::{Lease, Removed, Resolution, Rest, Result, Swept};
use crate::telemetry::metric;

/// After each step so many times as long as it took belong to others.
const REST: u32 = 3;

/// And no more than this, however slow the store is.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// What there is to do, in this order: events before what outlives them.
#[derive(Clone, Copy, Debug)]
enum Chore {
    Events,
    LooseEvents,
    Answers,
    AuditLog,
    EventKeys,
    IdempotencyKeys,
    Replays,
    Minutes,
    Hours,
    OrphanedRollups,
}

impl Chore {
    const ALL: [Self; 10] = [
        Self::Events,
        Self::LooseEvents,
        Self::Answers,
        Self::AuditLog,
        Self::EventKeys,
        Self::IdempotencyKeys,
        Self::Replays,
        Self::Minutes,
        Self::Hours,
        Self::OrphanedRollups,
    ];
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing is left to do.
    Done,
    /// Another leads.
    Deposed,
}

/// Runs under one leadership.
pub(super) struct Sweeper<'a> {
    parts: &'a Parts,
    held: &'a Lease,
}

impl<'a> Sweeper<'a> {
    pub(super) fn new(parts: &'a Parts, held: &'a Lease) -> Self {
        Self { parts, held }
    }

    /// Does all there is to do, and tells of it.
    pub(super) async fn run(&self) -> Result<Ended> {
        let begun = self.parts.clock.monotonic();
        let mut removed = Removed::default();
        let ended = self.do_all(&mut removed).await;
        let took = self.parts.clock.monotonic().saturating_sub(begun);
        let rows: Vec<String> = removed
            .iter()
            .map(|(kept, rows)| format!("{} {rows}", kept.as_str()))
            .collect();
        let (rows, took_ms) = (rows.join(", "), took.as_millis());
        if removed.is_empty() {
            tracing::debug!(took_ms, "retention: nothing was old enough");
        } else {
            tracing::info!(rows, took_ms, "retention: removed what was old");
        }
        if let Ok(Ended::Done) = ended {
            self.tell_standing().await?;
        }
        ended
    }

    async fn do_all(&self, removed: &mut Removed) -> Result<Ended> {
        for chore in Chore::ALL {
            if self.finish(chore, removed).await? == Ended::Deposed {
                return Ok(Ended::Deposed);
            }
        }
        Ok(Ended::Done)
    }

    /// Step by step, each followed by a rest.
    async fn finish(&self, chore: Chore, removed: &mut Removed) -> Result<Ended> {
        let Some(age) = self.age(chore) else {
            return Ok(Ended::Done);
        };
        let mut behind = None;
        loop {
            let begun = self.parts.clock.monotonic();
            let Some(swept) = self.step(chore, age, behind).await? else {
                return Ok(Ended::Deposed);
            };
            for (kept, rows) in swept.removed.iter() {
                counter!(metric::RETENTION_REMOVED, "table" => kept.as_str()).increment(rows);
            }
            removed.take_in(&swept.removed);
            match swept.rest {
                Rest::Nothing => return Ok(Ended::Done),
                Rest::Some => {}
                Rest::Behind(event) => behind = Some(event),
            }
            let took = self.parts.clock.monotonic().saturating_sub(begun);
            pause(took.saturating_mul(REST).min(LONGEST_REST)).await;
        }
    }

    /// How old a thing must be; `None` where it is kept for ever.
    fn age(&self, chore: Chore) -> Option<Duration> {
        let settings = &self.parts.settings;
        let limited = |age: Duration| (!age.is_zero()).then_some(age);
        match chore {
            Chore::Events => limited(settings.events),
            Chore::LooseEvents => limited(settings.events).map(|age| age + LOOSE_FOR),
            Chore::Answers => limited(settings.answers),
            Chore::AuditLog => limited(settings.audit),
            Chore::EventKeys => limited(settings.event_keys),
            Chore::Replays => limited(settings.replays),
            Chore::Minutes => limited(settings.rollup_minutes),
            Chore::Hours => limited(settings.rollup_hours),
            // Theirs is the API's promise, or that their subscription is gone: the store's to know.
            Chore::IdempotencyKeys | Chore::OrphanedRollups => Some(Duration::ZERO),
        }
    }

    async fn step(
        &self,
        chore: Chore,
        age: Duration,
        behind: Option<EventId>,
    ) -> Result<Option<Swept>> {
        let (store, held, limit) = (&self.parts.store, self.held, self.parts.pace.step);
        match chore {
            Chore::Events => store.remove_events(held, age, limit).await,
            Chore::LooseEvents => store.remove_loose_events(held, age, behind, limit).await,
            Chore::Answers => store.remove_answers(held, age, limit).await,
            Chore::AuditLog => store.remove_audit_entries(held, age, limit).await,
            Chore::EventKeys => store.remove_event_keys(held, age, limit).await,
            Chore::IdempotencyKeys => store.remove_idempotency_keys(held, limit).await,
            Chore::Replays => store.remove_replays(held, age, limit).await,
            Chore::Minutes => {
                store
                    .remove_rollups(held, Resolution::Minute, age, limit)
                    .await
            }
            Chore::Hours => {
                store
                    .remove_rollups(held, Resolution::Hour, age, limit)
                    .await
            }
            Chore::OrphanedRollups => store.remove_orphaned_rollups(held, limit).await,
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds since 1970 are far from 2^53"
    )]
    async fn tell_standing(&self) -> Result<()> {
        let now = self.parts.clock.now().timestamp();
        gauge!(metric::RETENTION_LAST_RUN).set(now as f64);
        let oldest = self.parts.store.oldest_event().await?;
        gauge!(metric::OLDEST_EVENT).set(oldest.unwrap_or_default().as_secs_f64());
        Ok(())
    }
}
