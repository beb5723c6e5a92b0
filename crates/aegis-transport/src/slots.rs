use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Where a connection is in its life; it never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// May be picked.
    Open,
    /// The streams it has go on, no new ones come.
    Leaving,
    /// Nobody uses it any more: the driver says goodbye.
    Closing,
    /// Gone.
    Ended,
}

/// A connection's slots, and all that says whether one may be taken.
///
/// It is one word, so that a pick waits for one cache line and changes it once, and so that no slot is taken of a
/// connection that has just begun to leave. The line is its own: two threads that pick take neighbours.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Slots {
    word: AtomicU64,
    limit: AtomicUsize,
}

/// The word at one moment: from the lowest bit on, slots in use (24 bits), flags and phase (8), and slots ever taken,
/// which start over from 0 (32).
#[derive(Debug, Clone, Copy)]
pub(crate) struct State(u64);

const IN_USE: u64 = Slots::MOST as u64;
const STALLED: u64 = 1 << 24;
const ALONE: u64 = 1 << 25;
const PHASE: u64 = 0b11 << PHASE_AT;
const PHASE_AT: u32 = 26;
const TAKEN_AT: u32 = 32;
const TAKEN: u64 = 1 << TAKEN_AT;

impl Slots {
    /// No connection has more.
    pub(crate) const MOST: usize = (1 << 24) - 1;

    pub(crate) const fn new(limit: usize) -> Self {
        Self { word: AtomicU64::new(0), limit: AtomicUsize::new(limit) }
    }

    /// Begins anew, for another connection.
    pub(crate) fn reset(&self, limit: usize) {
        self.set_limit(limit);
        self.word.store(0, Ordering::SeqCst);
    }

    pub(crate) fn state(&self) -> State {
        State(self.word.load(Ordering::SeqCst))
    }

    /// How many there are, [`MOST`](Self::MOST) at most.
    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Ordering::SeqCst)
    }

    pub(crate) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::SeqCst);
    }

    /// Takes a slot of an open connection, if `may` allows it and there is one; the state before.
    pub(crate) fn take(&self, may: impl Fn(State) -> bool) -> Option<State> {
        let limit = self.limit();
        self.change(|state| {
            let takes = state.is_open() && state.in_use() < limit && may(state);
            takes.then(|| state.0.wrapping_add(TAKEN + 1))
        })
    }

    /// Gives a slot back; the state before.
    pub(crate) fn give_back(&self) -> State {
        State(self.word.fetch_sub(1, Ordering::SeqCst))
    }

    /// Counts a slot as taken that somebody else had until now.
    pub(crate) fn pass_on(&self) {
        self.word.fetch_add(TAKEN, Ordering::SeqCst);
    }

    /// Enters a later phase; whether it is one.
    pub(crate) fn advance(&self, phase: Phase) -> bool {
        let later = |state: State| {
            (state.phase() < phase).then_some(state.0 & !PHASE | (phase as u64) << PHASE_AT)
        };
        self.change(later).is_some()
    }

    /// Whether that is news.
    pub(crate) fn set_stalled(&self, stalled: bool) -> bool {
        self.flag(STALLED, stalled).is_stalled() != stalled
    }

    pub(crate) fn set_alone(&self, alone: bool) {
        self.flag(ALONE, alone);
    }

    fn flag(&self, flag: u64, set: bool) -> State {
        State(if set {
            self.word.fetch_or(flag, Ordering::SeqCst)
        } else {
            self.word.fetch_and(!flag, Ordering::SeqCst)
        })
    }

    fn change(&self, new: impl Fn(State) -> Option<u64>) -> Option<State> {
        let new = |word| new(State(word));
        self.word.fetch_update(Ordering::SeqCst, Ordering::SeqCst, new).ok().map(State)
    }
}

impl State {
    pub(crate) fn in_use(self) -> usize {
        usize::try_from(self.0 & IN_USE).unwrap_or(usize::MAX)
    }

    /// How many slots were ever taken; starts over after 2^32.
    pub(crate) fn taken(self) -> u64 {
        self.0 >> TAKEN_AT
    }

    pub(crate) fn phase(self) -> Phase {
        match (self.0 & PHASE) >> PHASE_AT {
            0 => Phase::Open,
            1 => Phase::Leaving,
            2 => Phase::Closing,
            _ => Phase::Ended,
        }
    }

    pub(crate) fn is_open(self) -> bool {
        self.phase() == Phase::Open
    }

    pub(crate) fn is_stalled(self) -> bool {
        self.0 & STALLED != 0
    }

    /// Whether its node has no other connection that may be picked.
    pub(crate) fn is_alone(self) -> bool {
        self.0 & ALONE != 0
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn take(slots: &Slots) -> Option<State> {
        slots.take(|_| true)
    }

    #[test]
    fn as_many_are_taken_as_there_are() {
        let slots = Slots::new(2);
        assert_eq!(take(&slots).unwrap().in_use(), 0);
        assert_eq!(take(&slots).unwrap().in_use(), 1);
        assert!(take(&slots).is_none());
        assert_eq!(slots.give_back().in_use(), 2);
        assert!(take(&slots).is_some());
        assert_eq!(slots.state().taken(), 3);
    }

    #[test]
    fn a_connection_that_leaves_gives_none_and_gets_its_own_back() {
        let slots = Slots::new(2);
        take(&slots).unwrap();
        assert!(slots.advance(Phase::Closing));
        assert!(!slots.advance(Phase::Leaving));
        assert!(take(&slots).is_none());
        slots.give_back();
        assert_eq!((slots.state().phase(), slots.state().in_use()), (Phase::Closing, 0));
    }

    #[test]
    fn flags_and_counts_do_not_touch_each_other() {
        let slots = Slots::new(Slots::MOST);
        slots.word.fetch_add(u64::from(u32::MAX) << TAKEN_AT, Ordering::SeqCst);
        assert!(slots.set_stalled(true));
        assert!(!slots.set_stalled(true));
        slots.set_alone(true);
        take(&slots).unwrap();
        let state = slots.state();
        assert_eq!((state.taken(), state.in_use()), (0, 1), "it starts over");
        assert!(state.is_stalled() && state.is_alone() && state.is_open());
        assert!(slots.advance(Phase::Ended) && slots.set_stalled(false));
        slots.set_alone(false);
        let state = slots.state();
        assert_eq!((state.phase(), state.in_use()), (Phase::Ended, 1));
        assert!(!state.is_stalled() && !state.is_alone());
    }

    #[test]
    fn threads_take_no_more_than_there_are_and_leave_none_behind() {
        let slots = Slots::new(3);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        if take(&slots).is_some() {
                            assert!(slots.give_back().in_use() <= 3);
                        }
                    }
                });
            }
        });
        assert_eq!(slots.state().in_use(), 0);
    }
}
