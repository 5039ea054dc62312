//! Whose turn it is when work is claimed: workspaces come round, and within each its subscriptions
//! (queue.md §7). So a workspace with a thousand subscriptions, or with a million deliveries, gets as
//! much at a time as one with a few.

use std::collections::{BTreeMap, VecDeque};

/// How much one takes in its turn, before the next one's.
const QUANTUM: usize = 16;

/// Who was served last, so that the next one is first next time: a thousand with work come round within
/// as many claims as it takes.
#[derive(Clone, Debug)]
pub(super) struct Turns<W, S> {
    last_workspace: Option<W>,
    /// Of each workspace with work.
    last_of: BTreeMap<W, S>,
}

impl<W, S> Default for Turns<W, S> {
    fn default() -> Self {
        Self {
            last_workspace: None,
            last_of: BTreeMap::new(),
        }
    }
}

impl<W: Ord + Clone, S: Ord + Clone> Turns<W, S> {
    /// Shares out `left` among those with work. `take` gives one of them so much, and answers how much
    /// it took: less says that it takes no more.
    pub(super) fn share<T>(
        &mut self,
        open: impl IntoIterator<Item = (W, S, T)>,
        mut left: usize,
        mut take: impl FnMut(&T, usize) -> usize,
    ) {
        let mut round = self.begin(open);
        while left > 0
            && let Some((workspace, mut queue)) = round.pop_front()
        {
            let Some((id, item)) = queue.pop_front() else {
                continue;
            };
            let wanted = QUANTUM.min(left);
            let got = take(&item, wanted).min(wanted);
            left -= got;
            if got > 0 {
                self.last_workspace = Some(workspace.clone());
                self.last_of.insert(workspace.clone(), id.clone());
            }
            if got == wanted {
                queue.push_back((id, item));
            }
            if !queue.is_empty() {
                // One that took nothing was no turn: its workspace's next is asked at once.
                if got > 0 {
                    round.push_back((workspace, queue));
                } else {
                    round.push_front((workspace, queue));
                }
            }
        }
    }

    /// The workspaces in the order of their turns, each with its subscriptions in theirs.
    fn begin<T>(
        &mut self,
        open: impl IntoIterator<Item = (W, S, T)>,
    ) -> VecDeque<(W, VecDeque<(S, T)>)> {
        let mut by_workspace: BTreeMap<W, BTreeMap<S, T>> = BTreeMap::new();
        for (workspace, id, item) in open {
            by_workspace.entry(workspace).or_default().insert(id, item);
        }
        self.last_of
            .retain(|workspace, _| by_workspace.contains_key(workspace));
        let each = by_workspace.into_iter().map(|(workspace, of_it)| {
            let queue = behind(of_it, self.last_of.get(&workspace));
            (workspace, queue)
        });
        let each: BTreeMap<_, _> = each.collect();
        behind(each, self.last_workspace.as_ref())
    }
}

/// In the order of their keys, the first one behind `last` first.
fn behind<K: Ord, T>(mut items: BTreeMap<K, T>, last: Option<&K>) -> VecDeque<(K, T)> {
    let Some(last) = last else {
        return items.into_iter().collect();
    };
    let mut first = items.split_off(last);
    let served = first.remove_entry(last);
    first.into_iter().chain(items).chain(served).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shares out `left` among these, each with so much to be had; who got how much, in order.
    fn share(
        turns: &mut Turns<char, u32>,
        work: &mut BTreeMap<(char, u32), usize>,
        left: usize,
    ) -> Vec<(char, u32, usize)> {
        let mut served = Vec::new();
        let open: Vec<_> = work
            .iter()
            .filter(|(_, waiting)| **waiting > 0)
            .map(|((workspace, id), _)| (*workspace, *id, (*workspace, *id)))
            .collect();
        turns.share(open, left, |key, wanted| {
            let waiting = work.get_mut(key).unwrap();
            let got = wanted.min(*waiting);
            *waiting -= got;
            if got > 0 {
                served.push((key.0, key.1, got));
            }
            got
        });
        served
    }

    #[test]
    fn a_workspace_with_a_thousand_subscriptions_gets_no_more_than_one_with_one() {
        let mut work: BTreeMap<_, _> = (0..1_000).map(|id| (('a', id), 1_000)).collect();
        work.insert(('b', 7), 1_000);
        let served = share(&mut Turns::default(), &mut work, 320);
        let of = |wanted| -> usize {
            let of_it = served.iter().filter(|(workspace, ..)| *workspace == wanted);
            of_it.map(|(.., got)| got).sum()
        };
        assert_eq!((of('a'), of('b')), (160, 160));
        // Within it its subscriptions take turns.
        let ids: Vec<_> = served
            .iter()
            .filter(|(workspace, ..)| *workspace == 'a')
            .map(|(_, id, _)| *id)
            .collect();
        assert_eq!(ids, (0..10).collect::<Vec<_>>());
    }

    #[test]
    fn everybody_has_a_turn_before_anybody_has_two() {
        let mut turns = Turns::default();
        let mut work: BTreeMap<_, _> = (0..5).map(|id| (('a', id), 1_000)).collect();
        let mut served = Vec::new();
        for _ in 0..4 {
            served.extend(share(&mut turns, &mut work, 2 * QUANTUM));
        }
        let ids: Vec<_> = served.iter().map(|(_, id, _)| *id).collect();
        assert_eq!(ids, [0, 1, 2, 3, 4, 0, 1, 2]);
    }

    #[test]
    fn one_that_is_gone_by_now_keeps_its_place() {
        let mut turns = Turns::default();
        let mut work = BTreeMap::from([(('b', 2), 16)]);
        share(&mut turns, &mut work, 16);
        let mut work = BTreeMap::from([(('a', 1), 1), (('b', 1), 1), (('b', 3), 1), (('c', 1), 1)]);
        let served = share(&mut turns, &mut work, 100);
        let order: Vec<_> = served.iter().map(|(w, id, _)| (*w, *id)).collect();
        assert_eq!(order, [('c', 1), ('a', 1), ('b', 3), ('b', 1)]);
    }

    #[test]
    fn what_one_leaves_goes_to_the_others() {
        let mut work = BTreeMap::from([(('a', 1), 3), (('b', 1), 0), (('b', 2), 1_000)]);
        let served = share(&mut Turns::default(), &mut work, 50);
        let total: usize = served.iter().map(|(.., got)| got).sum();
        assert_eq!(total, 50);
        assert!(served.contains(&('a', 1, 3)));
    }
}
