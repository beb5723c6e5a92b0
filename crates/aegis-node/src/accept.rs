//! The accept loop: sockets in, authenticated connections out, whatever comes.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::NodeId;
use aegis_tls::{AcceptError, Accepted, Tls};
use aegis_transport::{BoxIo, Io as _, Listener};
use dashmap::DashMap;
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::activity::{Activity, Watched};
use crate::connection::{self, Shared};
use crate::dispatch::Routes;
use crate::limits::Limits;
use crate::muffle::Muffle;
use crate::stats::Counters;

/// A handshake whose peer has sent nothing for this long may be closed to make room.
const SILENT: Duration = Duration::from_millis(500);
/// How long accepting pauses when there are too many handshakes, all of them alive.
const PAUSE: Duration = Duration::from_millis(100);
/// The waits after a failed accept: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// Everything that the loop and its connections work with.
pub(crate) struct Acceptor {
    pub(crate) listener: Box<dyn Listener>,
    pub(crate) tls: Tls,
    pub(crate) routes: Arc<Routes>,
    pub(crate) limits: Limits,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stages: Stages,
}

/// The steps of a shutdown, each cancelled in its turn.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stages {
    /// No further connection is accepted, and each open one is told to go away.
    pub(crate) drain: CancellationToken,
    /// Calls that still run are ended.
    pub(crate) terminate: CancellationToken,
}

impl Acceptor {
    /// Runs the loop on a task that ends with its handle.
    pub(crate) fn spawn(self) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(tokio::spawn(self.run()))
    }

    /// Accepts until the drain begins, then waits for the open connections to end.
    ///
    /// Dropping the future closes everything.
    async fn run(mut self) {
        let mut state = State {
            handshakes: JoinSet::new(),
            pending: VecDeque::new(),
            connections: JoinSet::new(),
            identities: Arc::default(),
            warned: Muffle::default(),
        };
        let mut backoff = BACKOFF.0;
        let mut paused: Option<Duration> = None;
        loop {
            let listener = &mut self.listener;
            tokio::select! {
                () = self.stages.drain.cancelled() => break,
                () = sleep(paused.unwrap_or_default()), if paused.is_some() => paused = None,
                Some(done) = state.handshakes.join_next_with_id(), if !state.handshakes.is_empty() => {
                    let id = match &done { Ok((id, _)) => *id, Err(error) => error.id() };
                    state.pending.retain(|pending| pending.id != id);
                    if let Ok((_, handshake)) = done {
                        self.finish(handshake, &mut state);
                    }
                }
                Some(_) = state.connections.join_next(), if !state.connections.is_empty() => {}
                accepted = listener.accept(), if paused.is_none() => match accepted {
                    Ok(io) => {
                        backoff = BACKOFF.0;
                        if self.limits.handshakes <= state.pending.len() && !state.evict(&self.counters) {
                            // An honest herd: it waits in the backlog while handshakes finish.
                            paused = Some(PAUSE);
                        }
                        self.begin(io, &mut state);
                    }
                    Err(error) => {
                        // Out of descriptors or memory, or a peer that left again: neither spin nor stop.
                        if state.warned.admit("accept", "error") {
                            tracing::warn!(%error, "cannot accept connections");
                        }
                        paused = Some(backoff);
                        backoff = (backoff * 2).min(BACKOFF.1);
                    }
                },
            }
        }
        drop(self.listener);
        state.handshakes.abort_all();
        while state.connections.join_next().await.is_some() {}
    }

    /// Starts a handshake off the loop.
    fn begin(&self, io: BoxIo, state: &mut State) {
        let (remote, local) = (io.peer_addr(), io.local_addr());
        let (io, activity) = Watched::new(io);
        let tls = self.tls.clone();
        let limit = self.limits.handshake_timeout;
        let task = state.handshakes.spawn(async move {
            let result = timeout(limit, tls.accept(io)).await.ok();
            Handshake { remote, local, result }
        });
        state.pending.push_back(Pending { id: task.id(), activity, task });
    }
    /// Turns a finished handshake into a connection, unless there are too many.
    fn finish(&self, handshake: Handshake, state: &mut State) {
        let Handshake { remote, local, result } = handshake;
        let mut refused = |reason: &'static str, text: &dyn std::fmt::Display| {
            self.counters.refused.add(1);
            let peer =
                remote.map_or_else(|| "unknown".to_owned(), |remote| remote.ip().to_string());
            if state.warned.admit(&peer, reason) {
                tracing::warn!(peer, reason, "refused a connection: {text}");
            }
        };
        let Accepted { stream, caller, .. } = match result {
            Some(Ok(accepted)) => accepted,
            Some(Err(error)) => return refused(error.reason(), &error),
            None => {
                return refused(
                    "timeout",
                    &format_args!(
                        "the handshake was not finished within {:?}",
                        self.limits.handshake_timeout
                    ),
                );
            }
        };
        let identity = Identity::enter(&state.identities, caller.node_id());
        if self.limits.connections <= state.connections.len()
            || self.limits.connections_per_identity < identity.count
        {
            self.counters.over_limit.add(1);
            if state.warned.admit(caller.node_id().as_str(), "limit") {
                tracing::warn!(peer = %caller.node_id(), open = state.connections.len(), of_this_peer = identity.count, "closed a connection: there are too many");
            }
            return;
        }
        let open = self.counters.open();
        let shared = Shared {
            routes: Arc::clone(&self.routes),
            message_bytes: self.limits.message_bytes,
            header_bytes: usize::try_from(self.limits.header_list_bytes).unwrap_or(usize::MAX),
            terminate: self.stages.terminate.child_token(),
            counters: Arc::clone(&self.counters),
            caller,
            remote,
            local,
        };
        let (limits, drain) = (self.limits.clone(), self.stages.drain.clone());
        state.connections.spawn(async move {
            connection::serve(stream, shared, limits, drain).await;
            drop((open, identity));
        });
    }
}

/// What the loop keeps count of.
struct State {
    handshakes: JoinSet<Handshake>,
    /// Handshakes under way, oldest first.
    pending: VecDeque<Pending>,
    connections: JoinSet<()>,
    identities: Arc<DashMap<NodeId, usize>>,
    warned: Muffle,
}

impl State {
    /// Closes the oldest handshake whose peer is silent; false where there is none.
    fn evict(&mut self, counters: &Counters) -> bool {
        let now = Instant::now();
        let Some(silent) =
            self.pending.iter().position(|pending| pending.activity.last() + SILENT < now)
        else {
            return false;
        };
        if let Some(pending) = self.pending.remove(silent) {
            pending.task.abort();
            counters.evicted.add(1);
        }
        true
    }
}

struct Pending {
    id: Id,
    activity: Activity,
    task: AbortHandle,
}

struct Handshake {
    remote: Option<SocketAddr>,
    local: Option<SocketAddr>,
    result: Option<Result<Accepted<Watched<BoxIo>>, AcceptError>>,
}

/// One connection of a node id, counted while it lives.
struct Identity {
    counts: Arc<DashMap<NodeId, usize>>,
    id: NodeId,
    count: usize,
}

impl Identity {
    fn enter(counts: &Arc<DashMap<NodeId, usize>>, id: &NodeId) -> Self {
        let mut entry = counts.entry(id.clone()).or_default();
        *entry += 1;
        Self { counts: Arc::clone(counts), id: id.clone(), count: *entry }
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        if let Some(mut count) = self.counts.get_mut(&self.id) {
            *count -= 1;
        }
        self.counts.remove_if(&self.id, |_, count| *count == 0);
    }
}
