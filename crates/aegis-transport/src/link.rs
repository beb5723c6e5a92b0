use std::sync::Arc;
use std::time::{Duration, Instant};

use aegis_core::{Address, NodeId};

use crate::channel::NodeChannel;
use crate::error::{DialError, Unavailable};
use crate::http2::slot::Slot;
use crate::lane::Lane;
use crate::node::{Dialling, Node};
use crate::signals::{Changes, LinkCounters};

/// The wish to be connected to one node; a clone is the same wish.
///
/// While a link to a node exists, it is dialled in the background and kept connected.
/// When the last one is dropped, idle connections close at once and busy ones when their streams have ended.
#[derive(Debug, Clone)]
pub struct Link(Arc<Held>);

#[derive(Debug)]
struct Held {
    node: Arc<Node>,
    /// Waiting time of calls without a deadline.
    wait: Duration,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.node.let_go();
    }
}

impl Link {
    /// Takes over one hold of the node.
    pub(crate) fn held(node: Arc<Node>, wait: Duration) -> Self {
        Self(Arc::new(Held { node, wait }))
    }

    /// The node it leads to.
    pub fn node_id(&self) -> &NodeId {
        &self.0.node.id
    }

    /// Where the node is dialled from now on, in this order; addresses that differ from those before end a backoff.
    ///
    /// Connections that exist stay: whatever their address, they lead to this node.
    pub fn set_addresses(&self, addresses: Vec<Address>) {
        self.0.node.set_addresses(addresses);
    }

    /// The same, as a record of the node says it: one with a higher number than any before ends a backoff, too.
    ///
    /// A higher incarnation is another run of the node: connections to an address that it does not name are replaced, make
    /// before break.
    pub fn set_record(&self, addresses: Vec<Address>, incarnation: u64, revision: u64) {
        self.0.node.learn(addresses, (incarnation, revision));
    }

    /// Ends a backoff: something was heard of the node.
    pub fn retry(&self) {
        self.0.node.retry();
    }

    /// What is the matter with the node.
    pub fn status(&self) -> LinkStatus {
        let node = &self.0.node;
        if node.signals.is_closed() {
            return LinkStatus::Closed;
        }
        let all = node.connections();
        let open: Vec<_> = all.iter().filter(|connection| connection.is_open()).collect();
        if !open.is_empty() {
            return LinkStatus::Connected {
                connections: open.len(),
                in_flight: open.iter().map(|it| it.in_flight()).sum(),
                slots: open.iter().map(|it| it.limit()).sum(),
                stalled: open.iter().all(|it| it.is_stalled()),
            };
        }
        match node.dialling() {
            Dialling::Now { failures, error } => LinkStatus::Connecting { failures, error },
            Dialling::Later { failures, at, error } => {
                LinkStatus::Backoff { failures, retry_at: at.into(), error }
            }
        }
    }

    /// Whether a connection is up, stalled or full as it may be.
    pub fn is_connected(&self) -> bool {
        !self.0.node.signals.is_closed()
            && self.0.node.connections().iter().any(|connection| connection.is_open())
    }

    /// How many streams are open to the node, those of leaving connections not counted.
    pub fn in_flight(&self) -> usize {
        self.0.node.connections().iter().map(|connection| connection.in_flight()).sum()
    }

    /// What has happened so far.
    pub fn counters(&self) -> LinkCounters {
        self.0.node.signals.counters.read()
    }

    /// Takes a slot for one stream, on the connection that carries least.
    ///
    /// Never waits; [`acquire`](Self::acquire) does.
    ///
    /// # Errors
    ///
    /// [`Unavailable`] says why there is none now; [`changes`](Self::changes) says when to look again.
    pub fn try_acquire(&self) -> Result<Slot, Unavailable> {
        self.0.node.lease(false).map(Slot::new)
    }

    /// Like [`try_acquire`](Self::try_acquire), but takes a node that does not answer where there is no other:
    /// it may be merely busy.
    ///
    /// # Errors
    ///
    /// [`Unavailable`], never [`Unavailable::Stalled`].
    pub fn try_acquire_stalled(&self) -> Result<Slot, Unavailable> {
        self.0.node.lease(true).map(Slot::new)
    }

    /// Its connection, if it has one and no other now.
    pub fn lane(&self) -> Option<Lane> {
        match &**self.0.node.connections() {
            [connection] => Some(Lane::on(Arc::clone(connection))),
            _ => None,
        }
    }

    /// Waits in line for a slot: those who wait get the slots that become free in the order in which they came.
    ///
    /// Waits as long as it takes, also while the node is not connected, does not answer or was closed:
    /// whoever has other ways or a deadline races it with them and with [`changes`](Self::changes).
    /// It does not keep the link, and it has to be polled as long as it lives: a slot that was given to it waits inside.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future gives the place up; a slot that has just come goes to the next in line.
    pub fn acquire(&self) -> impl Future<Output = Slot> + Send + use<> {
        let node = Arc::clone(&self.0.node);
        async move { Slot::new(node.wait_for_lease().await) }
    }

    /// Waits until the node is connected, or the attempt that is under way has failed; says how it stands then.
    ///
    /// Ends within the limit of a dial. A node in backoff is not waited for.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing: the attempt goes on.
    pub async fn settled(&self) -> LinkStatus {
        let mut changes = self.changes();
        loop {
            let status = self.status();
            if !matches!(status, LinkStatus::Connecting { .. }) {
                return status;
            }
            changes.changed().await;
        }
    }

    /// Reports when the status changes, and when a slot becomes free that nobody [waits for in line](Self::acquire).
    pub fn changes(&self) -> Changes {
        self.0.node.signals.changes()
    }

    /// A service that sends its calls to this node alone; it holds this link.
    pub fn channel(&self) -> NodeChannel {
        NodeChannel::new(self.clone(), self.0.wait)
    }
}

/// How it stands with a node.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum LinkStatus {
    /// No connection, and the next attempt has failed already so often.
    #[non_exhaustive]
    Backoff {
        /// Attempts that failed in a row.
        failures: u32,
        /// When the next one starts.
        retry_at: Instant,
        /// What the last one ended with.
        error: Arc<DialError>,
    },
    /// The connections of this process are closed.
    Closed,
    /// At least one connection is up.
    #[non_exhaustive]
    Connected {
        /// How many, those that are leaving not counted.
        connections: usize,
        /// Streams that are open on them.
        in_flight: usize,
        /// Streams that they may carry.
        slots: usize,
        /// On none of them the peer answers.
        stalled: bool,
    },
    /// An attempt is under way, or due within moments.
    #[non_exhaustive]
    Connecting {
        /// Attempts that failed in a row before it.
        failures: u32,
        /// What the last one ended with.
        error: Option<Arc<DialError>>,
    },
}
