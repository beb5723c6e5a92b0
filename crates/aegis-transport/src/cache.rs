use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aegis_core::{Address, NodeId};
use aegis_tls::Tls;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::DialError;
use crate::http2::dial::{Dialled, Dialler};
use crate::keeper::Keeper;
use crate::link::Link;
use crate::network::Network;
use crate::node::{About, Adopted, Node};
use crate::past::{Past, Trouble};
use crate::rows::Rows;
use crate::settings::Settings;
use crate::signals::Changes;
use crate::task::report;

/// The connections of a process, one entry per node, whoever uses them.
///
/// A clone is the same set. Dropping the last clone cuts every connection; [`close`](Self::close) ends them in order.
#[derive(Clone)]
pub struct Connections {
    owner: Arc<Owner>,
}

/// Owns the tasks, which own the connections; no task holds it.
struct Owner {
    dialler: Arc<Dialler>,
    registry: Arc<Registry>,
    /// `None` once they are being closed.
    keepers: Mutex<Option<JoinSet<()>>>,
    changed: watch::Sender<()>,
    closed: Arc<AtomicBool>,
}

/// The nodes that somebody wants, or whose last streams are still running.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    nodes: DashMap<NodeId, Arc<Node>>,
    /// What is known of nodes that could not be reached and that nobody wants now.
    past: Past,
    pub(crate) rows: Rows,
}

impl Registry {
    /// Removes a node that nobody wants; `false` when somebody does, meanwhile.
    ///
    /// What its keeper has learned of it is there before anybody can ask for it again.
    pub(crate) fn forget(
        &self,
        node: &Arc<Node>,
        learned: impl FnOnce() -> Option<Trouble>,
    ) -> bool {
        let unwanted = |_: &NodeId, known: &Arc<Node>| {
            let gone = Arc::ptr_eq(known, node) && !known.is_wanted();
            if gone && let Some(trouble) = learned() {
                self.past.remember(node.id.clone(), trouble);
            }
            gone
        };
        self.nodes.remove_if(&node.id, unwanted).is_some()
    }
}

/// A node that is to be reached.
#[derive(Debug, Clone)]
pub struct Target {
    node: NodeId,
    addresses: Vec<Address>,
    foreign: bool,
    record: (u64, u64),
}

impl Target {
    /// A node of an aegis mesh, and where it listens.
    pub fn new(node: NodeId, addresses: Vec<Address>) -> Self {
        Self { node, addresses, foreign: false, record: (0, 0) }
    }

    /// The number of the record that says so, its incarnation and its revision: one that is higher than any before ends a
    /// backoff, also where the addresses are the same.
    #[must_use]
    pub fn record(mut self, incarnation: u64, revision: u64) -> Self {
        self.record = (incarnation, revision);
        self
    }

    /// The server is not aegis: it is asked only every 5 min whether it lives.
    #[must_use]
    pub fn foreign(mut self) -> Self {
        self.foreign = true;
        self
    }
}

impl Connections {
    /// No connection yet, and no task.
    pub fn new(tls: Tls, network: Arc<dyn Network>, settings: Settings) -> Self {
        let owner = Owner {
            dialler: Arc::new(Dialler { tls, network, settings }),
            registry: Arc::default(),
            keepers: Mutex::new(Some(JoinSet::new())),
            changed: watch::Sender::new(()),
            closed: Arc::default(),
        };
        Self { owner: Arc::new(owner) }
    }

    /// Another set with the same certificate, network and settings, and nothing in it: for connections that must not be shared,
    /// such as one to a process that claims to be this node.
    #[must_use]
    pub fn apart(&self) -> Self {
        let dialler = &self.owner.dialler;
        let (tls, network) = (dialler.tls.clone(), Arc::clone(&dialler.network));
        Self::new(tls, network, dialler.settings.clone())
    }

