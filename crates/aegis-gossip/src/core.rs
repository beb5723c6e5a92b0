use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aegis_core::NodeId;
use aegis_proto::convert::decode_record;
use aegis_tls::Tls;
use aegis_topology::{
    Directory, Merged, NodeEntry, NodeState, Publisher, Refusal, Replica, SignedRecord, SyncState,
    Timestamp, Verified, check_size,
};
use aegis_transport::Connections;
use tokio::sync::watch;

use crate::Settings;
use crate::clock::now;
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

    /// Verifies and merges what a peer sent; returns how many records were news. `unreadable` ones came with them.
    ///
    /// Only what would change something is verified, what is over the peer's budget is not even decoded, and the
    /// runtime gets its turn in between.
    pub(crate) async fn admit(
        &self,
        from: &NodeId,
        origin: Origin,
        records: Vec<SignedRecord>,
        unreadable: usize,
    ) -> usize {
        self.inbox.unreadable(from, unreadable, now());
        let count = records.len();
        let mut news = 0;
        for (at, record) in records.into_iter().enumerate() {
            // Eight verifications take about half a millisecond.
            if at % 8 == 7 {
                tokio::task::yield_now().await;
            }
            let now = now();
            match self.inbox.admit(from, origin, &record, now) {
                Admission::Admitted => {}
                Admission::OverBudget => {
                    self.inbox.put_off(count - at);
                    break;
                }
                Admission::Refused => continue,
            }
            match self.check(&record, now) {
                Ok(Some(record)) => news += usize::from(self.merge(from, record)),
                Ok(None) => self.inbox.was_known(from, origin, now),
                Err(refusal) => self.inbox.refuse(from, &record, &refusal, now),
            }
        }
        if 0 < news {
            self.announce();
        }
        news
    }

    /// Verifies a record, if it would change anything.
    fn check(&self, signed: &SignedRecord, now: Timestamp) -> Result<Option<Verified>, Refusal> {
        let limits = &self.settings.limits;
        check_size(signed, limits)?;
        // Not trusted yet: a claim that would change nothing need not be verified.
        let claim = decode_record(&signed.body)
            .map_err(|error| Refusal::Body { source: Box::new(error) })?;
        // Records end all the time, and a peer's clock may be behind ours: nobody is to blame.
        let over = claim.expires_at <= now;
        if over || !self.replica().wants(claim.key(), claim.precedence, signed.body_hash()) {
            return Ok(None);
        }
        let verifier = Verifier { tls: &self.tls };
        let domain = self.tls.spiffe_id();
        Verified::new(signed.clone(), &verifier, domain.trust_domain(), limits, now).map(Some)
    }

    /// Merges a record; whoever merged the last of several calls [`announce`](Self::announce).
    pub(crate) fn merge(&self, from: &NodeId, record: Verified) -> bool {
        let owner = record.record().owner.node_id().clone();
        let merged = self.replica().merge(record, now());
        match merged {
            Merged::Changed => true,
            Merged::Equivocation { changed } => {
                self.inbox.equivocated(&owner, from, now());
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

    /// Notes that the directory has been compared with somebody else's; says so in the log the first time.
    pub(crate) fn joined(&self) {
        self.set_sync_state(SyncState::Complete);
        if !self.joined.swap(true, Ordering::Relaxed) {
            let is_there = |node: &Arc<NodeEntry>| node.state() != NodeState::Left;
            let nodes = self.replica().entries().filter(is_there).count();
            tracing::info!(nodes, "joined the mesh");
        }
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
        Verified::new(signed, &verifier, domain.trust_domain(), limits, now())
    }

    pub(crate) fn met(&self) -> watch::Receiver<Option<Met>> {
        self.met.subscribe()
    }

    pub(crate) fn own_id(&self) -> NodeId {
        self.tls.spiffe_id().node_id().clone()
    }
}
