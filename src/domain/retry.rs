//! When a failed delivery is tried again (product.md §4).

use std::time::Duration;

/// The share by which a delay is stretched or shrunk at random, so that what failed together does
/// not come back together.
pub const JITTER: f64 = 0.2;

/// The longest `Retry-After` that is honoured.
pub const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// The most retries that a schedule may hold.
pub const MAX_RETRIES: usize = 50;

/// The longest single delay of a schedule.
pub const MAX_DELAY: Duration = Duration::from_hours(24 * 7);

/// The delays after the first attempt, the second, and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySchedule(Vec<Duration>);

/// Why delays are no schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// More than [`MAX_RETRIES`].
    #[error("must hold at most {MAX_RETRIES} delays")]
    TooMany,
    /// A delay over [`MAX_DELAY`].
    #[error("each delay must be at most 7 days")]
    TooLong,
}

impl RetrySchedule {
    /// Takes the delays in order. An empty schedule means one attempt and no more.
    pub fn new(delays: Vec<Duration>) -> Result<Self, ScheduleError> {
        if delays.len() > MAX_RETRIES {
            return Err(ScheduleError::TooMany);
        }
        if delays.iter().any(|delay| *delay > MAX_DELAY) {
            return Err(ScheduleError::TooLong);
        }
        Ok(Self(delays))
    }

    /// One attempt and no more.
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// The delays in order.
    pub fn delays(&self) -> &[Duration] {
        &self.0
    }

    /// How long a delivery is tried at most, from its first attempt to its last, unless its receiver asks
    /// for longer.
    pub fn longest(&self) -> Duration {
        let all = self.0.iter();
        let all = all.fold(Duration::ZERO, |sum, delay| sum.saturating_add(*delay));
        all.mul_f64(1.0 + JITTER)
    }

    /// How long to wait after `attempts` failed attempts; `None` when the schedule is spent.
    ///
    /// `unit` is a random number in `0.0..1.0`. The receiver's `Retry-After` is a floor (capped at
    /// [`MAX_RETRY_AFTER`]): never earlier than it, and it adds no attempt to the schedule.
    pub fn delay_after(
        &self,
        attempts: u32,
        retry_after: Option<Duration>,
        unit: f64,
    ) -> Option<Duration> {
        let index = usize::try_from(attempts).ok()?.checked_sub(1)?;
        let delay = self.0.get(index)?;
        let jittered = delay.mul_f64(1.0 + JITTER * (2.0 * unit.clamp(0.0, 1.0) - 1.0));
        let floor = retry_after.unwrap_or_default().min(MAX_RETRY_AFTER);
        Some(jittered.max(floor))
    }
}

impl Default for RetrySchedule {
    /// 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h: three days and a quarter.
    fn default() -> Self {
        let minutes = Duration::from_mins;
        let hours = Duration::from_hours;
        Self(vec![
            Duration::from_secs(5),
            minutes(5),
            minutes(30),
            hours(2),
            hours(5),
            hours(10),
            hours(14),
            hours(20),
            hours(24),
        ])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_default_schedule_is_the_documented_one() {
        let seconds: Vec<u64> = RetrySchedule::default()
            .delays()
            .iter()
            .map(Duration::as_secs)
            .collect();
        assert_eq!(
            seconds,
            [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400]
        );
    }

    #[test]
    fn no_delivery_is_tried_for_longer_than_all_delays_at_their_longest() {
        let schedule = RetrySchedule::default();
        let latest = (1..).map_while(|attempts| schedule.delay_after(attempts, None, 1.0));
        let (latest, longest) = (latest.sum::<Duration>(), schedule.longest());
        assert!(latest.abs_diff(longest) < Duration::from_millis(1));
        assert_eq!(RetrySchedule::none().longest(), Duration::ZERO);
    }

    #[test]
    fn a_spent_schedule_has_no_next_attempt() {
        let schedule = RetrySchedule::default();
        assert!(schedule.delay_after(9, None, 0.5).is_some());
        assert_eq!(schedule.delay_after(10, None, 0.5), None);
        assert_eq!(
            schedule.delay_after(10, Some(Duration::from_secs(1)), 0.5),
            None
        );
        assert_eq!(
            RetrySchedule::new(vec![])
                .unwrap()
                .delay_after(1, None, 0.5),
            None
        );
    }

    #[test]
    fn retry_after_is_a_floor_with_a_cap() {
        let schedule = RetrySchedule::default();
        let after = |seconds| schedule.delay_after(1, Some(Duration::from_secs(seconds)), 0.5);
        assert_eq!(after(61), Some(Duration::from_secs(61)));
        assert_eq!(after(1), Some(Duration::from_secs(5)));
        assert_eq!(after(1_000_000), Some(MAX_RETRY_AFTER));
    }

    #[test]
    fn an_absurd_schedule_is_refused() {
        assert_eq!(
            RetrySchedule::new(vec![Duration::ZERO; 51]),
            Err(ScheduleError::TooMany)
        );
        assert_eq!(
            RetrySchedule::new(vec![Duration::MAX]),
            Err(ScheduleError::TooLong)
        );
    }

    proptest! {
        #[test]
        fn jitter_stays_within_a_fifth(attempts in 1_u32..=9, unit in 0.0..1.0_f64) {
            let schedule = RetrySchedule::default();
            let base = schedule.delays()[attempts as usize - 1].as_secs_f64();
            let delay = schedule.delay_after(attempts, None, unit).unwrap().as_secs_f64();
            prop_assert!(delay >= base * 0.8 - 1e-6 && delay <= base * 1.2 + 1e-6);
        }

        #[test]
        fn never_earlier_than_asked(attempts in 1_u32..=9, asked in 0_u64..100_000, unit in 0.0..1.0_f64) {
            let asked = Duration::from_secs(asked);
            let delay = RetrySchedule::default().delay_after(attempts, Some(asked), unit).unwrap();
            prop_assert!(delay >= asked.min(MAX_RETRY_AFTER));
        }
    }
}
