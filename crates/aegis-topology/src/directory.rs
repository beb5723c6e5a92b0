use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aegis_core::ServiceInfo;
use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::snapshot::Contents;
use crate::{NodeEntry, Root, Snapshot, SyncState, TopologyVersion};

/// Who is in the mesh, as the nodes themselves said: the read handle. Cloning it is cheap, reading it takes no lock.
///
/// It does not show who is alive: a node that dies without a goodbye stays listed until its record expires, up to 12 h
/// after it was signed ([`NodeEntry::expires_at`]). Callers skip it by their own connections, and `explain` of a pool
/// or client shows what is reachable.
#[derive(Clone, Debug)]
pub struct Directory {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    current: ArcSwap<Snapshot>,
    /// The current epoch, sent after the snapshot is in place.
    epoch: watch::Sender<u64>,
}

impl Directory {
    /// The directory as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.current.load_full()
    }

    /// Which state the directory is in.
    pub fn version(&self) -> TopologyVersion {
        self.shared.current.load().version()
    }

    /// Follows the changes from now on; the latest counts, states in between may be skipped.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use std::sync::Arc;
    /// # use aegis_core::NodeId;
    /// # use aegis_topology::{Description, NodeEntry, Publisher, Root};
    /// # let publisher = Publisher::new();
    /// # let directory = publisher.directory();
    /// # let nobody = Description::default();
    /// let mut watch = directory.watch();
    /// let before = directory.snapshot(); // after `watch`, so that no change falls between the two
    /// # assert!(before.nodes().is_empty());
    /// // .. a node joins ..
    /// # let node = NodeEntry::fixed(NodeId::from_static("morpheus-1"), nobody);
    /// # publisher.publish(Root::default(), [Arc::new(node)]);
    /// let after = watch.changed().await;
    /// assert_eq!(after.nodes()[0].node_id(), "morpheus-1");
    /// # Ok(())
    /// # }
    /// ```
    pub fn watch(&self) -> Watch {
        Watch { epoch: self.shared.epoch.subscribe(), directory: self.clone() }
    }

    /// Waits for a state of the directory that satisfies `condition`, and returns it; at once where it is so already.
    ///
    /// `condition` is asked of the present state and after each change.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::time::Duration;
    ///
    /// use aegis_topology::{NodeState, Snapshot};
    /// # use aegis_core::NodeId;
    /// # use aegis_topology::{Description, NodeEntry, Publisher};
    /// # let node = NodeEntry::fixed(NodeId::from_static("morpheus-1"), Description::default());
    /// # let directory = Publisher::fixed([node]).directory();
    ///
    /// let id = "morpheus-1".parse()?;
    /// let is_there = |snapshot: &Snapshot| {
    ///     snapshot.node(&id).is_some_and(|node| node.state() == NodeState::Active)
    /// };
    /// directory.wait_for(is_there, Duration::from_secs(5)).await?;
    ///
    /// let late = directory.wait_for(|it| it.nodes().len() == 3, Duration::from_millis(10)).await.unwrap_err();
    /// assert_eq!(late.last.nodes().len(), 1); // what there was instead
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotInTime`] after `timeout`, with the last state.
    ///
    /// # Panics
    /// Outside a tokio runtime with its timer.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn wait_for(
        &self,
        mut condition: impl FnMut(&Snapshot) -> bool,
        timeout: Duration,
    ) -> Result<Arc<Snapshot>, NotInTime> {
        let mut watch = self.watch();
        let waiting = async {
            let mut snapshot = self.snapshot();
            while !condition(&snapshot) {
                snapshot = watch.changed().await;
            }
            snapshot
        };
        tokio::time::timeout(timeout, waiting)
            .await
            .map_err(|_| NotInTime { timeout, last: self.snapshot() })
    }

    /// Waits until at least `count` nodes advertise a service and take calls.
    ///
    /// It says nothing about connections to them.
    ///
    /// # Errors
    /// [`NotInTime`] after `timeout`.
    ///
    /// # Panics
    /// Outside a tokio runtime with its timer.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn wait_for_providers(
        &self,
        info: &ServiceInfo,
        count: usize,
        timeout: Duration,
    ) -> Result<Arc<Snapshot>, NotInTime> {
        self.wait_for(|snapshot| count <= snapshot.providers(info).len(), timeout).await
    }
}

/// Follows a [`Directory`]. A clone follows by itself, from the same change on.
#[derive(Clone, Debug)]
pub struct Watch {
    epoch: watch::Receiver<u64>,
    directory: Directory,
}

impl Watch {
    /// Waits for the next change and returns the directory after it; for ever once nobody publishes any more.
    ///
    /// # Cancel safety
    /// Dropping the future loses no change: the next call returns at once.
    pub async fn changed(&mut self) -> Arc<Snapshot> {
        // The sender lives in the directory that we hold; were it gone, there would be no change.
        if self.epoch.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.directory.snapshot()
    }
}

/// The writer of a [`Directory`]: whoever knows the nodes publishes them here.
///
/// Dropping it leaves the directory as it is: handles read on, and who watches waits for ever.
#[derive(Debug)]
pub struct Publisher {
    directory: Directory,
    contents: Mutex<Contents>,
}

impl Publisher {
    /// An empty directory, not yet synced.
    pub fn new() -> Self {
        let shared = Shared { current: ArcSwap::default(), epoch: watch::Sender::new(0) };
        let directory = Directory { shared: Arc::new(shared) };
        Self { directory, contents: Mutex::default() }
    }

    /// A directory that holds these nodes for good.
    pub fn fixed(nodes: impl IntoIterator<Item = NodeEntry>) -> Self {
        let publisher = Self::new();
        publisher.update(|contents| {
            contents.nodes = nodes.into_iter().map(Arc::new).collect();
            contents.sync = SyncState::Complete;
        });
        publisher
    }

    /// The read handle.
    pub fn directory(&self) -> Directory {
        self.directory.clone()
    }

    /// Replaces the nodes.
    pub fn publish(&self, root: Root, nodes: impl IntoIterator<Item = Arc<NodeEntry>>) {
        let nodes = nodes.into_iter().collect();
        self.update(|contents| {
            contents.root = root;
            contents.nodes = nodes;
        });
    }

    /// Says how far the first sync is; once it is complete it stays so.
    pub fn set_sync_state(&self, sync: SyncState) {
        self.update(|contents| {
            if contents.sync != SyncState::Complete {
                contents.sync = sync;
            }
        });
    }

    fn update(&self, change: impl FnOnce(&mut Contents)) {
        // The lock orders writers; a reader never takes it.
        let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut contents);
        let epoch = *self.directory.shared.epoch.borrow() + 1;
        let version = TopologyVersion { epoch, root: contents.root };
        let snapshot =
            Snapshot::new(version, contents.sync.clone(), contents.nodes.iter().cloned());
        self.directory.shared.current.store(Arc::new(snapshot));
        self.directory.shared.epoch.send_replace(epoch);
    }
}

impl Default for Publisher {
    fn default() -> Self {
        Self::new()
    }
}

/// The directory did not reach the awaited state in time.
///
/// `Debug` prints the text too, and not all of the directory, as a `main` that returns the error shows it.
#[derive(Clone, thiserror::Error)]
#[error(
    "after {timeout:?} the directory is not as awaited: it holds {} nodes and is {}",
    last.nodes().len(),
    if last.is_synced() { "synced" } else { "not synced yet" }
)]
#[non_exhaustive]
pub struct NotInTime {
    /// How long was waited.
    pub timeout: Duration,
    /// The directory then.
    pub last: Arc<Snapshot>,
}

impl fmt::Debug for NotInTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use aegis_core::NodeId;

    use super::*;
    use crate::{Description, Label, ServiceEntry};

    static IDENTITY: ServiceInfo = ServiceInfo::from_static("identity", "v1");

    fn node(id: &str) -> NodeEntry {
        let address = "127.0.0.1:1".parse().unwrap();
        let description =
            Description::new(Label::default(), [address], [ServiceEntry::new(IDENTITY.clone())])
                .unwrap();
        NodeEntry::fixed(NodeId::new(id).unwrap(), description)
    }

    #[test]
    fn providers_are_sorted_by_node_id() {
        let directory = Publisher::fixed(["c", "a", "b"].map(node)).directory();
        let snapshot = directory.snapshot();
        let ids: Vec<_> =
            snapshot.providers(&IDENTITY).iter().map(|node| node.node_id().as_str()).collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert!(snapshot.is_synced());
    }

    #[test]
    fn a_snapshot_reads_as_json() {
        let directory = Publisher::fixed([node("morpheus-1")]).directory();
        let json = serde_json::to_value(&*directory.snapshot()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "version": { "epoch": 1, "root": "0".repeat(32) },
                "sync": "complete",
                "nodes": [{
                    "node_id": "morpheus-1", "name": "", "addresses": ["127.0.0.1:1"], "state": "active",
                    "services": [{ "name": "identity", "version": "v1", "grpc_services": [], "weight": 100 }],
                    "incarnation": 0, "revision": 0, "joined_at": 0, "updated_at": 0,
                }],
            })
        );
    }

    #[tokio::test]
    async fn a_watcher_sees_the_latest_state_and_loses_none() {
        let publisher = Publisher::new();
        let mut watch = publisher.directory().watch();
        publisher.publish(Root::default(), [Arc::new(node("a"))]);
        publisher.publish(Root::default(), ["a", "b"].map(|id| Arc::new(node(id))));
        assert_eq!(watch.changed().await.nodes().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_providers_ends_with_them_or_says_what_is_there() {
        let publisher = Publisher::new();
        let directory = publisher.directory();
        let second = Duration::from_secs(1);
        let error = directory.wait_for_providers(&IDENTITY, 1, second).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "after 1s the directory is not as awaited: it holds 0 nodes and is not synced yet"
        );
        let waiting = directory.wait_for_providers(&IDENTITY, 1, second);
        let publishing = async { publisher.publish(Root::default(), [Arc::new(node("a"))]) };
        let (found, ()) = tokio::join!(waiting, publishing);
        assert_eq!(found.unwrap().providers(&IDENTITY).len(), 1);
    }
}
