//! How many deliveries a replay may put into the queue now: its rate, spread over its turns.

use std::time::Duration;

/// A bucket of tokens that fills at the replay's rate, and holds what two turns need: a turn that came
/// late makes up for it, a night that was slept through does not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    rate: f64,
    most: f64,
    tokens: f64,
    filled_at: Duration,
}

impl Allowance {
    pub(super) fn new(rate: u32, turn: Duration, now: Duration) -> Self {
        let rate = f64::from(rate);
        let for_turn = (rate * turn.as_secs_f64()).max(1.0);
        Self {
            rate,
            most: 2.0 * for_turn,
            tokens: for_turn,
            filled_at: now,
        }
    }

    /// How many there are at this instant of the monotonic clock.
    pub(super) fn at(&mut self, now: Duration) -> usize {
        let since = now.saturating_sub(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + self.rate * since).min(self.most);
        self.filled_at = now;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole tokens, never negative, a few thousand at most"
        )]
        let whole = self.tokens as usize;
        whole
    }

    /// Takes so many out; [`at`](Self::at) was asked before.
    pub(super) fn spend(&mut self, tokens: usize) {
        #[expect(clippy::cast_precision_loss, reason = "a few thousand at most")]
        let tokens = tokens as f64;
        self.tokens = (self.tokens - tokens).max(0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURN: Duration = Duration::from_millis(200);

    #[test]
    fn over_many_turns_the_rate_is_kept() {
        let mut allowance = Allowance::new(500, TURN, Duration::ZERO);
        let mut sent = 0;
        for turn in 0..50 {
            let now = allowance.at(TURN * turn);
            allowance.spend(now);
            sent += now;
        }
        assert!((4_900..=5_100).contains(&sent), "{sent} in ten seconds");
    }

    #[test]
    fn a_low_rate_is_one_now_and_then() {
        let mut allowance = Allowance::new(1, TURN, Duration::ZERO);
        let mut sent = 0;
        for turn in 0..50 {
            let now = allowance.at(TURN * turn);
            allowance.spend(now);
            sent += now;
        }
        assert!((10..=11).contains(&sent), "{sent} in ten seconds");
    }

    #[test]
    fn what_was_slept_through_is_not_made_up_for() {
        let mut allowance = Allowance::new(500, TURN, Duration::ZERO);
        assert_eq!(allowance.at(Duration::from_hours(8)), 200);
    }
}
