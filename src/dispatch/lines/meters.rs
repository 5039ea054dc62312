//! How fast deliveries may be taken into memory for those that set a limit a second, or are just back:
//! a token for each, of which one second's worth may be saved up (the generic cell rate algorithm: one
//! instant is all that is kept). The limit is of all replicas together; each takes an equal part.
//!
//! A token is taken with a room, so that what has a room is sent as soon as it has a slot, and the lines
//! need no timers.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::domain::ids::SubscriptionId;
use crate::store::targets::Target;

/// How much may be saved up.
const BURST: Duration = Duration::from_secs(1);

/// How long a meter is kept that nobody asks: longer than any rate grows.
const KEPT: Duration = Duration::from_mins(10);

/// The longest that two tokens may lie apart.
const LONGEST: Duration = Duration::from_hours(1);

/// The meters of all that have a limit.
pub(super) struct Meters {
    replicas: u32,
    by_id: HashMap<SubscriptionId, Meter>,
}

struct Meter {
    /// Until when tokens are spent at the rate of now.
    spent_until: Instant,
    /// What the last token took.
    last: Duration,
    /// The recovery that is under way, and when this process heard of it: its own clock may differ from
    /// the database's.
    recovery: Option<(DateTime<Utc>, Instant)>,
}

impl Meters {
    /// None yet, and this process is alone.
    pub(super) fn new() -> Self {
        Self {
            replicas: 1,
            by_id: HashMap::new(),
        }
    }

    /// Among how many processes limits are divided.
    pub(super) fn set_replicas(&mut self, replicas: NonZeroU32) {
        self.replicas = replicas.get();
    }

    /// Among how many they are.
    pub(super) fn replicas(&self) -> u32 {
        self.replicas
    }

    /// Takes a token, if there is one, or no limit.
    pub(super) fn take(&mut self, target: &Target, now: Instant) -> bool {
        let Some(interval) = self.interval(target, now) else {
            return true;
        };
        let Some(meter) = self.by_id.get_mut(&target.id()) else {
            return true;
        };
        if meter.ready_at(interval) > now {
            return false;
        }
        meter.spent_until = meter.spent_until.max(now) + interval;
        meter.last = interval;
        true
    }

    /// Gives a token back that came to nothing.
    pub(super) fn give_back(&mut self, id: SubscriptionId) {
        if let Some(meter) = self.by_id.get_mut(&id)
            && let Some(earlier) = meter.spent_until.checked_sub(meter.last)
        {
            meter.spent_until = earlier;
        }
    }

    /// When there is a token again, where there is none now.
    pub(super) fn ready_at(&mut self, target: &Target, now: Instant) -> Option<Instant> {
        let interval = self.interval(target, now)?;
        let ready_at = self.by_id.get(&target.id())?.ready_at(interval);
        (ready_at > now).then_some(ready_at)
    }

    /// Forgets what nobody asked for in a long time.
    pub(super) fn tidy(&mut self, now: Instant) {
        self.by_id.retain(|_, meter| meter.spent_until + KEPT > now);
    }

    /// How far tokens lie apart; `None` is no limit. There is a meter where there is one.
    fn interval(&mut self, target: &Target, now: Instant) -> Option<Duration> {
        let subscription = &target.subscription;
        let recovery = subscription.circuit.recovering_since();
        if subscription.spec.rate_limit.is_none() && recovery.is_none() {
            return None;
        }
        let meter = self.by_id.entry(target.id()).or_insert_with(|| Meter {
            spent_until: now,
            last: Duration::ZERO,
            recovery: None,
        });
        if meter.recovery.map(|(since, _)| since) != recovery {
            meter.recovery = recovery.map(|since| (since, now));
        }
        let growing = meter.recovery.and_then(|(_, heard)| {
            subscription
                .circuit
                .rate_after(now.saturating_duration_since(heard))
        });
        let limit = subscription
            .spec
            .rate_limit
            .map(|limit| f64::from(limit.get()));
        let rate = match (limit, growing) {
            (Some(limit), Some(growing)) => limit.min(growing),
            (one, other) => one.or(other)?,
        };
        let interval = Duration::try_from_secs_f64(f64::from(self.replicas) / rate);
        Some(interval.unwrap_or(LONGEST).min(LONGEST))
    }
}

