//! Which delivery tags may be acknowledged.
//!
//! `ack(multiple)` of a tag acknowledges every lower one, whatever became of it. So the tags that
//! are done count only as far as there is no gap before them.

use std::collections::BTreeMap;

/// What is known of a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// Delivered, and nothing more: must not be acknowledged.
    Open,
    /// Stored, known already, or confirmed as a dead letter: to be acknowledged.
    Done,
    /// Rejected: the broker has taken it back, and knows the tag no more.
    Rejected,
}

/// The tags of one channel. Thrown away with it: a tag means nothing on another.
#[derive(Debug, Default)]
pub(super) struct Watermark {
    marks: BTreeMap<u64, Mark>,
    /// The highest tag so far.
    last: u64,
    /// The highest tag before the subscription of now.
    before: u64,
    /// How many tags above it are in `marks`.
    current: usize,
}

impl Watermark {
    /// What comes from now on is of another subscription.
    pub(super) fn subscribed(&mut self) {
        self.before = self.last;
        self.current = 0;
    }

    /// A message came.
    pub(super) fn delivered(&mut self, tag: u64) {
        self.marks.insert(tag, Mark::Open);
        self.last = tag;
        self.current += 1;
    }

    /// It needs no second delivery.
    pub(super) fn done(&mut self, tag: u64) {
        self.mark(tag, Mark::Done);
    }

    /// It was rejected, by itself.
    pub(super) fn rejected(&mut self, tag: u64) {
        self.mark(tag, Mark::Rejected);
    }

    /// The highest tag that can be acknowledged together with all before it, if there is one that
    /// was not before. The broker knows every tag that this returns: acknowledging one that it does
    /// not know would close the channel.
    pub(super) fn advance(&mut self) -> Option<u64> {
        let mut reached = None;
        while let Some(first) = self.marks.first_entry() {
            match first.get() {
                Mark::Open => break,
                Mark::Done => reached = Some(*first.key()),
                Mark::Rejected => {}
            }
            if *first.key() > self.before {
                self.current -= 1;
            }
            first.remove();
        }
        reached
    }

    /// Messages that are not acknowledged.
    pub(super) fn unacknowledged(&self) -> usize {
        self.marks.len()
    }

    /// Those of them that count against the window of the subscription of now.
    pub(super) fn of_this_subscription(&self) -> usize {
        self.current
    }

    fn mark(&mut self, tag: u64, mark: Mark) {
        if let Some(found) = self.marks.get_mut(&tag) {
            *found = mark;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_holds_back_everything_behind_it() {
        let mut watermark = Watermark::default();
        (1..=4).for_each(|tag| watermark.delivered(tag));
        watermark.done(2);
        watermark.done(4);
        assert_eq!(watermark.advance(), None);
        watermark.done(1);
        assert_eq!(watermark.advance(), Some(2));
        watermark.done(3);
        assert_eq!(watermark.advance(), Some(4));
        assert_eq!(watermark.advance(), None, "nothing is acknowledged twice");
        assert_eq!(watermark.unacknowledged(), 0);
    }

    #[test]
    fn a_rejected_tag_opens_the_way_but_is_never_acknowledged_itself() {
        let mut watermark = Watermark::default();
        (1..=3).for_each(|tag| watermark.delivered(tag));
        watermark.done(1);
        watermark.rejected(2);
        assert_eq!(watermark.advance(), Some(1));
        watermark.rejected(3);
        assert_eq!(watermark.advance(), None);
        assert_eq!(watermark.unacknowledged(), 0);
    }

    #[test]
    fn what_came_before_does_not_count_against_the_next_subscriptions_window() {
        let mut watermark = Watermark::default();
        watermark.subscribed();
        (1..=3).for_each(|tag| watermark.delivered(tag));
        assert_eq!(watermark.of_this_subscription(), 3);
        watermark.subscribed();
        (4..=5).for_each(|tag| watermark.delivered(tag));
        assert_eq!(watermark.of_this_subscription(), 2);
        (1..=4).for_each(|tag| watermark.done(tag));
        assert_eq!(watermark.advance(), Some(4));
        assert_eq!(watermark.of_this_subscription(), 1);
        assert_eq!(watermark.unacknowledged(), 1);
    }

    /// A channel's life: deliveries and completions in any order that can happen.
    #[derive(Clone, Debug)]
    enum Step {
        Deliver,
        Done(prop::sample::Index),
        Rejected(prop::sample::Index),
        Advance,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        prop::collection::vec(
            prop_oneof![
                3 => Just(Step::Deliver),
                3 => any::<prop::sample::Index>().prop_map(Step::Done),
                1 => any::<prop::sample::Index>().prop_map(Step::Rejected),
                2 => Just(Step::Advance),
            ],
            0..200,
        )
    }

    proptest! {
        #[test]
        fn what_is_acknowledged_is_done_and_what_is_done_is_acknowledged(steps in steps()) {
            let mut watermark = Watermark::default();
            let mut next = 1;
            let mut open: Vec<u64> = Vec::new();
            // The broker's side: what it holds as unacknowledged.
            let mut held: BTreeSet<u64> = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Deliver => {
                        watermark.delivered(next);
                        open.push(next);
                        held.insert(next);
                        next += 1;
                    }
                    Step::Done(index) if !open.is_empty() => {
                        let tag = open.swap_remove(index.index(open.len()));
                        watermark.done(tag);
                    }
                    Step::Rejected(index) if !open.is_empty() => {
                        let tag = open.swap_remove(index.index(open.len()));
                        watermark.rejected(tag);
                        held.remove(&tag);
                    }
                    Step::Done(_) | Step::Rejected(_) => {}
                    Step::Advance => {
                        if let Some(tag) = watermark.advance() {
                            prop_assert!(held.contains(&tag), "the broker knows the tag");
                            prop_assert!(open.iter().all(|open| *open > tag), "nothing open is covered");
                            held.retain(|held| *held > tag);
                        }
                    }
                }
            }
            for tag in open {
                watermark.done(tag);
            }
            if let Some(tag) = watermark.advance() {
                held.retain(|held| *held > tag);
            }
            prop_assert_eq!(held.len(), 0, "nothing stays unacknowledged");
            prop_assert_eq!(watermark.unacknowledged(), 0);
        }
    }
}
