use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aegis_gossip::{MemberStatus, PublishError};
use aegis_topology::NodeState;
use tokio::task::JoinError;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::accept::Stages;
use crate::error::ServeError;
use crate::health::{Health, Phase};
use crate::node::{Membership, Node};
use crate::probe::Probing;
use crate::signals::Signals;
use crate::stats::{Counters, ServerStats};
use crate::timer::{after, later};

/// How long a drain waits for peers to hear of it, so that they stop picking this node before its connections close.
const ANNOUNCE: Duration = Duration::from_secs(2);
/// How long the last record may take to reach peers, where there is time left.
const LEAVE: Duration = Duration::from_secs(1);
/// How long calls that were told to end may take. What was written by then still arrives, since the kernel sends it.
const LAST_WORDS: Duration = Duration::from_millis(80);

/// A node that listens.
///
/// Dropping it stops the node at once, as a crash would; [`shutdown`](Self::shutdown) loses no call.
#[must_use = "dropping a server stops it"]
pub struct Server {
    node: Node,
    local: SocketAddr,
    serving: Serving,
}

pub(crate) struct Serving {
    pub(crate) task: AbortOnDropHandle<()>,
    pub(crate) probe: Option<Probing>,
    pub(crate) stages: Stages,
    pub(crate) counters: Arc<Counters>,
    pub(crate) membership: Membership,
    pub(crate) health: Health,
    pub(crate) drain_timeout: Duration,
}

impl Server {
    pub(crate) fn new(node: Node, local: SocketAddr, serving: Serving) -> Self {
        Self { node, local, serving }
    }

    /// The address that was bound, with the port the system chose.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Where the [probe](crate::NodeBuilder::probe) was bound, if there is one.
    pub fn probe_addr(&self) -> Option<SocketAddr> {
        self.serving.probe.as_ref().map(|probe| probe.local)
    }

    /// The node that listens.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The server's counters.
    pub fn stats(&self) -> ServerStats {
        self.serving.counters.read(self.node.parsed_certificates())
    }

    /// How this node stands in the directory: another process with its id may have displaced it, which the operator has to
    /// mend.
    pub fn membership(&self) -> MemberStatus {
        self.serving.membership.member().status()
    }

    /// Serves until SIGINT or SIGTERM (elsewhere than on Unix: Ctrl-C), then [shuts down](Self::shutdown); a second
    /// signal ends it at once.
    ///
    /// Signals are watched from the call on, before the future is polled. From then on, they no longer end the process
    /// by themselves. A `main` that returns the outcome tells it by its exit status: 0 where the node has left the mesh, 1
    /// where it was forced, or stopped by itself.
    ///
    /// # Panics
    /// On Unix, outside a tokio runtime with I/O.
    ///
    /// # Errors
    /// [`ServeError::Forced`] after a second signal; any other [`ServeError`] if signals cannot be watched, or the server
    /// stopped by itself.
    ///
    /// # Cancel safety
    /// Dropping the future stops the node at once.
    pub fn run_until_signal(mut self) -> impl Future<Output = Result<(), ServeError>> + Send {
        let signals = Signals::new();
        async move {
            let mut signals = signals.map_err(|source| ServeError::Signal { source })?;
            tokio::select! {
                () = signals.next() => {}
                ended = &mut self.serving.task => return Err(stopped(ended)),
            }
            tracing::info!(node = %self.node.id(), "draining");
            self.end(signals.next()).await
        }
    }

    /// Leaves the mesh without losing a call.
    ///
    /// In turn: the node's record says that it drains, and is pushed to peers; health checks are answered `NOT_SERVING`,
    /// and the [probe](crate::NodeBuilder::probe) says the same; peers have 2 s at most to acknowledge, while calls go on
    /// and connections are accepted; none is accepted any more, and open ones are told to go away; calls run on until the
    /// drain timeout, then end with `UNAVAILABLE`; peers hear that the node left (1 s at most), and the node's own
    /// connections close.
    /// The node's pools are closed with it, and it cannot be started again.
    ///
    /// All of it takes the [drain timeout](crate::NodeBuilder::drain_timeout) and a tenth of a second at most, whatever
    /// peers do: neither a stream that never ends nor a peer that reads nothing holds it. How many calls were ended is
    /// logged, and is no error.
    ///
    /// # Errors
    /// [`ServeError`] if the server had stopped by itself.
    ///
    /// # Cancel safety
    /// Dropping the future stops the node at once.
    pub async fn shutdown(self) -> Result<(), ServeError> {
        self.end(std::future::pending()).await
    }

    /// Shuts down, or is cut short by `force`.
    async fn end(self, force: impl Future<Output = ()>) -> Result<(), ServeError> {
        let Self { node, mut serving, .. } = self;
        if serving.task.is_finished() {
            return Err(stopped(serving.task.await));
        }
        let ended = tokio::select! {
            biased;
            ended = serving.drain(&node) => Some(ended),
            () = force => None,
        };
        let Some(ended) = ended else {
            // A task must not be waited for twice.
            if !serving.task.is_finished() {
                drop(terminate(&mut serving.task, &serving.stages).await);
            }
            let calls = serving.counters.terminated.get();
            tracing::warn!(node = %node.id(), calls, "ended at once");
            return Err(ServeError::Forced { calls });
        };
        match ended {
            Ok(()) => Ok(()),
            Err(_) => Err(stopped(ended)),
        }
    }
}

impl Serving {
    /// Goes through the steps of a shutdown, and says how the accept loop ended.
    async fn drain(&mut self, node: &Node) -> Result<(), JoinError> {
        let calls_end = after(self.drain_timeout);
        let end = later(calls_end, LAST_WORDS);
        // First of all, though nothing waits in between: who asks whether to send new calls here hears no before anybody
        // else acts on it.
        self.health.enter(Phase::Draining);
        let publish = self
            .membership
            .member()
            .set_state(NodeState::Draining, ANNOUNCE.min(self.drain_timeout));
        // Peers that do not hear of it see the connections go away.
        let (published, ()) = tokio::join!(publish, self.health.tell());
        log(node, published);
        // Their streams would hold the drain until its end.
        self.membership.member().release_observers();
        self.stages.drain.cancel();
        let ended = if let Ok(ended) = timeout_at(calls_end, &mut self.task).await {
            let leave = self.membership.member().leave(LEAVE.min(end - Instant::now()));
            log(node, leave.await);
            ended
        } else {
            let before = self.counters.terminated.get();
            let leave = self.membership.member().leave(LAST_WORDS);
            let (ended, left) = tokio::join!(terminate(&mut self.task, &self.stages), leave);
            log(node, left);
            let calls = self.counters.terminated.get() - before;
            tracing::warn!(node = %node.id(), calls, "ended calls: the time to drain is over");
            ended
        };
        node.connections().close(LEAVE.min(end - Instant::now())).await;
        ended
    }
}

/// Ends all calls; whoever does not read its last answer by then is cut.
async fn terminate(task: &mut AbortOnDropHandle<()>, stages: &Stages) -> Result<(), JoinError> {
    stages.drain.cancel();
    stages.terminate.cancel();
    timeout(LAST_WORDS, task).await.unwrap_or(Ok(()))
}

fn log<T>(node: &Node, published: Result<T, PublishError>) {
    if let Err(error) = published {
        tracing::warn!(node = %node.id(), error = &error as &dyn std::error::Error, "peers were not told that this node leaves");
    }
}

fn stopped(ended: Result<(), JoinError>) -> ServeError {
    ServeError::Stopped { source: ended.err().map(Into::into) }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("node", self.node.id())
            .field("local", &self.local)
            .finish_non_exhaustive()
    }
}
