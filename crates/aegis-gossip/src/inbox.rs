use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aegis_core::{Chain, NodeId};
use aegis_topology::{Budget, Refusal, SignedRecord, Timestamp};

use crate::Settings;

/// Peers that are remembered; more come only with more certificates than a directory has nodes.
const PEERS: usize = 1_024;
/// Refused records that are remembered.
const REFUSED: usize = 4_096;
/// How often those are looked through whose time is over: there may be as many as come in a second.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// For how long a refused record is not looked at again.
const REMEMBER: Duration = Duration::from_secs(60);
/// How often a peer's refused records are worth a line in the log.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Bounds what records of peers cost us: a budget per peer, and no second look at what was refused.
#[derive(Debug)]
pub(crate) struct Inbox {
    rate: u32,
    nodes: usize,
    hasher: RandomState,
    state: Mutex<State>,
    refused: AtomicU64,
    over_budget: AtomicU64,
    equivocations: AtomicU64,
    conflicts: AtomicU64,
    /// Nodes that advertise what nobody can reach.
    loopback: Mutex<HashSet<NodeId>>,
}

#[derive(Debug, Default)]
struct State {
    peers: HashMap<NodeId, Peer>,
    refused: HashMap<u64, Timestamp>,
    swept_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Peer {
    pushed: Budget,
    asked: Budget,
    warned_at: Option<Timestamp>,
    seen_at: Timestamp,
}

impl State {
    fn is_sweep_due(&self, now: Timestamp) -> bool {
        // A clock that was set back makes it due too.
        self.swept_at.is_none_or(|at| now < at || SWEEP_EVERY <= now.since(at))
    }
}

impl Peer {
    fn budget(&mut self, origin: Origin) -> &mut Budget {
        match origin {
            Origin::Asked => &mut self.asked,
            Origin::Pushed => &mut self.pushed,
        }
    }
}

/// How records came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// We asked for them: a node that joins needs as many as there are nodes.
    Asked,
    /// The peer sent them by itself.
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "nobody sends to an observer"))]
    Pushed,
}

/// Whether a record is worth a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is; a token was taken for it.
    Admitted,
    /// Its sender sent too many.
    OverBudget,
    /// It was refused not long ago.
    Refused,
}

/// What became of records that peers sent, counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Records whose signature or content was refused, and those that could not be read.
    pub refused: u64,
    /// Records that were put off because their sender sent too many.
    pub over_budget: u64,
    /// Times an owner was seen to have signed two records with one number.
    pub equivocations: u64,
    /// Times another living process with our own identity was found.
    pub conflicts: u64,
    /// Nodes on other hosts that advertise only addresses of their own host, such as `127.0.0.1`.
    pub loopback: u64,
}

