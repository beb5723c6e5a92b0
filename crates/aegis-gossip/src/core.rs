#[cfg(feature = "server")]
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[cfg(feature = "server")]
use aegis_core::Address;
use aegis_core::NodeId;
use aegis_proto::convert::decode_record;
use aegis_tls::Tls;
#[cfg(feature = "server")]
use aegis_topology::Key;
use aegis_topology::{
    Directory, Merged, NodeEntry, NodeState, Publisher, Refusal, Replica, SignedRecord, SyncState,
    Timestamp, Verified, check_size,
};
use aegis_transport::Connections;
use tokio::sync::watch;

use crate::Settings;
use crate::inbox::{Admission, Inbox, Origin};
use crate::verifier::Verifier;

/// What members and observers share: the replica, how records get into it, and where it is published.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) tls: Tls,
    pub(crate) connections: Connections,
    pub(crate) settings: Settings,
    pub(crate) inbox: Inbox,
    replica: Mutex<Replica>,
    publisher: Publisher,
    joined: AtomicBool,
    /// The replica's change number.
    changed: watch::Sender<u64>,
    #[cfg(feature = "server")]
    met: watch::Sender<Option<Met>>,
}

/// A record that another process signed with our identity.
#[cfg(feature = "server")]
#[derive(Clone, Debug)]
pub(crate) struct Met {
    pub(crate) record: Arc<Verified>,
    /// Whether that process itself sent it, over a connection with our identity: so it lives.
    pub(crate) first_hand: bool,
}

/// What became of the records that a peer sent.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    /// How many were news.
    pub(crate) news: usize,
    /// What the sender does not know of itself: a record of an earlier run, which wins over the one that it showed.
    pub(crate) past: Option<SignedRecord>,
}

/// What a look at a record brought.
enum Checked {
    New(Box<Verified>),
    Known,
    /// It loses to this one of an earlier run of the sender.
    Past(SignedRecord),
}

impl Core {
    pub(crate) fn new(tls: Tls, connections: Connections, settings: Settings) -> Self {
        Self {
            inbox: Inbox::new(&settings),
            replica: Mutex::new(Replica::new(settings.limits.clone())),
            publisher: Publisher::new(),
            joined: AtomicBool::new(false),
            changed: watch::Sender::new(0),
            #[cfg(feature = "server")]
            met: watch::Sender::new(None),
            tls,
            connections,
            settings,
        }
    }

    /// Verifies and merges what a peer sent; `unreadable` records came with them.
    ///
    /// Only what would change something is verified, what is over the peer's budget is not even decoded, and the
    /// runtime gets its turn in between.
    pub(crate) async fn admit(
        &self,
        from: &NodeId,
        origin: Origin,
        records: Vec<SignedRecord>,
        unreadable: usize,
    ) -> Admitted {
        self.inbox.unreadable(from, unreadable, self.now());
        let count = records.len();
        let mut admitted = Admitted::default();
        for (at, record) in records.into_iter().enumerate() {
            // Eight verifications take about half a millisecond.
            if at % 8 == 7 {
                tokio::task::yield_now().await;
            }
            let now = self.now();
            match self.inbox.admit(from, origin, &record, now) {
                Admission::Admitted => {}
                Admission::OverBudget => {
                    self.inbox.put_off(count - at);
                    break;
                }
                Admission::Refused => continue,
            }
            match self.check(from, &record, now) {
                Ok(Checked::New(record)) => {
                    admitted.news += usize::from(self.merge(from, *record));
                }
                Ok(Checked::Known) => self.inbox.was_known(from, origin, now),
                Ok(Checked::Past(record)) => {
                    self.inbox.was_known(from, origin, now);
                    admitted.past = Some(record);
                }
                Err(refusal) => self.inbox.refuse(from, &record, &refusal, now),
            }
        }
        if 0 < admitted.news {
            self.announce();
        }
        admitted
    }

    /// Verifies a record, if it would change anything.
    fn check(
        &self,
        from: &NodeId,
        signed: &SignedRecord,
        now: Timestamp,
    ) -> Result<Checked, Refusal> {
        let limits = &self.settings.limits;
        check_size(signed, limits)?;
        // Not trusted yet: a claim that would change nothing need not be verified.
        let claim = decode_record(&signed.body)
            .map_err(|error| Refusal::Body { source: Box::new(error) })?;
        // Records end all the time, and a peer's clock may be behind ours: nobody is to blame.
        if claim.expires_at <= now {
            return Ok(Checked::Known);
        }
        {
            let replica = self.replica();
            if !replica.wants(claim.key(), claim.precedence, signed.body_hash()) {
                // A node shows a record of its own that loses to one of an earlier run.
                let past = (claim.owner.node_id() == from)
                    .then(|| replica.record(claim.key()))
                    .flatten()
                    .filter(|held| held.record().instance != claim.instance)
                    .filter(|held| claim.precedence < held.precedence());
                return Ok(past.map_or(Checked::Known, |it| Checked::Past(it.signed().clone())));
            }
        }
        let verifier = Verifier { tls: &self.tls };
        let domain = self.tls.spiffe_id();
        // What this node itself signed in an earlier run is not from the future, however late it says it is: since then
        // our clock was set back.
        let now = if claim.owner == domain { now.max(claim.issued_at) } else { now };
        let record = Verified::new(signed.clone(), &verifier, domain.trust_domain(), limits, now)?;
        Ok(Checked::New(Box::new(record)))
    }

