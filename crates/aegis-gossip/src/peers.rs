use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aegis_core::NodeId;
use aegis_topology::{NodeEntry, Snapshot};
use aegis_transport::{Connections, Link};
use tokio::time::Instant;

use crate::target::target;

/// Peers that are synced with time and again; one is replaced now and then.
const STICKY: usize = 8;
/// How often one of them is replaced.
const REPLACE_EVERY: Duration = Duration::from_secs(30);
/// Fruitless syncs in a row that are put up with.
const FRUITLESS: u32 = 5;
/// Exchanges with one peer at a time: a sync, a push, and one for what became news since that push began.
const EXCHANGES: usize = 3;
/// Links that are held for gossip alone.
const LINKS: usize = 64;
/// For how long an unused link is held.
const IDLE: Duration = Duration::from_secs(60);
/// The first wait after a peer could not be reached.
const RETRY: Duration = Duration::from_secs(1);
/// The longest one.
const RETRY_LIMIT: Duration = Duration::from_secs(60);
/// The longest one after failing for [`GIVE_UP_AFTER`].
const GIVE_UP_RETRY: Duration = Duration::from_secs(15 * 60);
const GIVE_UP_AFTER: Duration = Duration::from_secs(10 * 60);

/// Whom to sync with: a few sticky peers, now and then one that was down, and links to all of these.
#[derive(Debug)]
pub(crate) struct Peers {
    own: NodeId,
    connections: Connections,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    peers: HashMap<NodeId, Peer>,
    sticky: Vec<NodeId>,
    replaced_at: Instant,
}

#[derive(Debug, Default)]
struct Peer {
    link: Option<Link>,
    used_at: Option<Instant>,
    trouble: Option<Trouble>,
    /// The record that this trouble is about; another one is worth a new try.
    record: (u64, u64),
    /// Syncs in a row that ended with different directories and brought nothing.
    fruitless: u32,
    /// Until when it is not synced with after these. It answers, so it is told the news all the same.
    rests_until: Option<Instant>,
    /// Exchanges that run.
    running: usize,
}

/// A peer that did not answer.
#[derive(Clone, Copy, Debug)]
struct Trouble {
    since: Instant,
    failures: u32,
    retry_at: Instant,
}

impl Peers {
    pub(crate) fn new(own: NodeId, connections: Connections) -> Self {
        let state =
            State { peers: HashMap::new(), sticky: Vec::new(), replaced_at: Instant::now() };
        Self { own, connections, state: Arc::new(Mutex::new(state)) }
    }

    /// Chooses a peer for the next sync: with probability down/(live + 1) one that is down, so that partitions heal.
    pub(crate) fn choose(&self, snapshot: &Snapshot) -> Option<Chosen> {
        let now = Instant::now();
        let mut state = self.lock();
        state.forget_unused(now);
        let (live, down) = state.split(self.candidates(snapshot), now);
        let down_due: Vec<_> = down.iter().filter(|it| state.is_due(it.node_id(), now)).collect();
        let probability = ratio(down.len(), live.len() + 1);
        let chosen = match pick(&down_due) {
            Some(chosen) if live.is_empty() || fastrand::f64() < probability => *chosen,
            _ => {
                let is_awake = |it: &&Arc<NodeEntry>| !state.is_resting(it.node_id(), now);
                let awake: Vec<_> = live.into_iter().filter(is_awake).collect();
                state.choose_sticky(&awake, now)?
            }
        };
        if state.is_running(chosen.node_id()) {
            return None;
        }
        Some(self.occupy(&mut state, chosen, now))
    }

    /// Chooses up to `count` live peers at random, those that are connected first.
    ///
    /// Also those with whom a sync is under way: it may have begun before the news.
    pub(crate) fn choose_many(&self, snapshot: &Snapshot, count: usize) -> Vec<Chosen> {
        let now = Instant::now();
        let mut state = self.lock();
        let mut strangers = state.strangers(snapshot);
        strangers.truncate(count);
        let (mut live, _) = state.split(self.candidates(snapshot), now);
        fastrand::shuffle(&mut live);
        live.sort_by_key(|node| !state.is_connected(node.node_id()));
        // Before they are held: one too many would wait, when dropped, for the lock that is held here.
        live.truncate(count - strangers.len());
        let mut chosen = Vec::with_capacity(count);
        for link in strangers {
            chosen.push(self.hold(&mut state, link));
        }
        for node in live {
            chosen.push(self.occupy(&mut state, node, now));
        }
        chosen
    }