impl Inbox {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            rate: settings.verify_rate,
            nodes: settings.limits.nodes,
            hasher: RandomState::new(),
            state: Mutex::default(),
            refused: AtomicU64::new(0),
            over_budget: AtomicU64::new(0),
            equivocations: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            loopback: Mutex::default(),
        }
    }

    /// Takes a token for a look at a record, unless it was refused lately.
    pub(crate) fn admit(
        &self,
        from: &NodeId,
        origin: Origin,
        record: &SignedRecord,
        now: Timestamp,
    ) -> Admission {
        // The whole record, signature included: a forgery must not bar the genuine one.
        let id = self.hasher.hash_one(record);
        let mut state = self.lock();
        if state.refused.get(&id).is_some_and(|until| now < *until) {
            return Admission::Refused;
        }
        let peer = self.peer(&mut state, from, now);
        if peer.budget(origin).take(now) { Admission::Admitted } else { Admission::OverBudget }
    }

    /// Gives the token of a record back that turned out to be known: nothing was verified.
    pub(crate) fn was_known(&self, from: &NodeId, origin: Origin, now: Timestamp) {
        let mut state = self.lock();
        self.peer(&mut state, from, now).budget(origin).give_back();
    }

    /// Counts records that were put off.
    pub(crate) fn put_off(&self, count: usize) {
        add(&self.over_budget, count);
    }

    /// Counts records that could not even be read, and says so in the log once per peer and minute.
    pub(crate) fn unreadable(&self, from: &NodeId, count: usize, now: Timestamp) {
        if count == 0 {
            return;
        }
        add(&self.refused, count);
        let mut state = self.lock();
        if self.may_warn(&mut state, from, now) {
            drop(state);
            tracing::warn!(node = %from, count, "a peer sent records that cannot be read");
        }
    }

    /// Remembers a record that was refused, and says so in the log once per peer and minute.
    pub(crate) fn refuse(
        &self,
        from: &NodeId,
        record: &SignedRecord,
        refusal: &Refusal,
        now: Timestamp,
    ) {
        self.refused.fetch_add(1, Ordering::Relaxed);
        let id = self.hasher.hash_one(record);
        let mut state = self.lock();
        if REFUSED <= state.refused.len() && state.is_sweep_due(now) {
            state.swept_at = Some(now);
            state.refused.retain(|_, until| now < *until);
        }
        if state.refused.len() < REFUSED {
            state.refused.insert(id, now.saturating_add(REMEMBER));
        }
        if self.may_warn(&mut state, from, now) {
            drop(state);
            let error = Chain::new(refusal);
            tracing::warn!(node = %from, %error, "a peer sent a record that is refused");
        }
    }

    /// Counts an owner that signed two records with one number, and says so in the log once a minute.
    pub(crate) fn equivocated(&self, owner: &NodeId, from: &NodeId, now: Timestamp) {
        self.equivocations.fetch_add(1, Ordering::Relaxed);
        let mut state = self.lock();
        if self.may_warn(&mut state, owner, now) {
            drop(state);
            tracing::warn!(node = %owner, %from, "a node signed two different records with one number");
        }
    }

    fn may_warn(&self, state: &mut State, node: &NodeId, now: Timestamp) -> bool {
        let peer = self.peer(state, node, now);
        let due = peer.warned_at.is_none_or(|at| WARN_EVERY <= now.since(at));
        if due {
            peer.warned_at = Some(now);
        }
        due
    }

    #[cfg(feature = "server")]
    pub(crate) fn count_conflict(&self) {
        self.conflicts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a node whose addresses nobody can reach; whether it was not counted before.
    #[cfg(feature = "server")]
    pub(crate) fn is_first_loopback(&self, node: &NodeId) -> bool {
        let mut known = self.loopback();
        known.len() < self.nodes && known.insert(node.clone())
    }

    fn loopback(&self) -> MutexGuard<'_, HashSet<NodeId>> {
        self.loopback.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn counters(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            refused: read(&self.refused),
            over_budget: read(&self.over_budget),
            equivocations: read(&self.equivocations),
            conflicts: read(&self.conflicts),
            loopback: u64::try_from(self.loopback().len()).unwrap_or(u64::MAX),
        }
    }

    fn peer<'a>(&self, state: &'a mut State, id: &NodeId, now: Timestamp) -> &'a mut Peer {
        if PEERS <= state.peers.len() && !state.peers.contains_key(id) {
            let oldest = state.peers.iter().min_by_key(|(_, peer)| peer.seen_at);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                state.peers.remove(&oldest);
            }
        }
        let nodes = u32::try_from(self.nodes).unwrap_or(u32::MAX);
        let peer = state.peers.entry(id.clone()).or_insert_with(|| Peer {
            pushed: Budget::new(self.rate, self.rate.saturating_mul(2)),
            asked: Budget::new(self.rate, nodes),
            warned_at: None,
            seen_at: now,
        });
        peer.seen_at = now;
        peer
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const PEER: NodeId = NodeId::from_static("peer");

    fn record(body: u64) -> SignedRecord {
        let body = Bytes::copy_from_slice(&body.to_be_bytes());
        SignedRecord::new(body, Vec::new(), 1, Bytes::new())
    }

    fn inbox() -> Inbox {
        Inbox::new(&Settings::default())
    }

    fn admits(inbox: &Inbox, from: &NodeId, origin: Origin, body: u64, now: Timestamp) -> bool {
        inbox.admit(from, origin, &record(body), now) == Admission::Admitted
    }

    #[test]
    fn a_peer_that_pushes_more_than_its_budget_is_put_off() {
        let inbox = inbox();
        let now = Timestamp::from_millis(1_000_000);
        let pushed =
            |now| (0..1_000).filter(|at| admits(&inbox, &PEER, Origin::Pushed, *at, now)).count();
        assert_eq!(pushed(now), 400);
        // What we ask for ourselves has a budget of its own, and so has every peer.
        assert!(admits(&inbox, &PEER, Origin::Asked, 0, now));
        assert!(admits(&inbox, &NodeId::from_static("other"), Origin::Pushed, 0, now));
        // What was known already costs nothing.
        inbox.was_known(&PEER, Origin::Pushed, now);
        assert_eq!(pushed(now), 1);
        assert_eq!(pushed(now.saturating_add(Duration::from_secs(1))), 200);
    }

    #[test]
    fn a_refused_record_is_not_looked_at_again_for_a_while() {
        let inbox = inbox();
        let now = Timestamp::from_millis(1_000_000);
        let refusal = Refusal::Signature { source: "bad".into() };
        inbox.refuse(&PEER, &record(1), &refusal, now);
        assert_eq!(inbox.counters().refused, 1);
        assert_eq!(inbox.admit(&PEER, Origin::Asked, &record(1), now), Admission::Refused);
        assert!(admits(&inbox, &PEER, Origin::Asked, 2, now));
        assert!(admits(&inbox, &PEER, Origin::Asked, 1, now.saturating_add(REMEMBER)));
    }

    #[test]
    fn a_full_memory_of_refused_records_is_looked_through_once_a_second() {
        let inbox = inbox();
        let refuse = |body, millis| {
            let refusal = Refusal::Signature { source: "bad".into() };
            inbox.refuse(&PEER, &record(body), &refusal, Timestamp::from_millis(millis));
            inbox.lock().refused.len()
        };
        for body in 0..REFUSED as u64 {
            refuse(body, body % 2);
        }
        // At 60 s the even ones are over, at 60.001 s the others, which nobody looks for yet.
        assert_eq!(refuse(10_000, 60_000), REFUSED / 2 + 1);
        for body in 10_001..10_000 + REFUSED as u64 / 2 {
            refuse(body, 60_000);
        }
        assert_eq!(refuse(20_000, 60_999), REFUSED);
        assert_eq!(refuse(20_000, 61_000), REFUSED / 2 + 1);
    }

    #[cfg(feature = "server")]
    #[test]
    fn a_node_that_nobody_can_reach_is_counted_once() {
        let inbox = inbox();
        assert_eq!([(); 3].map(|()| inbox.is_first_loopback(&PEER)), [true, false, false]);
        assert!(inbox.is_first_loopback(&NodeId::from_static("other")));
        assert_eq!(inbox.counters().loopback, 2);
    }

    #[test]
    fn what_is_remembered_of_peers_is_bounded() {
        let inbox = inbox();
        for at in 0..10_000_u64 {
            let now = Timestamp::from_millis(at);
            let peer = NodeId::new(format!("peer-{at}")).unwrap();
            let refusal = Refusal::Signature { source: "bad".into() };
            inbox.refuse(&peer, &record(at), &refusal, now);
        }
        let state = inbox.lock();
        assert_eq!((state.peers.len(), state.refused.len()), (PEERS, REFUSED));
    }
}
