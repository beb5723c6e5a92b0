use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aegis_gossip::{MemberStatus, PublishError};
use aegis_topology::NodeState;
use tokio::time::{timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::accept::Stages;
use crate::error::ServeError;
use crate::health::Health;
use crate::node::{Membership, Node};
use crate::stats::{Counters, ServerStats};
use crate::timer::after;

/// How long a drain waits for peers to hear of it, so that they stop picking this node before its connections close.
const ANNOUNCE: Duration = Duration::from_secs(2);
/// How long calls that were told to end, and then the last record, may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

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

    /// Serves until SIGINT or SIGTERM (elsewhere than on Unix: Ctrl-C), then shuts down; a second signal ends it at once.
    ///
    /// Signals are watched from the call on, before the future is polled. From then on, they no longer end the process
    /// by themselves.
    ///
    /// # Panics
    /// On Unix, outside a tokio runtime with I/O.
    ///
    /// # Errors
    /// [`ServeError`] if signals cannot be watched, or the server stopped by itself.
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
            tokio::select! {
                done = self.shutdown() => done,
                () = signals.next() => Ok(()),
            }
        }
    }

    /// Leaves the mesh without losing a call.
    ///
    /// In turn: peers hear that this node drains (2 s at most); no connection is accepted any more, and open ones
    /// are told to go away; calls run on until the drain timeout, then end with `UNAVAILABLE`; peers hear that the
    /// node left (1 s at most), and the node's own connections close. A stream that never ends does not hold it.
    /// The node's pools are closed with it, and it cannot be started again.
    ///
    /// # Errors
    /// [`ServeError`] if the server had stopped by itself.
    ///
    /// # Cancel safety
    /// Dropping the future stops the node at once.
    pub async fn shutdown(self) -> Result<(), ServeError> {
        let Self { node, serving, .. } = self;
        let Serving { mut task, stages, membership, health, drain_timeout, .. } = serving;
        if task.is_finished() {
            return Err(stopped(task.await));
        }
        let member = membership.member();
        let deadline = after(drain_timeout);
        health.set_listening(false).await;
        // Peers that do not hear of it see the connections go away.
        log(&node, member.set_state(NodeState::Draining, ANNOUNCE.min(drain_timeout)).await);
        // Their streams would hold the drain until its end.
        member.release_observers();
        stages.drain.cancel();
        let ended = if let Ok(ended) = timeout_at(deadline, &mut task).await {
            ended
        } else {
            stages.terminate.cancel();
            // Whoever does not read its last answer by then is cut.
            timeout(LAST_WORDS, &mut task).await.unwrap_or(Ok(()))
        };
        drop(task);
        log(&node, member.leave(LAST_WORDS).await);
        node.connections().close(LAST_WORDS).await;
        match ended {
            Ok(()) => Ok(()),
            Err(_) => Err(stopped(ended)),
        }
    }
}

fn log<T>(node: &Node, published: Result<T, PublishError>) {
    if let Err(error) = published {
        tracing::warn!(node = %node.id(), error = &error as &dyn std::error::Error, "peers were not told that this node leaves");
    }
}

fn stopped(ended: Result<(), tokio::task::JoinError>) -> ServeError {
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

/// SIGINT and SIGTERM; Ctrl-C elsewhere.
struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn new() -> std::io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