impl Meter {
    fn ready_at(&self, interval: Duration) -> Instant {
        let saved = BURST.saturating_sub(interval);
        self.spent_until
            .checked_sub(saved)
            .unwrap_or(self.spent_until)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::{limited, target};
    use super::*;
    use crate::domain::circuit::CircuitState;

    /// How many tokens there are at this instant; they are taken.
    fn take(meters: &mut Meters, target: &Target, now: Instant) -> usize {
        (0..1_000).take_while(|_| meters.take(target, now)).count()
    }

    fn recovering(seconds: u64) -> Arc<Target> {
        let mut target = Target::clone(&target(1, None));
        let since = DateTime::UNIX_EPOCH + Duration::from_secs(seconds);
        target.subscription.circuit = CircuitState::Recovering {
            since,
            until: since + Duration::from_secs(5),
            pause: Duration::ZERO,
        };
        Arc::new(target)
    }

    #[test]
    fn so_many_a_second_and_a_seconds_worth_saved_up() {
        let (mut meters, target, begin) = (Meters::new(), limited(1, 20), Instant::now());
        assert_eq!(take(&mut meters, &target, begin), 20);
        let ready_at = meters.ready_at(&target, begin);
        assert_eq!(ready_at, Some(begin + Duration::from_millis(50)));
        let later = begin + Duration::from_millis(500);
        assert_eq!(take(&mut meters, &target, later), 10);
        let much_later = begin + Duration::from_mins(1);
        assert_eq!(meters.ready_at(&target, much_later), None);
        assert_eq!(take(&mut meters, &target, much_later), 20);
    }

    #[test]
    fn a_limit_is_divided_among_the_processes() {
        let (mut meters, target, begin) = (Meters::new(), limited(1, 20), Instant::now());
        meters.set_replicas(NonZeroU32::new(4).unwrap());
        let seconds = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(take(&mut meters, &target, begin), 5);
        assert_eq!(take(&mut meters, &target, seconds(1)), 5);
        // Less than one a second is one now and then.
        let slow = limited(2, 1);
        assert_eq!(take(&mut meters, &slow, begin), 1);
        assert_eq!(take(&mut meters, &slow, seconds(3)), 0);
        assert_eq!(take(&mut meters, &slow, seconds(4)), 1);
    }

    #[test]
    fn one_that_recovers_comes_at_a_rate_that_doubles() {
        let (mut meters, target, begin) = (Meters::new(), recovering(0), Instant::now());
        let each: Vec<_> = (0..5)
            .map(|second| take(&mut meters, &target, begin + Duration::from_secs(second)))
            .collect();
        assert_eq!(each, [10, 20, 40, 80, 160]);
        let over = begin + Duration::from_secs(5);
        assert_eq!(take(&mut meters, &target, over), 1_000, "no limit any more");
        // The next recovery begins anew, whenever it is heard of.
        assert!(take(&mut meters, &recovering(60), over + BURST) <= 10);
    }

    #[test]
    fn a_limit_of_its_own_holds_while_it_recovers_too() {
        let (mut meters, begin) = (Meters::new(), Instant::now());
        let mut target = Target::clone(&recovering(0));
        target.subscription.spec.rate_limit = NonZeroU32::new(3);
        assert_eq!(take(&mut meters, &target, begin), 3);
        assert_eq!(
            take(&mut meters, &target, begin + Duration::from_secs(4)),
            3
        );
    }

    #[test]
    fn what_nobody_asks_for_is_forgotten() {
        let (mut meters, target, begin) = (Meters::new(), limited(1, 20), Instant::now());
        take(&mut meters, &target, begin);
        meters.tidy(begin);
        assert_eq!(meters.by_id.len(), 1);
        meters.tidy(begin + 2 * KEPT);
        assert!(meters.by_id.is_empty());
    }
}
