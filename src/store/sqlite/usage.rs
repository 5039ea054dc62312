//! What keys have asked for, counted in memory: one process serves the file, and a restart is as if
//! no key had asked yet.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};

use crate::domain::ids::ApiKeyId;
use crate::domain::rate::{RateLimits, RateUsage};

/// So many keys are remembered without a look at whose time is over.
const FEW: usize = 1_024;

/// The counters of all keys that asked within the hour.
#[derive(Default)]
pub(super) struct Usage(Mutex<Counters>);

#[derive(Default)]
struct Counters {
    by_key: HashMap<ApiKeyId, RateUsage>,
    /// How many stayed after the last look.
    stayed: usize,
}

impl Usage {
    /// Counts a request; answers the usage with it, and whether it is within the limits.
    pub(super) fn count(
        &self,
        key: ApiKeyId,
        now: DateTime<Utc>,
        limits: RateLimits,
    ) -> (RateUsage, bool) {
        // A poisoned table is still one: nothing is half written under this lock.
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let usage = counters.by_key.get(&key);
        let usage = usage.copied().unwrap_or_else(|| RateUsage::new(now));
        let (counted, allowed) = usage.count(now, limits);
        counters.by_key.insert(key, counted);
        counters.forget(now);
        (counted, allowed)
    }

    /// Takes one request off the windows that `seen` tells of, where they have not ended.
    pub(super) fn give_back(&self, key: ApiKeyId, seen: RateUsage) {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(usage) = counters.by_key.get_mut(&key) {
            let less = usage.less_one();
            if usage.minute.opened_at == seen.minute.opened_at {
                usage.minute = less.minute;
            }
            if usage.hour.opened_at == seen.hour.opened_at {
                usage.hour = less.hour;
            }
        }
    }
}

impl Counters {
    /// Drops the keys whose hour is over, each time the table has doubled: that costs every request
    /// a small, fixed share.
    fn forget(&mut self, now: DateTime<Utc>) {
        if self.by_key.len() >= FEW.max(2 * self.stayed) {
            self.by_key.retain(|_, usage| !usage.is_over(now));
            self.stayed = self.by_key.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::new_id;
    use crate::domain::rate::HOUR;

    const LIMITS: RateLimits = RateLimits {
        per_minute: 1,
        per_hour: 2,
    };

    fn key(number: u64) -> ApiKeyId {
        let mut random = [0; 10];
        random[2..].copy_from_slice(&number.to_be_bytes());
        new_id(DateTime::UNIX_EPOCH, random)
    }

    #[test]
    fn keys_whose_hour_is_over_are_forgotten_and_no_others() {
        let usage = Usage::default();
        let few = u64::try_from(FEW).unwrap();
        for number in 0..few - 1 {
            usage.count(key(number), DateTime::UNIX_EPOCH, LIMITS);
        }
        let remembered = || usage.0.lock().unwrap().by_key.len();
        assert_eq!(remembered(), FEW - 1);
        let later = DateTime::UNIX_EPOCH + HOUR;
        assert!(usage.count(key(few), later, LIMITS).1);
        assert_eq!(remembered(), 1);
        assert!(!usage.count(key(few), later, LIMITS).1, "it is remembered");
    }

    #[test]
    fn a_crowd_of_keys_is_looked_through_seldom_and_kept_whole() {
        let usage = Usage::default();
        let many = 5 * u64::try_from(FEW).unwrap();
        for number in 0..many {
            assert!(usage.count(key(number), DateTime::UNIX_EPOCH, LIMITS).1);
        }
        for number in 0..many {
            assert!(!usage.count(key(number), DateTime::UNIX_EPOCH, LIMITS).1);
        }
    }
}