    /// Keeps a link that was made without knowing to whom it would lead.
    pub(crate) fn adopt(&self, link: &Link) {
        let mut state = self.lock();
        let peer = state.peers.entry(link.node_id().clone()).or_default();
        peer.used_at = Some(Instant::now());
        peer.trouble = None;
        if peer.link.is_none() {
            peer.link = Some(link.clone());
        }
    }

    /// The link to a peer, if there is one and it is connected.
    pub(crate) fn connected(&self, id: &NodeId) -> Option<Link> {
        let state = self.lock();
        state.peers.get(id)?.link.clone().filter(Link::is_connected)
    }

    fn candidates<'a>(&self, snapshot: &'a Snapshot) -> Vec<&'a Arc<NodeEntry>> {
        let is_peer =
            |node: &&Arc<NodeEntry>| *node.node_id() != self.own && !node.addresses().is_empty();
        snapshot.nodes().iter().filter(is_peer).collect()
    }

    fn occupy(&self, state: &mut State, node: &NodeEntry, now: Instant) -> Chosen {
        let id = node.node_id();
        if LINKS <= state.peers.len() && !state.peers.contains_key(id) {
            state.forget_oldest();
        }
        let peer = state.peers.entry(id.clone()).or_default();
        peer.used_at = Some(now);
        let record = (node.incarnation(), node.revision());
        if peer.record != record {
            peer.record = record;
            peer.trouble = None;
        }
        // Also where a link exists: the record may say another address than the last one, or the seed, and a later one
        // ends the link's backoff.
        let link = self.connections.link(target(node));
        peer.link = Some(link.clone());
        self.hold(state, link)
    }

    fn hold(&self, state: &mut State, link: Link) -> Chosen {
        if let Some(peer) = state.peers.get_mut(link.node_id()) {
            peer.running += 1;
        }
        Chosen { state: Arc::clone(&self.state), link }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

impl State {
    /// Those that answer, and those that did not and whose record is still the same.
    fn split<'a>(
        &self,
        nodes: Vec<&'a Arc<NodeEntry>>,
        now: Instant,
    ) -> (Vec<&'a Arc<NodeEntry>>, Vec<&'a Arc<NodeEntry>>) {
        nodes.into_iter().partition(|node| {
            let Some(peer) = self.peers.get(node.node_id()) else { return true };
            let news = peer.record != (node.incarnation(), node.revision());
            peer.trouble.is_none_or(|trouble| news || now < trouble.since)
        })
    }

    /// Peers that we reached at a seed and whose record has not come yet.
    fn strangers(&self, snapshot: &Snapshot) -> Vec<Link> {
        let unknown = self.peers.iter().filter(|(id, _)| snapshot.node(id).is_none());
        unknown.filter_map(|(_, peer)| peer.link.clone()).collect()
    }

    /// Whether a peer in trouble is worth a try: its time has come, or somebody else reached it.
    fn is_due(&self, id: &NodeId, now: Instant) -> bool {
        let trouble = self.peers.get(id).and_then(|peer| peer.trouble);
        trouble.is_none_or(|trouble| trouble.retry_at <= now) || self.is_connected(id)
    }

    fn is_resting(&self, id: &NodeId, now: Instant) -> bool {
        let until = self.peers.get(id).and_then(|peer| peer.rests_until);
        until.is_some_and(|until| now < until)
    }

    fn is_running(&self, id: &NodeId) -> bool {
        self.peers.get(id).is_some_and(|peer| 0 < peer.running)
    }

    fn is_connected(&self, id: &NodeId) -> bool {
        let link = self.peers.get(id).and_then(|peer| peer.link.as_ref());
        link.is_some_and(Link::is_connected)
    }

    fn choose_sticky<'a>(
        &mut self,
        live: &[&'a Arc<NodeEntry>],
        now: Instant,
    ) -> Option<&'a Arc<NodeEntry>> {
        let find = |id: &NodeId| {
            let at = live.binary_search_by(|node| node.node_id().cmp(id)).ok()?;
            live.get(at).copied()
        };
        self.sticky.retain(|id| find(id).is_some());
        if REPLACE_EVERY <= now - self.replaced_at && STICKY < live.len() {
            self.replaced_at = now;
            if !self.sticky.is_empty() {
                self.sticky.swap_remove(fastrand::usize(..self.sticky.len()));
            }
        }
        // A few draws are enough: whoever is drawn twice leaves room for a later tick.
        for _ in 0..2 * STICKY {
            if self.sticky.len() == STICKY.min(live.len()) {
                break;
            }
            if let Some(node) = pick(live)
                && !self.sticky.contains(node.node_id())
            {
                self.sticky.push(node.node_id().clone());
            }
        }
        find(pick(&self.sticky)?)
    }

    fn forget_unused(&mut self, now: Instant) {
        let sticky = std::mem::take(&mut self.sticky);
        self.peers.retain(|id, peer| {
            let unused = peer.used_at.is_none_or(|at| IDLE < now - at);
            if unused && peer.running == 0 && !sticky.contains(id) {
                peer.link = None;
            }
            let rests = peer.rests_until.is_some_and(|until| now < until);
            peer.link.is_some() || peer.trouble.is_some() || rests
        });
        self.sticky = sticky;
    }

    fn forget_oldest(&mut self) {
        let idle = self.peers.iter().filter(|(_, peer)| peer.running == 0);
        let oldest = idle.min_by_key(|(_, peer)| peer.used_at).map(|(id, _)| id.clone());
        if let Some(oldest) = oldest {
            self.peers.remove(&oldest);
        }
    }
}

