//! Replays that cannot be taken forward: tried again more and more seldom, so that one that never can does
//! not fill the log, nor ask the database five times a second.

use std::collections::HashMap;
use std::time::Duration;

use crate::domain::ids::ReplayId;

/// How long the first one waits; each failure in a row doubles it.
const FIRST: Duration = Duration::from_secs(1);

/// No replay waits for longer.
const LONGEST: Duration = Duration::from_mins(1);

/// Which of them wait, and until when, on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Stuck(HashMap<ReplayId, Stop>);

#[derive(Debug)]
struct Stop {
    wait: Duration,
    until: Duration,
}

impl Stuck {
    /// Whether it is too early to try this one again.
    pub(super) fn waits(&self, id: ReplayId, now: Duration) -> bool {
        self.0.get(&id).is_some_and(|stop| now < stop.until)
    }

    /// It failed, once more; how long it waits.
    pub(super) fn failed(&mut self, id: ReplayId, now: Duration) -> Duration {
        let before = self.0.get(&id).map(|stop| stop.wait);
        let wait = before.map_or(FIRST, |wait| (wait * 2).min(LONGEST));
        let until = now + wait;
        self.0.insert(id, Stop { wait, until });
        wait
    }

    /// It goes on.
    pub(super) fn freed(&mut self, id: ReplayId) {
        self.0.remove(&id);
    }

    /// Forgets those that nobody tried again: they are over.
    pub(super) fn forget_old(&mut self, now: Duration) {
        self.0.retain(|_, stop| now < stop.until + LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_fails_again_and_again_is_tried_once_a_minute_in_the_end() {
        let id = ReplayId::from_uuid(uuid::Uuid::nil());
        let mut stuck = Stuck::default();
        let mut now = Duration::ZERO;
        assert!(!stuck.waits(id, now));
        let waits: Vec<u64> = (0..9)
            .map(|_| {
                let wait = stuck.failed(id, now);
                assert!(stuck.waits(id, now));
                now += wait;
                assert!(!stuck.waits(id, now));
                wait.as_secs()
            })
            .collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        stuck.forget_old(now);
        assert_eq!(stuck.failed(id, now), LONGEST);
        stuck.forget_old(now + 2 * LONGEST);
        assert_eq!(stuck.failed(id, now), FIRST);
        stuck.freed(id);
        assert!(!stuck.waits(id, now));
    }
}
