//! What a replay of many came to, the same in both databases.

use crate::domain::replay::Refusal;
use crate::domain::selection::{ReplayState, Skipped};

/// Accounts for what was counted and never met again, at the end of a replay: retention removed it, or it
/// changed its state by itself. More can have come than was counted; nobody misses that.
pub(in crate::store) fn account(skipped: &mut Skipped, state: ReplayState, total: u64, sent: u64) {
    if state == ReplayState::Running {
        let met = sent + skipped.total();
        skipped.add(Refusal::NoLongerSelected, total.saturating_sub(met));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounted(state: ReplayState, total: u64, sent: u64) -> u64 {
        let mut skipped = Skipped::default();
        skipped.add(Refusal::InFlight, 2);
        account(&mut skipped, state, total, sent);
        skipped.total() - 2
    }

    #[test]
    fn what_was_counted_and_not_met_is_skipped() {
        assert_eq!(accounted(ReplayState::Running, 10, 5), 3);
        assert_eq!(accounted(ReplayState::Running, 7, 5), 0);
        assert_eq!(accounted(ReplayState::Running, 3, 5), 0, "more came");
    }

    #[test]
    fn what_a_cancelled_one_left_is_left() {
        assert_eq!(accounted(ReplayState::Cancelled, 10, 5), 0);
    }
}