/// A peer that is being synced with.
#[derive(Debug)]
pub(crate) struct Chosen {
    state: Arc<Mutex<State>>,
    pub(crate) link: Link,
}

impl Chosen {
    pub(crate) fn succeeded(&self) {
        if let Some(peer) = lock(&self.state).peers.get_mut(self.link.node_id()) {
            peer.trouble = None;
            peer.fruitless = 0;
            peer.rests_until = None;
        }
    }

    /// Syncs less often with a peer with whom the directory does not get equal time and again: one refuses what the
    /// other holds.
    ///
    /// Once means little: something may have changed meanwhile.
    pub(crate) fn was_fruitless(&self) {
        if let Some(peer) = lock(&self.state).peers.get_mut(self.link.node_id()) {
            peer.trouble = None;
            peer.fruitless = peer.fruitless.saturating_add(1);
            if let Some(more) = peer.fruitless.checked_sub(FRUITLESS + 1) {
                let wait = RETRY.saturating_mul(1 << more.min(10)).min(RETRY_LIMIT);
                peer.rests_until = Some(Instant::now() + crate::settings::jittered(wait));
            }
        }
    }

    /// Whether so many exchanges with this peer are under way that one more is not worth while.
    pub(crate) fn is_busy(&self) -> bool {
        let running = lock(&self.state).peers.get(self.link.node_id()).map_or(0, |it| it.running);
        EXCHANGES < running
    }

    /// Puts the peer off, longer with each failure in a row.
    pub(crate) fn failed(&self) {
        let now = Instant::now();
        if let Some(peer) = lock(&self.state).peers.get_mut(self.link.node_id()) {
            let (since, failures) =
                peer.trouble.map_or((now, 0), |trouble| (trouble.since, trouble.failures));
            let limit = if GIVE_UP_AFTER < now - since { GIVE_UP_RETRY } else { RETRY_LIMIT };
            let wait = RETRY.saturating_mul(1 << failures.min(10)).min(limit);
            let retry_at = now + crate::settings::jittered(wait);
            peer.trouble = Some(Trouble { since, failures: failures + 1, retry_at });
        }
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        if let Some(peer) = lock(&self.state).peers.get_mut(self.link.node_id()) {
            peer.running = peer.running.saturating_sub(1);
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pick<T>(list: &[T]) -> Option<&T> {
    if list.is_empty() {
        return None;
    }
    list.get(fastrand::usize(..list.len()))
}

#[expect(clippy::cast_precision_loss, reason = "a directory has at most 16,384 nodes")]
fn ratio(part: usize, whole: usize) -> f64 {
    part as f64 / whole as f64
}
