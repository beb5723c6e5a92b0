//! The accept loop: sockets in, authenticated connections out, whatever comes.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::{Chain, NodeId};
use aegis_tls::{AcceptError, Accepted, Tls};
use aegis_transport::{BoxIo, HeaderList, Heard, Inspected, Io as _, Listener};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::dispatch::Routes;
use crate::http2::connection::{self, NoHttp2, Shared};
use crate::identities::Identities;
use crate::limits::Limits;
use crate::muffle::Muffle;
use crate::stats::Counters;
use crate::turn::Places;

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
    pub(crate) places: Arc<Places>,
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
        let mut state = State::new(Arc::clone(&self.counters));
        let mut backoff = BACKOFF.0;
        // A moment, not a wait: whatever else happens in the meantime must not make a pause longer.
        let mut pause: Option<Pause> = None;
        loop {
            let until = pause.as_ref().map_or_else(Instant::now, |pause| pause.until);
            let listener = &mut self.listener;
            tokio::select! {
                () = self.stages.drain.cancelled() => break,
                () = sleep_until(until), if pause.is_some() => pause = None,
                Some(done) = state.handshakes.join_next_with_id(), if !state.handshakes.is_empty() => {
                    self.settle(done, &mut state);
                    if pause.as_ref().is_some_and(|pause| pause.for_room)
                        && state.pending.len() < self.limits.handshakes
                    {
                        pause = None;
                    }
                }
                Some(ended) = state.connections.join_next(), if !state.connections.is_empty() => {
                    state.ended(ended);
                }
                accepted = listener.accept(), if pause.is_none() => match accepted {
                    Ok(io) => {
                        backoff = BACKOFF.0;
                        if self.limits.handshakes <= state.pending.len() && !state.evict() {
                            // An honest herd: it waits in the backlog while handshakes finish.
                            pause = Some(Pause { until: Instant::now() + PAUSE, for_room: true });
                        }
                        self.begin(io, &mut state);
                    }
                    Err(error) if left_already(&error) => {}
                    Err(error) => {
                        // Out of descriptors or memory: neither spin nor stop, and take back what silent peers hold.
                        if state.warned.admit("accept", "error") {
                            tracing::warn!(%error, "cannot accept connections");
                        }
                        state.evict();
                        pause = Some(Pause { until: Instant::now() + backoff, for_room: false });
                        backoff = (backoff * 2).min(BACKOFF.1);
                    }
                },
            }
        }
        drop(self.listener);
        // With those that finished unseen: nobody is going to serve them.
        drop(state.handshakes);
        while let Some(ended) = state.connections.join_next().await {
            tell_panic(&ended);
        }
    }

    /// Starts a handshake off the loop.
    fn begin(&self, io: BoxIo, state: &mut State) {
        let (remote, local) = (io.peer_addr(), io.local_addr());
        let (io, heard) = Heard::on(io);
        let tls = self.tls.clone();
        let limit = self.limits.handshake_timeout;
        let task = state.handshakes.spawn(async move {
            let result = timeout(limit, tls.accept(io)).await.ok();
            Handshake { remote, local, result }
        });
        state.pending.push_back(Pending { id: task.id(), remote, heard, task });
    }

    /// Takes a handshake that ended, well or not, off the list.
    fn settle(&self, done: Result<(Id, Handshake), JoinError>, state: &mut State) {
        let id = match &done {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        state.pending.retain(|pending| pending.id != id);
        tell_panic(&done);
        if let Ok((_, handshake)) = done {
            self.finish(handshake, state);
        }
    }

    /// Turns a finished handshake into a connection, unless there are too many.
    fn finish(&self, handshake: Handshake, state: &mut State) {
        let Handshake { remote, local, result } = handshake;
        let Accepted { stream, caller, .. } = match result {
            Some(Ok(accepted)) => accepted,
            Some(Err(error @ AcceptError::Io { .. })) => return state.lost(remote, &error),
            Some(Err(error)) => {
                let text = Chain::new(&error);
                return state.refused(remote, None, error.reason(), &text);
            }
            None => {
                let limit = self.limits.handshake_timeout;
                let text = format_args!("the handshake was not finished within {limit:?}");
                return state.refused(remote, None, "timeout", &text);
            }
        };
        // Those that ended are no reason to refuse this one.
        while let Some(ended) = state.connections.try_join_next() {
            state.ended(ended);
        }
        let held = state.identities.enter(caller.node_id());
        if self.limits.connections <= state.connections.len()
            || self.limits.connections_per_identity < held.count
        {
            self.counters.over_limit.add(1);
            if state.warned.admit(caller.node_id().as_str(), "limit") {
                tracing::warn!(peer = %address(remote), node = %caller.node_id(), open = state.connections.len(), of_this_node = held.count, "closed a connection: there are too many");
            }
            return;
        }
        let open = self.counters.open();
        let node = caller.node_id().clone();
        let shared = Shared {
            routes: Arc::clone(&self.routes),
            message_bytes: self.limits.message_bytes,
            stream_window: self.limits.stream_window,
            header_bytes: self.limits.header_list_bytes,
            header_list: HeaderList::default(),
            terminate: self.stages.terminate.child_token(),
            counters: Arc::clone(&self.counters),
            places: Arc::clone(&self.places),
            caller,
            remote,
            local,
        };
        let (limits, drain) = (self.limits.clone(), self.stages.drain.clone());
        state.connections.spawn(async move {
            let result = connection::serve(stream, shared, limits, drain).await;
            drop((open, held));
            Ended { remote, node, result }
        });
    }
}

