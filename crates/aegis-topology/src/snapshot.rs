use std::collections::HashMap;
use std::sync::Arc;

use aegis_core::{Address, NodeId, ServiceInfo, ServiceName};
use serde::Serialize;

use crate::{NodeEntry, NodeState, Root, Timestamp, TopologyVersion};

/// The directory at one moment: immutable, shared, read without a lock.
///
/// Serialises with serde as version, sync state and nodes.
#[derive(Debug, Default, Serialize)]
pub struct Snapshot {
    version: TopologyVersion,
    sync: SyncState,
    /// Sorted by node id; those that left are kept apart.
    nodes: Box<[Arc<NodeEntry>]>,
    #[serde(skip)]
    left: Box<[Arc<NodeEntry>]>,
    #[serde(skip)]
    providers: HashMap<ServiceInfo, Arc<[Arc<NodeEntry>]>>,
}

impl Snapshot {
    /// Indexes a set of nodes; of two with one id the first stays.
    pub(crate) fn new(
        version: TopologyVersion,
        sync: SyncState,
        nodes: impl IntoIterator<Item = Arc<NodeEntry>>,
    ) -> Self {
        let mut nodes: Vec<_> = nodes.into_iter().collect();
        nodes.sort_by(|a, b| a.node_id().cmp(b.node_id()));
        nodes.dedup_by(|a, b| a.node_id() == b.node_id());
        let (left, nodes): (Vec<_>, Vec<_>) =
            nodes.into_iter().partition(|node| node.state() == NodeState::Left);
        let mut providers: HashMap<ServiceInfo, Vec<Arc<NodeEntry>>> = HashMap::new();
        for node in nodes.iter().filter(|node| node.state() == NodeState::Active) {
            for service in node.services() {
                match providers.get_mut(service.info()) {
                    Some(list) => list.push(Arc::clone(node)),
                    None => {
                        providers.insert(service.info().clone(), vec![Arc::clone(node)]);
                    }
                }
            }
        }
        Self {
            version,
            sync,
            nodes: nodes.into(),
            left: left.into(),
            providers: providers.into_iter().map(|(info, list)| (info, list.into())).collect(),
        }
    }

    /// Which state of the directory this is.
    pub fn version(&self) -> TopologyVersion {
        self.version
    }

    /// Whether the directory has once been compared with somebody else's, or there is nobody to compare with.
    ///
    /// Before that a service without providers may only be unknown yet.
    pub fn is_synced(&self) -> bool {
        matches!(self.sync, SyncState::Complete)
    }

    /// How far the first sync is, and what hinders it.
    pub fn sync_state(&self) -> &SyncState {
        &self.sync
    }

    /// The nodes that did not leave, sorted by node id.
    pub fn nodes(&self) -> &[Arc<NodeEntry>] {
        &self.nodes
    }

    /// A node by its id, also one that left not long ago (its [`state`](NodeEntry::state) says so).
    pub fn node(&self, node_id: &NodeId) -> Option<&Arc<NodeEntry>> {
        let find = |nodes: &[Arc<NodeEntry>]| {
            nodes.binary_search_by(|node| node.node_id().cmp(node_id)).ok()
        };
        match find(&self.nodes) {
            Some(at) => self.nodes.get(at),
            None => find(&self.left).and_then(|at| self.left.get(at)),
        }
    }

    /// The nodes that advertise a service and take calls, sorted by node id.
    pub fn providers(&self, info: &ServiceInfo) -> &[Arc<NodeEntry>] {
        self.providers.get(info).map_or(&[], |providers| providers)
    }

    /// The nodes that advertise any version of a service, draining ones too, sorted by node id.
    pub fn nodes_by_service<'a>(
        &'a self,
        name: &'a ServiceName,
    ) -> impl Iterator<Item = &'a Arc<NodeEntry>> {
        self.nodes
            .iter()
            .filter(move |node| node.services().iter().any(|service| service.info().name() == name))
    }
}

/// How far the first sync is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum SyncState {
    /// Nobody has answered completely yet.
    #[default]
    Pending,
    /// Nobody has answered yet, and these could not be reached; they are tried again.
    Failing(Arc<[SyncFailure]>),
    /// The directory has been compared with somebody else's, or there is nobody to compare with.
    Complete,
}

/// A seed that could not be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SyncFailure {
    /// The seed.
    pub address: Address,
    /// Why, for people.
    pub reason: Arc<str>,
    /// When it was last tried.
    pub at: Timestamp,
}

impl SyncFailure {
    /// A seed that could not be reached.
    pub fn new(address: Address, reason: impl Into<Arc<str>>, at: Timestamp) -> Self {
        Self { address, reason: reason.into(), at }
    }
}

/// What a snapshot is made of.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) root: Root,
    pub(crate) sync: SyncState,
    pub(crate) nodes: Vec<Arc<NodeEntry>>,
}
