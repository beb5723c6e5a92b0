//! What is set, and the connections that must hear of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Waker};

use aegis_core::Address;
use tokio::sync::watch;

#[cfg(feature = "mesh")]
use super::calls::Calls;
use super::delay::Delay;
use super::link::Direction;
use super::seed::Draws;

/// The links that a rule is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Which {
    /// In alphabetical order.
    Between(String, String),
    To(String),
}

impl Which {
    pub(crate) fn to(target: String) -> Self {
        Self::To(named(target))
    }

    pub(crate) fn between(one: String, other: String) -> Self {
        let (one, other) = (named(one), named(other));
        if one < other { Self::Between(one, other) } else { Self::Between(other, one) }
    }
}

/// What a link is like, apart from what comes on top of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    BlackHole,
    Deaf,
    Hanging,
    Mute,
    Refusing,
}

impl State {
    /// Whether bytes that go this way have to wait.
    pub(crate) fn holds(self, direction: Direction) -> bool {
        match self {
            Self::BlackHole | Self::Hanging => true,
            Self::Deaf => direction == Direction::ToNode,
            Self::Mute => direction == Direction::FromNode,
            Self::Refusing => false,
        }
    }
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Rule {
    pub(crate) state: Option<State>,
    pub(crate) delay: Option<Delay>,
    pub(crate) accept: Option<Delay>,
    /// With the version at which it was set: a connection counts its bytes from then on.
    pub(crate) limit: Option<(Direction, u64, u64)>,
    /// How often all connections were cut, lost, and healed: one notes what it was when it began.
    pub(crate) cuts: u64,
    pub(crate) losses: u64,
    pub(crate) heals: u64,
}

impl Rule {
    pub(crate) fn heal(&mut self) {
        let Self { cuts, losses, heals, .. } = *self;
        *self = Self { cuts, losses, heals: heals + 1, ..Self::default() };
    }

    /// This one first, and the other where it says nothing.
    fn or(self, other: Self) -> Self {
        Self {
            state: self.state.or(other.state),
            delay: self.delay.or(other.delay),
            accept: self.accept.or(other.accept),
            limit: self.limit.or(other.limit),
            cuts: self.cuts + other.cuts,
            losses: self.losses + other.losses,
            heals: self.heals + other.heals,
        }
    }
}

/// Who dials what.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Ends {
    pub(crate) from: Option<String>,
    /// An address, `host:port`.
    pub(crate) to: String,
}

impl Ends {
    pub(crate) fn new(from: Option<String>, to: &Address) -> Self {
        Self { from, to: written(to) }
    }
}

/// A node's id, which is no address, or an address in the one way to write it.
fn named(name: String) -> String {
    name.parse().map_or(name, |address| written(&address))
}

/// An address as names are looked up by: on the host itself there is one way to write it.
fn written(address: &Address) -> String {
    let host = if address.is_loopback() { "127.0.0.1" } else { address.host() };
    format!("{host}:{}", address.port())
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) dials: u64,
    pub(crate) open: u64,
}

#[derive(Default)]
pub(crate) struct Links {
    rules: HashMap<Which, Rule>,
    /// The ids of nodes by the addresses that they have bound.
    names: HashMap<String, String>,
    counts: HashMap<Ends, Count>,
    live: Vec<Weak<Wakers>>,
}

impl Links {
    pub(crate) fn rule(&mut self, which: Which) -> &mut Rule {
        self.rules.entry(which).or_default()
    }

    pub(crate) fn heal(&mut self, _version: u64) {
        self.rules.values_mut().for_each(Rule::heal);
    }

    /// What holds for a link: a rule for its two ends before one for the node alone.
    fn effective(&self, ends: &Ends) -> Rule {
        let name = self.names.get(&ends.to);
        let targets = || name.into_iter().chain([&ends.to]);
        let pairs = targets().filter_map(|to| Some(Which::between(ends.from.clone()?, to.clone())));
        let rules = pairs.chain(targets().cloned().map(Which::to));
        rules
            .filter_map(|which| self.rules.get(&which))
            .fold(Rule::default(), |sum, rule| sum.or(*rule))
    }

    /// Whether a link is one of those that a rule is for.
    fn is_of(&self, ends: &Ends, which: &Which) -> bool {
        let is_target = |it: &String| *it == ends.to || self.names.get(&ends.to) == Some(it);
        match which {
            Which::To(target) => is_target(target),
            Which::Between(one, other) => {
                let is_own = |it| ends.from.as_ref() == Some(it);
                (is_own(one) && is_target(other)) || (is_own(other) && is_target(one))
            }
        }
    }
}

