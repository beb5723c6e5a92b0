use std::fmt;
use std::sync::Arc;

use super::delay::Delay;
use super::rules::{Rule, Shared, State, Which};

/// Which way bytes go on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Direction {
    /// From the node that was dialled: its answers.
    FromNode,
    /// To the node that was dialled: requests.
    ToNode,
}

/// The faults of some links; from [`Faults::to`](super::Faults::to) and [`Faults::between`](super::Faults::between).
///
/// Of [`refuse`](Self::refuse), [`hang`](Self::hang), [`black_hole`](Self::black_hole),
/// [`stop_reading`](Self::stop_reading) and [`stop_answering`](Self::stop_answering) the last one counts; delays,
/// slow accepts and limits come on top of it. Everything lasts until [`heal`](Self::heal), whether or not this is kept.
#[derive(Clone)]
pub struct LinkFaults {
    shared: Arc<Shared>,
    which: Which,
}

impl LinkFaults {
    pub(crate) fn new(shared: &Arc<Shared>, which: Which) -> Self {
        Self { shared: Arc::clone(shared), which }
    }

    /// Refuses new connections, as a host does whose process is not there. Those that there are go on.
    ///
    /// With [`cut`](Self::cut) it is a process that was killed: `refuse().cut()`.
    pub fn refuse(&self) -> &Self {
        self.state(State::Refusing)
    }

    /// Lets no byte through in either direction; new connections are accepted and hear nothing.
    ///
    /// It is a process that is stopped (SIGSTOP), or hung. Nothing is lost: a dialler goes on sending until 64 KiB wait,
    /// and once it is healed everything arrives. That somebody listens is not looked at before.
    pub fn hang(&self) -> &Self {
        self.state(State::Hanging)
    }

    /// Lets no byte through in either direction, and leaves dials without any answer: a firewall that drops packets.
    ///
    /// Nothing is lost either: packets are sent again until they arrive, so dials and bytes go through once it is healed.
    pub fn black_hole(&self) -> &Self {
        self.state(State::BlackHole)
    }

    /// Keeps what is sent to the node from it, up to 64 KiB; then its diallers cannot send any more.
    ///
    /// What it sends itself arrives. Once it is healed everything arrives.
    pub fn stop_reading(&self) -> &Self {
        self.state(State::Deaf)
    }

    /// Keeps what the node sends from its diallers. It hears them, and acts on it. Once it is healed everything arrives.
    pub fn stop_answering(&self) -> &Self {
        self.state(State::Mute)
    }

    /// Makes each piece of bytes take so long, in each direction, and a dial twice as long: latency without loss.
    ///
    /// Later bytes never overtake earlier ones. In flight are at most 1 MiB in each direction.
    pub fn delay(&self, delay: impl Into<Delay>) -> &Self {
        let delay = delay.into();
        self.change(|rule, _| rule.delay = Some(delay))
    }

    /// Has new connections accepted so late: the dial succeeds at once, bytes pass after this time only.
    pub fn slow_accept(&self, delay: impl Into<Delay>) -> &Self {
        let delay = delay.into();
        self.change(|rule, _| rule.accept = Some(delay))
    }

    /// Breaks each connection after so many bytes in one direction: counted from now on those that there are, from its
    /// start on each new one.
    ///
    /// These bytes arrive; then the dialler's end is reset and the node's is closed. 0 breaks them at the next byte.
    pub fn cut_after(&self, direction: Direction, bytes: u64) -> &Self {
        self.change(|rule, version| rule.limit = Some((direction, bytes, version)))
    }

    /// Breaks all connections that there are, once: the dialler's end is reset, the node's is closed. New ones are well.
    pub fn cut(&self) -> &Self {
        self.change(|rule, _| rule.cuts += 1)
    }

    /// Leaves the connections that there are half open, once: the node has lost them, and their diallers are not told.
    ///
    /// It is a host that lost power and came back: the diallers' ends stay open, take 64 KiB more and never hear anything.
    /// New connections are well. [`heal`](Self::heal) resets the lost ones.
    pub fn half_open(&self) -> &Self {
        self.change(|rule, _| rule.losses += 1)
    }

    /// Ends every fault that was set here; bytes that were held arrive.
    pub fn heal(&self) -> &Self {
        self.change(|rule, _| rule.heal())
    }

    /// How many connections were asked for so far, over links with these ends: dials of all outcomes.
    pub fn dials(&self) -> u64 {
        self.shared.count(&self.which, |count| count.dials)
    }

    /// How many connections are there now, half open ones included.
    pub fn connections(&self) -> u64 {
        self.shared.count(&self.which, |count| count.open)
    }

    fn state(&self, state: State) -> &Self {
        self.change(|rule, _| rule.state = Some(state))
    }

    fn change(&self, how: impl FnOnce(&mut Rule, u64)) -> &Self {
        let which = self.which.clone();
        self.shared.change(|links, version| how(links.rule(which), version));
        self
    }
}

impl fmt::Debug for LinkFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LinkFaults").field(&self.which).finish()
    }
}
