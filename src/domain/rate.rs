//! Counting requests: fixed windows that a key's first request opens (product.md §5).

use std::time::Duration;

use chrono::{DateTime, Utc};

/// The shorter window.
pub const MINUTE: Duration = Duration::from_mins(1);

/// The longer window.
pub const HOUR: Duration = Duration::from_hours(1);

/// How much one key may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Requests in [`MINUTE`].
    pub per_minute: u32,
    /// Requests in [`HOUR`].
    pub per_hour: u32,
}

/// A window: when it was opened, and the requests in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// When it began.
    pub opened_at: DateTime<Utc>,
    /// Requests that were let through.
    pub count: u32,
}

/// What a key has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateUsage {
    /// In this minute of its own.
    pub minute: Window,
    /// In this hour of its own.
    pub hour: Window,
}

/// The window with the fewest requests left, as clients are told of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tightest {
    /// How many it allows.
    pub limit: u32,
    /// How many are left.
    pub remaining: u32,
    /// When it ends.
    pub resets_at: DateTime<Utc>,
    /// How long it is.
    pub length: Duration,
}

impl Window {
    /// The window that a request of this instant falls in. One that was opened in the future is
    /// over as well: a clock that was set back must not lock a key out.
    fn at(self, now: DateTime<Utc>, length: Duration) -> Self {
        let age = now.signed_duration_since(self.opened_at);
        if age.abs().to_std().is_ok_and(|age| age < length) {
            return self;
        }
        Self {
            opened_at: now,
            count: 0,
        }
    }
}

impl RateUsage {
    /// Of a key that has not asked yet.
    pub fn new(now: DateTime<Utc>) -> Self {
        let window = Window {
            opened_at: now,
            count: 0,
        };
        Self {
            minute: window,
            hour: window,
        }
    }

    /// Whether nothing is left of it: a key's usage that is over is that of one that never asked.
    pub fn is_over(self, now: DateTime<Utc>) -> bool {
        self.minute.at(now, MINUTE) != self.minute && self.hour.at(now, HOUR) != self.hour
    }

    /// The usage with one more request, and whether that one is let through: one that is not does
    /// not count.
    pub fn count(self, now: DateTime<Utc>, limits: RateLimits) -> (Self, bool) {
        let mut usage = Self {
            minute: self.minute.at(now, MINUTE),
            hour: self.hour.at(now, HOUR),
        };
        let allowed = usage.minute.count < limits.per_minute && usage.hour.count < limits.per_hour;
        if allowed {
            usage.minute.count += 1;
            usage.hour.count += 1;
        }
        (usage, allowed)
    }

    /// The usage without one request that was counted and then not let through after all.
    #[must_use]
    pub fn less_one(self) -> Self {
        let less = |window: Window| Window {
            count: window.count.saturating_sub(1),
            ..window
        };
        Self {
            minute: less(self.minute),
            hour: less(self.hour),
        }
    }

    /// The window with the fewest requests left; of two alike, the one that ends later.
    pub fn tightest(self, limits: RateLimits) -> Tightest {
        let of = |window: Window, limit: u32, length| Tightest {
            limit,
            remaining: limit.saturating_sub(window.count),
            resets_at: window.opened_at + length,
            length,
        };
        let minute = of(self.minute, limits.per_minute, MINUTE);
        let hour = of(self.hour, limits.per_hour, HOUR);
        if minute.remaining < hour.remaining {
            minute
        } else if hour.remaining < minute.remaining || hour.resets_at > minute.resets_at {
            hour
        } else {
            minute
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: RateLimits = RateLimits {
        per_minute: 3,
        per_hour: 5,
    };

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_777_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn a_window_opens_with_the_first_request_and_the_next_after_its_end() {
        let mut usage = RateUsage::new(at(0));
        let mut ask = |seconds| {
            let (next, allowed) = usage.count(at(seconds), LIMITS);
            usage = next;
            allowed
        };
        assert!(ask(0) && ask(1) && ask(59));
        assert!(!ask(59), "the fourth");
        assert!(ask(60) && ask(61));
        assert!(!ask(62), "the sixth of the hour");
        assert!(!ask(3_599));
        assert!(ask(3_600));
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_lock_a_key_out() {
        let mut usage = RateUsage::new(at(0));
        for _ in 0..3 {
            usage = usage.count(at(0), LIMITS).0;
        }
        assert!(!usage.count(at(-59), LIMITS).1, "it may be another replica");
        assert!(usage.count(at(-60), LIMITS).1);
        assert!(!usage.is_over(at(3_599)) && usage.is_over(at(3_600)));
    }

    #[test]
    fn clients_are_told_of_the_window_with_the_fewest_left() {
        let mut usage = RateUsage::new(at(0));
        for second in 0..3 {
            usage = usage.count(at(second), LIMITS).0;
        }
        let tightest = usage.tightest(LIMITS);
        assert_eq!((tightest.limit, tightest.remaining), (3, 0));
        assert_eq!(tightest.resets_at, at(60));
        usage = usage.count(at(60), LIMITS).0;
        let tightest = usage.tightest(LIMITS);
        assert_eq!((tightest.limit, tightest.remaining), (5, 1));
        assert_eq!(tightest.resets_at, at(3_600));
    }

    proptest! {
        #[test]
        fn never_more_than_the_limit_in_a_window(pauses in prop::collection::vec(0_i64..50, 1..200)) {
            let mut usage = RateUsage::new(at(0));
            let (mut now, mut let_through) = (0, Vec::new());
            for pause in pauses {
                now += pause;
                let (next, allowed) = usage.count(at(now), LIMITS);
                usage = next;
                if allowed {
                    let_through.push((usage.minute.opened_at, now));
                }
                let of_window = let_through.iter().filter(|(opened, _)| *opened == usage.minute.opened_at);
                prop_assert!(of_window.count() <= 3);
            }
        }
    }
}