/// All that the clones of a [`Faults`](super::Faults), its networks and its layers share.
pub(crate) struct Shared {
    pub(crate) seed: u64,
    /// Whether anything was drawn, and whether the seed was told.
    drew: AtomicBool,
    told: AtomicBool,
    /// Grows with each change of a rule, so that a connection need not lock to see that there was none.
    version: AtomicU64,
    changed: watch::Sender<u64>,
    links: Mutex<Links>,
    #[cfg(feature = "mesh")]
    pub(crate) calls: Calls,
}

impl Shared {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            drew: AtomicBool::new(false),
            told: AtomicBool::new(false),
            version: AtomicU64::new(0),
            changed: watch::Sender::new(0),
            links: Mutex::default(),
            #[cfg(feature = "mesh")]
            calls: Calls::default(),
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Changes the rules, and lets every connection look at them.
    pub(crate) fn change(&self, how: impl FnOnce(&mut Links, u64)) {
        let live = {
            let mut links = self.links();
            let version = self.version() + 1;
            how(&mut links, version);
            self.version.store(version, Ordering::Release);
            self.changed.send_replace(version);
            links.live.retain(|wakers| wakers.strong_count() != 0);
            links.live.clone()
        };
        live.iter().filter_map(Weak::upgrade).for_each(|wakers| wakers.wake());
    }

    /// What holds for a link, and since which version.
    pub(crate) fn rule(&self, ends: &Ends) -> (Rule, u64) {
        let links = self.links();
        (links.effective(ends), self.version())
    }

    /// Waits until something is set that was not at this version.
    pub(crate) async fn changed(&self, since: u64) {
        let mut changed = self.changed.subscribe();
        // It fails only when all of this is gone.
        drop(changed.wait_for(|version| since < *version).await);
    }

    /// From now on the address is this node's.
    pub(crate) fn name(&self, address: &Address, id: &str) {
        let mut links = self.links();
        links.names.insert(written(address), id.to_owned());
        if address.ip().is_some_and(|ip| ip.is_unspecified()) {
            links.names.insert(format!("127.0.0.1:{}", address.port()), id.to_owned());
        }
    }

    /// Counts a dial, and returns what it draws from: a sequence for each purpose.
    ///
    /// It goes by the node's id where that is known, since addresses change from run to run.
    pub(crate) fn dialled(&self, ends: &Ends) -> impl Fn(&str) -> Draws + Send + use<> {
        let mut links = self.links();
        let count = links.counts.entry(ends.clone()).or_default();
        count.dials += 1;
        let (seed, number) = (self.seed, count.dials);
        let from = ends.from.clone().unwrap_or_default();
        let to = links.names.get(&ends.to).unwrap_or(&ends.to).clone();
        move |what| Draws::of(seed, &[&from, &to, what], number)
    }

    pub(crate) fn opened(&self, ends: &Ends, wakers: &Arc<Wakers>) {
        let mut links = self.links();
        links.live.push(Arc::downgrade(wakers));
        links.counts.entry(ends.clone()).or_default().open += 1;
    }

    pub(crate) fn closed(&self, ends: &Ends) {
        self.links().counts.entry(ends.clone()).or_default().open -= 1;
    }

    pub(crate) fn count(&self, which: &Which, of: impl Fn(&Count) -> u64) -> u64 {
        let links = self.links();
        let matching = links.counts.iter().filter(|(ends, _)| links.is_of(ends, which));
        matching.map(|(_, count)| of(count)).sum()
    }

    /// Draws how long something takes.
    pub(crate) fn draw(&self, delay: Delay, draws: &mut Draws) -> std::time::Duration {
        if delay.is_range() {
            self.note_draw();
        }
        delay.draw(draws)
    }

    pub(crate) fn note_draw(&self) {
        self.drew.store(true, Ordering::Relaxed);
    }

    /// Whether the seed matters and was not told yet; true once.
    pub(crate) fn must_tell(&self) -> bool {
        self.drew.load(Ordering::Relaxed) && !self.told.swap(true, Ordering::Relaxed)
    }

    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// Who waits for a connection to be read or written.
#[derive(Debug, Default)]
pub(crate) struct Wakers(Mutex<[Option<Waker>; 2]>);

impl Wakers {
    pub(crate) fn reading(&self, cx: &Context<'_>) {
        let [reader, _] = &mut *self.lock();
        *reader = Some(cx.waker().clone());
    }

    pub(crate) fn writing(&self, cx: &Context<'_>) {
        let [_, writer] = &mut *self.lock();
        *writer = Some(cx.waker().clone());
    }

    pub(crate) fn wake(&self) {
        let woken = std::mem::take(&mut *self.lock());
        woken.into_iter().flatten().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, [Option<Waker>; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
