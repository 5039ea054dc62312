//! How long attempts took, as a histogram: small, and whole when histograms are added up.

use std::time::Duration;

/// How many buckets there are; the last one is of all that took longer than every bound.
pub const BUCKETS: usize = 13;

/// The bounds of the buckets, each the longest that its bucket holds: those of the metric
/// `forge_attempt_duration_seconds`, in milliseconds.
pub const BOUNDS_MS: [u64; BUCKETS - 1] = [
    5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000,
];

/// How long some attempts took, in whole milliseconds, as attempts are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// How many are in each bucket.
    pub buckets: [u64; BUCKETS],
    /// How long all took together, in milliseconds.
    pub sum_ms: u64,
}

impl Latency {
    /// One more.
    pub fn add(&mut self, duration: Duration) {
        let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MS.partition_point(|bound| *bound < ms);
        if let Some(count) = self.buckets.get_mut(bucket) {
            *count += 1;
        }
        self.sum_ms = self.sum_ms.saturating_add(ms);
    }

    /// And those of another.
    pub fn take_in(&mut self, other: &Self) {
        for (count, more) in self.buckets.iter_mut().zip(other.buckets) {
            *count += more;
        }
        self.sum_ms = self.sum_ms.saturating_add(other.sum_ms);
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// How long they took in the mean, in milliseconds; `None` of none.
    pub fn mean_ms(&self) -> Option<u64> {
        self.sum_ms.checked_div(self.count())
    }

    /// How long so many of a hundred took at most, in milliseconds: an estimate that is never outside
    /// the bucket in which the true one is, as if what is in a bucket were spread evenly in it. Of those
    /// past the last bound it says that bound. `None` of none.
    pub fn percentile_ms(&self, percent: u64) -> Option<u64> {
        let count = self.count();
        // The one that so many come up to: counted from 1, in the order of their durations.
        let rank = (count * percent).div_ceil(100).clamp(1, count.max(1));
        let (mut below, mut lower) = (0, 0);
        for (held, upper) in self.buckets.iter().zip(BOUNDS_MS) {
            if rank <= below + held {
                return Some(lower + (upper - lower) * (rank - below) / held);
            }
            below += held;
            lower = upper;
        }
        (count > 0).then_some(lower)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(millis: &[u64]) -> Latency {
        let mut latency = Latency::default();
        for ms in millis {
            latency.add(Duration::from_millis(*ms));
        }
        latency
    }

    #[test]
    fn a_bound_is_the_longest_of_its_bucket() {
        let latency = of(&[0, 5, 6, 30_000, 30_001]);
        let expected = [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];
        assert_eq!(latency.buckets, expected);
        assert_eq!(of(&[5]).buckets, {
            let mut latency = Latency::default();
            latency.add(Duration::from_micros(5_999));
            latency.buckets
        });
    }

    #[test]
    fn of_none_there_is_nothing_to_say() {
        let none = Latency::default();
        assert_eq!((none.mean_ms(), none.percentile_ms(50)), (None, None));
    }

    #[test]
    fn percentiles_are_spread_over_their_bucket() {
        let latency = of(&[20; 100]);
        let told = [1, 50, 100].map(|percent| latency.percentile_ms(percent));
        assert_eq!(told, [Some(10), Some(17), Some(25)]);
        assert_eq!(latency.mean_ms(), Some(20));
        assert_eq!(of(&[60_000; 3]).percentile_ms(50), Some(30_000));
    }

    proptest! {
        #[test]
        fn an_estimate_is_in_the_bucket_of_the_true_one(
            mut millis in prop::collection::vec(0_u64..40_000, 1..200),
            percent in 1_u64..=100,
        ) {
            let latency = of(&millis);
            millis.sort_unstable();
            let rank = (millis.len() * usize::try_from(percent).unwrap()).div_ceil(100);
            let bucket = |ms: u64| BOUNDS_MS.partition_point(|bound| *bound < ms);
            let estimate = latency.percentile_ms(percent).unwrap();
            let truth = millis[rank - 1];
            // At a bucket's very beginning stands the bound of the one before.
            let within = bucket(estimate) == bucket(truth)
                || BOUNDS_MS.get(bucket(truth).wrapping_sub(1)) == Some(&estimate);
            prop_assert!(within, "{estimate} for {truth}");
        }

        #[test]
        fn what_is_added_up_is_as_if_it_had_been_one(
            one in prop::collection::vec(0_u64..40_000, 0..50),
            other in prop::collection::vec(0_u64..40_000, 0..50),
        ) {
            let mut sum = of(&one);
            sum.take_in(&of(&other));
            prop_assert_eq!(sum, of(&[one, other].concat()));
        }
    }
}