    /// Merges a record; whoever merged the last of several calls [`announce`](Self::announce).
    pub(crate) fn merge(&self, from: &NodeId, record: Verified) -> bool {
        let owner = record.record().owner.node_id().clone();
        let merged = self.replica().merge(record, self.now());
        match merged {
            Merged::Changed => true,
            Merged::Equivocation { changed } => {
                self.inbox.equivocated(&owner, from, self.now());
                changed
            }
            #[cfg(feature = "server")]
            Merged::OwnIdentity(record) => {
                let first_hand = *from == owner;
                self.met.send_replace(Some(Met { record: Arc::from(record), first_hand }));
                false
            }
            Merged::Full => {
                tracing::debug!(node = %owner, %from, "the directory is full, a new node is left out");
                false
            }
            _ => false,
        }
    }

    pub(crate) fn expire(&self, now: Timestamp) {
        if 0 < self.replica().expire(now) {
            self.announce();
        }
    }

    /// Tells all who follow the replica that it changed.
    pub(crate) fn announce(&self) {
        let change = self.replica().change();
        self.changed.send_if_modified(|current| {
            let newer = *current < change;
            *current = change.max(*current);
            newer
        });
    }

    /// Puts the replica's state where callers read it.
    pub(crate) fn publish(&self) {
        let (root, nodes) = {
            let replica = self.replica();
            (replica.root(), replica.entries().collect::<Vec<_>>())
        };
        self.publisher.publish(root, nodes);
    }

    pub(crate) fn set_sync_state(&self, state: SyncState) {
        if self.directory().snapshot().is_synced() {
            return;
        }
        // First the nodes: who waits for the sync must find what it brought.
        if state == SyncState::Complete {
            self.publish();
        }
        self.publisher.set_sync_state(state);
    }

    /// Notes that the directory has been compared with that of `through`; says so in the log the first time.
    pub(crate) fn joined(&self, through: &NodeId) {
        self.set_sync_state(SyncState::Complete);
        if !self.joined.swap(true, Ordering::Relaxed) {
            let is_there = |node: &Arc<NodeEntry>| node.state() != NodeState::Left;
            let nodes = self.replica().entries().filter(is_there).count();
            let node = self.tls.spiffe_id();
            let node = node.node_id();
            tracing::info!(%node, nodes, %through, "joined the mesh");
        }
    }

    /// The clock by which certificates are judged, too: there is one for a node.
    pub(crate) fn now(&self) -> Timestamp {
        self.tls.now().into()
    }

    pub(crate) fn directory(&self) -> Directory {
        self.publisher.directory()
    }

    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(crate) fn replica(&self) -> MutexGuard<'_, Replica> {
        self.replica.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What only a member needs.
#[cfg(feature = "server")]
impl Core {
    /// Verifies the own record by the rules of a peer, so that nothing is published that others would refuse.
    pub(crate) fn verify_own(&self, signed: SignedRecord) -> Result<Verified, Refusal> {
        let domain = self.tls.spiffe_id();
        let verifier = Verifier { tls: &self.tls };
        let limits = &self.settings.limits;
        Verified::new(signed, &verifier, domain.trust_domain(), limits, self.now())
    }

    /// Says once in the log that a peer on another host advertises what leads every host to itself.
    pub(crate) fn look_at_addresses_of(&self, peer: &NodeId, host: IpAddr) {
        let key = Key::of(self.tls.spiffe_id().trust_domain(), peer);
        let addresses: Vec<_> = match self.replica().record(key) {
            Some(record) => record.record().description.addresses().to_vec(),
            None => return,
        };
        if !addresses.is_empty()
            && addresses.iter().all(Address::is_loopback)
            && self.inbox.is_first_loopback(peer)
        {
            tracing::warn!(
                node = %peer, %host, ?addresses,
                "a node on another host advertises only addresses of its own host, where nobody else can reach it; \
                 it needs an advertise_address"
            );
        }
    }

    pub(crate) fn met(&self) -> watch::Receiver<Option<Met>> {
        self.met.subscribe()
    }

    pub(crate) fn own_id(&self) -> NodeId {
        self.tls.spiffe_id().node_id().clone()
    }
}
