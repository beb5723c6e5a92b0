use std::sync::atomic::{AtomicUsize, Ordering};

use crate::apart::Apart;

/// Takes turns: over a list that does not change, each entry is first equally often, to within one.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    next: Apart<AtomicUsize>,
}

impl RoundRobin {
    /// Draws a turn.
    pub(crate) fn turn(&self) -> Turn {
        // Relaxed: the counter orders nothing but itself.
        Turn(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// The turn of a request that had one and has to go on: nobody else's is taken for it.
    // Were one drawn, two calls that take turns over two providers would both begin at the one that refuses.
    pub(crate) fn go_on(&self) -> Turn {
        Turn(self.next.load(Ordering::Relaxed))
    }
}

/// A turn that was drawn, or begins anywhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn(usize);

impl Turn {
    /// Where no rule says who is first.
    pub(crate) fn any() -> Self {
        Self(fastrand::usize(..))
    }

    /// The order in which to try `length` entries: each index once, the one whose turn it is first.
    // The rest follows in list order, so a full provider's calls fall to its neighbour. That is a
    // bias only while it stays full, and needs neither randomness nor memory.
    pub(crate) fn order(self, length: usize) -> impl Iterator<Item = usize> + Clone + use<> {
        let first = self.0.checked_rem(length).unwrap_or_default();
        (first..length).chain(0..first)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_to_choose_from_is_an_empty_order() {
        assert_eq!(RoundRobin::default().turn().order(0).count(), 0);
    }

    #[test]
    fn going_on_takes_nobodys_turn() {
        let balance = RoundRobin::default();
        let firsts: Vec<_> = (0..4)
            .map(|_| {
                let first = balance.turn().order(2).next();
                balance.go_on().order(2).next();
                first.unwrap()
            })
            .collect();
        assert_eq!(firsts, [0, 1, 0, 1]);
    }

    #[test]
    fn threads_share_the_turns_exactly() {
        let (balance, length) = (RoundRobin::default(), 3);
        let mut counts = vec![0; length];
        let draw =
            || (0..3_000).map(|_| balance.turn().order(length).next().unwrap()).collect::<Vec<_>>();
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(draw)).collect();
            for index in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
                counts[index] += 1;
            }
        });
        assert_eq!(counts, [4_000; 3]);
    }

    proptest! {
        #[test]
        fn each_turn_offers_every_entry_once(length in 0_usize..40, turns in 0_usize..50) {
            let balance = RoundRobin::default();
            for _ in 0..turns {
                let mut order: Vec<_> = balance.turn().order(length).collect();
                order.sort_unstable();
                prop_assert_eq!(order, (0..length).collect::<Vec<_>>());
            }
        }

        #[test]
        fn any_window_of_calls_is_split_to_within_one(length in 1_usize..40, before in 0_usize..100, calls in 0_usize..500) {
            let balance = RoundRobin::default();
            for _ in 0..before {
                balance.turn();
            }
            let mut counts = vec![0_usize; length];
            for _ in 0..calls {
                counts[balance.turn().order(length).next().unwrap()] += 1;
            }
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{counts:?}");
        }
    }
}