/// The peer left before it was accepted: the failure is that connection's, not the listener's.
fn left_already(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// A panic of ours on a peer's behalf took only that peer's connection with it, but somebody has to hear of it.
fn tell_panic<T>(joined: &Result<T, JoinError>) {
    if let Err(error) = joined
        && error.is_panic()
    {
        tracing::error!(%error, "a bug in aegis ended a connection");
    }
}

/// What tells peers apart that have no identity: their ports say nothing.
fn host(remote: Option<SocketAddr>) -> String {
    remote.map_or_else(unknown, |remote| remote.ip().to_string())
}

/// A peer's address for the log, where its port leads to its process.
fn address(remote: Option<SocketAddr>) -> String {
    remote.map_or_else(unknown, |remote| remote.to_string())
}

fn unknown() -> String {
    "unknown".to_owned()
}

/// While the loop accepts nothing.
struct Pause {
    until: Instant,
    /// It ends early as soon as a handshake makes room.
    for_room: bool,
}

/// What the loop keeps count of.
struct State {
    counters: Arc<Counters>,
    handshakes: JoinSet<Handshake>,
    /// Handshakes under way, oldest first.
    pending: VecDeque<Pending>,
    connections: JoinSet<Ended>,
    identities: Identities,
    warned: Muffle,
}

impl State {
    fn new(counters: Arc<Counters>) -> Self {
        Self {
            counters,
            handshakes: JoinSet::new(),
            pending: VecDeque::new(),
            connections: JoinSet::new(),
            identities: Identities::default(),
            warned: Muffle::default(),
        }
    }

    /// Closes the oldest handshake whose peer is silent; false where there is none.
    fn evict(&mut self) -> bool {
        let now = Instant::now();
        let silent = self.pending.iter().position(|it| it.heard.last() + SILENT < now);
        let Some(pending) = silent.and_then(|silent| self.pending.remove(silent)) else {
            return false;
        };
        pending.task.abort();
        self.counters.evicted.add(1);
        if self.warned.admit(&host(pending.remote), "evicted") {
            tracing::warn!(
                peer = %address(pending.remote),
                reason = "evicted",
                "closed a silent connection to make room: too many handshakes are under way"
            );
        }
        true
    }

    /// Counts a peer that did not get as far as a call, and says so once a minute; its node is known after the handshake.
    fn refused(
        &mut self,
        remote: Option<SocketAddr>,
        node: Option<&NodeId>,
        reason: &'static str,
        text: &dyn fmt::Display,
    ) {
        self.counters.refused.add(1);
        let peer = node.map_or_else(|| host(remote), NodeId::to_string);
        if self.warned.admit(&peer, reason) {
            let node = node.map(tracing::field::display);
            tracing::warn!(peer = %address(remote), node, reason, "refused a connection: {text}");
        }
    }

    /// Counts a handshake that the network or the end of the peer cut short, and says so once a minute.
    ///
    /// Nobody refused anybody, so it is no warning: consumers end while they still dial, and health checks only open and
    /// close.
    fn lost(&mut self, remote: Option<SocketAddr>, error: &AcceptError) {
        self.counters.refused.add(1);
        let reason = error.reason();
        if self.warned.admit(&host(remote), reason) {
            let text = Chain::new(error);
            tracing::info!(peer = %address(remote), reason, "a connection came to nothing: {text}");
        }
    }

    fn ended(&mut self, joined: Result<Ended, JoinError>) {
        tell_panic(&joined);
        if let Ok(Ended { remote, node, result: Err(error) }) = joined {
            self.refused(remote, Some(&node), error.reason(), &Chain::new(&error));
        }
    }
}

struct Pending {
    id: Id,
    remote: Option<SocketAddr>,
    heard: Heard,
    task: AbortHandle,
}

struct Handshake {
    remote: Option<SocketAddr>,
    local: Option<SocketAddr>,
    result: Option<Result<Accepted<Inspected<BoxIo>>, AcceptError>>,
}

/// An authenticated connection that is over.
struct Ended {
    remote: Option<SocketAddr>,
    node: NodeId,
    result: Result<(), NoHttp2>,
}