    /// Asks for a node to be connected, in the background.
    ///
    /// A node that somebody asks for already is the same one: the target's addresses replace the known ones, and whether it is foreign
    /// was settled by the first.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn link(&self, target: Target) -> Link {
        let addresses = target.addresses.clone();
        let record = target.record;
        let (node, known) = self.hold(target, None);
        if known {
            node.learn(addresses, record);
        }
        Link::held(node, self.owner.dialler.settings.wait)
    }

    /// Dials an address of which it is not known who listens there, learns the node's id and keeps the connection under it.
    ///
    /// Any member of the own trust domain may answer. There is no retry: the caller knows what a seed is worth.
    /// The link is connected when it is returned, unless the peer has gone away already.
    ///
    /// # Errors
    ///
    /// [`DialError`], within [`Settings::dial_limit`]; [`DialError::OwnNode`] where we answered ourselves.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn dial_seed(&self, address: &Address) -> Result<Link, DialError> {
        if self.is_closed() {
            return Err(DialError::Closed);
        }
        let addresses = vec![address.clone()];
        let dialled = self.owner.dialler.dial(None, &addresses).await?;
        let id = dialled.peer.node_id().clone();
        if id == *self.owner.dialler.tls.spiffe_id().node_id() {
            return Err(DialError::OwnNode { address: address.clone() });
        }
        self.adopt(Target::new(id, addresses), dialled).await
    }

    /// Dials a node once, now, whatever was tried before; the node is kept connected from then on.
    ///
    /// A failure is the caller's to report: the log says nothing of it, and nothing is dialled again.
    ///
    /// # Errors
    ///
    /// [`DialError`], within [`Settings::dial_limit`]; of several addresses that of the one that tells most.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the attempt up.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn dial(&self, target: Target) -> Result<Link, DialError> {
        if self.is_closed() {
            return Err(DialError::Closed);
        }
        let dialled = self.owner.dialler.dial(Some(&target.node), &target.addresses).await?;
        self.adopt(target, dialled).await
    }

    /// Hands a connection to the node's keeper, and waits until it is known.
    async fn adopt(&self, target: Target, dialled: Dialled) -> Result<Link, DialError> {
        if self.is_closed() {
            return Err(DialError::Closed);
        }
        let (adopted, taken_over) = Adopted::new(dialled);
        let (node, _) = self.hold(target, Some(adopted));
        let link = Link::held(node, self.owner.dialler.settings.wait);
        let mut changes = link.changes();
        let closed = async {
            while !self.is_closed() {
                changes.changed().await;
            }
        };
        tokio::select! {
            // Says so by dropping its end.
            _ = taken_over => Ok(link),
            () = closed => Err(DialError::Closed),
        }
    }

    /// The node with one more hold on it, and whether it was known.
    fn hold(&self, target: Target, adopted: Option<Adopted>) -> (Arc<Node>, bool) {
        let owner = &self.owner;
        let Target { node: id, addresses, foreign, record } = target;
        // The entry is locked until the hold is taken: its keeper cannot end in between.
        let (node, known) = match owner.registry.nodes.entry(id) {
            Entry::Occupied(entry) => {
                let node = Arc::clone(entry.get());
                node.hold();
                (node, true)
            }
            Entry::Vacant(entry) => {
                let about = About { id: entry.key().clone(), foreign, addresses, record };
                let past = owner.registry.past.recall(&about);
                let (changed, closed) = (owner.changed.clone(), Arc::clone(&owner.closed));
                let node = Arc::new(Node::new(about, past, changed, closed));
                node.hold();
                if !self.is_closed() {
                    entry.insert(Arc::clone(&node));
                }
                (node, false)
            }
        };
        // Before its keeper starts, which would dial it once more.
        if let Some(adopted) = adopted {
            node.adopt(adopted);
        }
        if !known {
            owner.keep(&node);
        }
        (node, known)
    }

    /// Ends in order: takes no new calls, waits for the open streams, for `grace` at most, and closes.
    ///
    /// Streams that are still open then are cut. A second call returns at once.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cuts at once what is left.
    pub async fn close(&self, grace: Duration) {
        let owner = &self.owner;
        owner.closed.store(true, Ordering::SeqCst);
        for node in &owner.registry.nodes {
            node.signals.wake_keeper();
            node.signals.changed();
        }
        // Whoever was first waits, and keeps the nodes in the registry until their keepers have found them there.
        let Some(mut keepers) = lock(&owner.keepers).take() else {
            return;
        };
        let all = async {
            while let Some(ended) = keepers.join_next().await {
                report(ended);
            }
        };
        // What the grace did not suffice for ends with the set.
        drop(tokio::time::timeout(grace, all).await);
        drop(keepers);
        owner.registry.nodes.clear();
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.owner.closed.load(Ordering::SeqCst)
    }

    /// Reports when the status of any link changes; a slot that becomes free is told to [`Link::changes`] only.
    pub fn changes(&self) -> Changes {
        Changes::new(self.owner.changed.subscribe())
    }
}

impl Owner {
    fn keep(&self, node: &Arc<Node>) {
        let mut keepers = lock(&self.keepers);
        let Some(keepers) = &mut *keepers else {
            return;
        };
        while let Some(ended) = keepers.try_join_next() {
            report(ended);
        }
        let (registry, dialler) = (Arc::clone(&self.registry), Arc::clone(&self.dialler));
        keepers.spawn(Keeper::new(Arc::clone(node), registry, dialler).run());
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        for node in &self.registry.nodes {
            node.signals.changed();
        }
        self.registry.nodes.clear();
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections")
            .field("nodes", &self.owner.registry.nodes.len())
            .field("closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
