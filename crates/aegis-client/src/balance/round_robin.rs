use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::apart::Apart;

/// From how many entries on threads go round by themselves.
const MANY: usize = 128;
/// In how many rounds they do; threads beyond share them.
const ROUNDS: usize = 8;

/// Takes turns.
///
/// Over a list that does not change, each entry is first equally often: to within one, from all threads together. Of [`MANY`] entries
/// each thread goes round by itself: to within one for each thread, or each of [`ROUNDS`] where there are more threads.
///
/// For a counter that two threads change at once comes from the other core each time, and the turns that it gives them are neighbours,
/// whose slots lie side by side: with 10,000 providers that made a pick of 36 ns one of 90.
#[derive(Debug, Default)]
pub(crate) struct RoundRobin {
    next: AtomicUsize,
    /// A kilobyte, which only services with many providers need.
    rounds: OnceLock<Box<[Apart<AtomicUsize>; ROUNDS]>>,
}

impl RoundRobin {
    /// Makes ready for so many entries, so that no turn has to allocate; without it turns are drawn as of a short list.
    pub(crate) fn prepare(&self, length: usize) {
        if MANY <= length {
            self.rounds.get_or_init(Box::default);
        }
    }

    /// Draws a turn among so many.
    pub(crate) fn turn(&self, length: usize) -> Turn {
        self.turn_of(thread(), length)
    }

    /// The turn of a request that had one and has to go on: nobody else's is taken for it.
    // Were one drawn, two calls that take turns over two providers would both begin at the one that refuses.
    pub(crate) fn go_on(&self, length: usize) -> Turn {
        let (counter, start) = self.counter(thread(), length);
        Turn(counter.load(Ordering::Relaxed).wrapping_add(start))
    }

    fn turn_of(&self, thread: usize, length: usize) -> Turn {
        let (counter, start) = self.counter(thread, length);
        // Relaxed: the counter orders nothing but itself.
        Turn(counter.fetch_add(1, Ordering::Relaxed).wrapping_add(start))
    }

    /// What this thread counts its turns with, and where in the list it starts from.
    fn counter(&self, thread: usize, length: usize) -> (&AtomicUsize, usize) {
        // A short list's counter lies beside the rounds: they are not looked at without need.
        let rounds = if MANY <= length { self.rounds.get() } else { None };
        let round = thread % ROUNDS;
        match rounds.and_then(|rounds| rounds.get(round)) {
            // Those that begin together do not all begin with the same entry.
            Some(counter) => (counter, length / ROUNDS * round),
            None => (&self.next, 0),
        }
    }
}

/// The number of this thread, among those that have ever drawn.
fn thread() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static THREAD: usize = THREADS.fetch_add(1, Ordering::Relaxed));
    THREAD.with(|thread| *thread)
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
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::thread;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_to_choose_from_is_an_empty_order() {
        assert_eq!(RoundRobin::default().turn(0).order(0).count(), 0);
    }

    #[test]
    fn going_on_takes_nobodys_turn() {
        let balance = RoundRobin::default();
        let firsts: Vec<_> = (0..4)
            .map(|_| {
                let first = balance.turn(2).order(2).next();
                balance.go_on(2).order(2).next();
                first.unwrap()
            })
            .collect();
        assert_eq!(firsts, [0, 1, 0, 1]);
    }

    #[test]
    fn threads_share_the_turns_exactly() {
        let (balance, length) = (RoundRobin::default(), 3);
        let mut counts = vec![0; length];
        let draw = || {
            (0..3_000)
                .map(|_| balance.turn(length).order(length).next().unwrap())
                .collect::<Vec<_>>()
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(draw)).collect();
            for index in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
                counts[index] += 1;
            }
        });
        assert_eq!(counts, [4_000; 3]);
    }

    #[test]
    fn many_entries_are_shared_to_within_one_for_each_round_whichever_threads_draw() {
        for threads in [1, 2, 3, 20] {
            let (balance, length) = (ready_for(1_000), 1_000);
            // Each draws another number of turns, and stops somewhere in the list.
            let draw = &|turns: usize| {
                (0..turns).map(|_| first(balance.turn(length), length)).collect::<Vec<_>>()
            };
            let mut counts = vec![0; length];
            thread::scope(|scope| {
                let drawn: Vec<_> = (0..threads)
                    .map(|index| scope.spawn(move || draw(5_000 + 77 * index)))
                    .collect();
                for index in drawn.into_iter().flat_map(|thread| thread.join().unwrap()) {
                    counts[index] += 1;
                }
            });
            assert!(spread(&counts) <= threads.min(ROUNDS), "{threads} threads: {counts:?}");
        }
    }

    #[test]
    fn a_thread_alone_gives_each_of_many_the_same() {
        let (balance, length) = (ready_for(MANY), MANY);
        let mut firsts: Vec<_> = (0..length).map(|_| first(balance.turn(length), length)).collect();
        firsts.sort_unstable();
        assert_eq!(firsts, (0..length).collect::<Vec<_>>());
    }

    #[test]
    fn rounds_begin_apart_and_threads_beyond_share_them() {
        let (balance, length) = (ready_for(1_000), 1_000);
        let firsts: Vec<_> =
            (0..ROUNDS * 2).map(|it| first(balance.turn_of(it, length), length)).collect();
        let begun = [0, 125, 250, 375, 500, 625, 750, 875];
        assert_eq!(firsts, [begun, begun.map(|it| it + 1)].concat());
    }

    #[test]
    fn threads_share_a_round_exactly() {
        const TURNS: usize = 100_000;
        let (balance, length) = (ready_for(1_000), 1_000);
        let start = Barrier::new(2);
        let draw = || {
            start.wait();
            (0..TURNS).map(|_| first(balance.turn_of(0, length), length)).collect::<Vec<_>>()
        };
        let mut counts = vec![0; length];
        thread::scope(|scope| {
            let threads: Vec<_> = (0..2).map(|_| scope.spawn(draw)).collect();
            for index in threads.into_iter().flat_map(|thread| thread.join().unwrap()) {
                counts[index] += 1;
            }
        });
        assert_eq!(counts, vec![TURNS * 2 / length; length]);
    }

    #[test]
    fn going_on_among_many_takes_nobodys_turn() {
        let (balance, length) = (ready_for(MANY), MANY);
        let before = first(balance.turn(length), length);
        for _ in 0..3 {
            assert_eq!(first(balance.go_on(length), length), (before + 1) % length);
        }
        assert_eq!(first(balance.turn(length), length), (before + 1) % length);
    }

    #[test]
    fn turns_go_on_past_the_last_number() {
        let (balance, length) = (ready_for(MANY), MANY);
        for counter in balance.rounds.get().unwrap().iter() {
            counter.store(usize::MAX, Ordering::Relaxed);
        }
        for thread in 0..ROUNDS {
            for _ in 0..3 {
                assert_eq!(balance.turn_of(thread, length).order(length).count(), length);
            }
        }
    }

    fn ready_for(length: usize) -> RoundRobin {
        let balance = RoundRobin::default();
        balance.prepare(length);
        balance
    }

    fn first(turn: Turn, length: usize) -> usize {
        turn.order(length).next().unwrap()
    }

    fn spread(counts: &[usize]) -> usize {
        counts.iter().max().unwrap() - counts.iter().min().unwrap()
    }

    proptest! {
        #[test]
        fn any_window_of_calls_is_split_among_many_to_within_one_for_each_round(
            length in MANY..300,
            before in vec(0_usize..20, 0..300),
            threads in vec(0_usize..20, 0..3_000),
        ) {
            let balance = ready_for(length);
            for thread in before {
                balance.turn_of(thread, length);
            }
            let mut counts = vec![0_usize; length];
            for thread in &threads {
                counts[first(balance.turn_of(*thread, length), length)] += 1;
            }
            let rounds: HashSet<_> = threads.iter().map(|it| it % ROUNDS).collect();
            prop_assert!(spread(&counts) <= rounds.len(), "{counts:?}");
        }

        #[test]
        fn any_window_of_calls_is_split_among_few_to_within_one_whichever_threads_draw(
            length in 1_usize..MANY,
            threads in vec(0_usize..20, 0..1_000),
        ) {
            // There were many before.
            let balance = ready_for(MANY);
            let mut counts = vec![0_usize; length];
            for thread in threads {
                counts[first(balance.turn_of(thread, length), length)] += 1;
            }
            prop_assert!(spread(&counts) <= 1, "{counts:?}");
        }

        #[test]
        fn each_turn_offers_every_entry_once(length in 0_usize..40, turns in 0_usize..50) {
            let balance = RoundRobin::default();
            for _ in 0..turns {
                let mut order: Vec<_> = balance.turn(length).order(length).collect();
                order.sort_unstable();
                prop_assert_eq!(order, (0..length).collect::<Vec<_>>());
            }
        }

        #[test]
        fn any_window_of_calls_is_split_to_within_one(length in 1_usize..40, before in 0_usize..100, calls in 0_usize..500) {
            let balance = RoundRobin::default();
            for _ in 0..before {
                balance.turn(length);
            }
            let mut counts = vec![0_usize; length];
            for _ in 0..calls {
                counts[balance.turn(length).order(length).next().unwrap()] += 1;
            }
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            prop_assert!(most - least <= 1, "{counts:?}");
        }
    }
}
