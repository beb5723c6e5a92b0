use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use aegis_core::Address;
use aegis_tls::Tls;
use aegis_topology::{Description, Directory, Instance, NodeState, Precedence, SyncState};
use aegis_transport::Connections;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::task::JoinSet;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::NamedService;

use crate::Observer;
use crate::conflict::Conflict;
use crate::core::Core;
use crate::exchange::{Synced, exchange};
use crate::own::Own;
use crate::peers::Peers;
use crate::seeds::{Seeds, warn_while_alone};
use crate::watchers::Watchers;
use crate::{Counters, PublishError, Settings, SyncError, conflict, replicate, tasks};

/// A node with a record of its own in the mesh's directory: publishes it, keeps its copy of the directory equal to
/// that of its peers, and serves both.
///
/// It is made before the node listens, so that its [service](Self::service) can be registered, and
/// [started](Self::start) once the addresses are known. Dropping it stops its tasks; without a
/// [`leave`](Self::leave) the others find out by themselves.
pub struct Member {
    shared: Arc<Shared>,
    tasks: Mutex<JoinSet<()>>,
}

/// What the tasks and the service of a member share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) core: Arc<Core>,
    pub(crate) peers: Peers,
    pub(crate) seeds: Seeds,
    pub(crate) watchers: Watchers,
    pub(crate) own: OnceLock<Own>,
    pub(crate) conflict: Conflict,
}

impl Member {
    /// A member that is not started: it publishes nothing and asks nobody.
    pub fn new(tls: Tls, connections: Connections, settings: Settings) -> Self {
        let peers = Peers::new(tls.spiffe_id().node_id().clone(), connections.clone());
        let shared = Shared {
            core: Arc::new(Core::new(tls, connections, settings)),
            peers,
            seeds: Seeds::default(),
            watchers: Watchers::default(),
            own: OnceLock::new(),
            conflict: Conflict::default(),
        };
        Self { shared: Arc::new(shared), tasks: Mutex::default() }
    }

    /// Publishes the own record and begins to sync, first with the seeds, which are tried for ever.
    ///
    /// # Errors
    /// [`PublishError`]; then nothing was started.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        &self,
        description: Description,
        seeds: impl IntoIterator<Item = Address>,
    ) -> Result<(), PublishError> {
        let shared = &self.shared;
        if shared.own.get().is_some() {
            return Err(PublishError::Started);
        }
        let own = Own::new(&shared.core, draw_instance(), description);
        own.claim(&shared.core, Precedence::default())?;
        if shared.own.set(own).is_err() {
            return Err(PublishError::Started);
        }
        shared.core.publish();
        let seeds: Vec<_> = seeds.into_iter().collect();
        if seeds.is_empty() {
            shared.core.set_sync_state(SyncState::Complete);
        }
        shared.seeds.expect(&seeds);
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.spawn(warn_while_alone(shared.core.directory(), seeds.clone()));
        for seed in seeds {
            tasks.spawn(replicate::join(Arc::clone(shared), seed));
        }
        tasks.spawn(tasks::publish(Arc::clone(&shared.core)));
        tasks.spawn(tasks::expire(Arc::clone(&shared.core)));
        tasks.spawn(replicate::push(Arc::clone(shared)));
        tasks.spawn(replicate::sync(Arc::clone(shared)));
        tasks.spawn(replicate::renew(Arc::clone(shared)));
        tasks.spawn(conflict::resolve(Arc::clone(shared)));
        Ok(())
    }

    /// Follows the mesh into this member's directory for as long as it is not started, as one that only calls does.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn observe(&self, seeds: impl IntoIterator<Item = Address>) -> Observer {
        Observer::over(Arc::clone(&self.shared.core), seeds.into_iter().collect())
    }

    /// The mesh's directory, as this node sees it.
    pub fn directory(&self) -> Directory {
        self.shared.core.directory()
    }

    /// The service that answers peers, `aegis.mesh.v1.DirectoryService`: a handler as generated code makes them.
    ///
    /// Callers of another trust domain get `FAILED_PRECONDITION`, those without a certificate `UNAUTHENTICATED`.
    pub fn service(
        &self,
    ) -> impl Service<
        http::Request<Body>,
        Response = http::Response<Body>,
        Error = Infallible,
        Future: Send + 'static,
    >
    + NamedService
    + Clone
    + Send
    + Sync
    + 'static
    + use<> {
        crate::service::server(Arc::clone(&self.shared))
    }

    /// Says in the directory whether this node takes calls, and waits until peers know.
    ///
    /// Returns when up to 8 peers acknowledged it, or when `bound` has passed; the change itself is made at once.
    ///
    /// # Errors
    /// [`PublishError`], if the new record could not be signed: peers keep the last one. A member that is not started has no
    /// record, and nobody to tell: that is no error.
    ///
    /// # Cancel safety
    /// Dropping the future gives up waiting; the change stays.
    pub async fn set_state(
        &self,
        state: NodeState,
        bound: Duration,
    ) -> Result<Acknowledged, PublishError> {
        let core = &self.shared.core;
        let Some(own) = self.shared.own.get() else { return Ok(Acknowledged::default()) };
        own.publish(core, |author| author.set_state(state))?;
        core.publish();
        let mut acknowledged = Acknowledged::default();
        let acknowledge = async {
            let count = core.settings.acknowledging_peers;
            let peers = self.shared.peers.choose_many(&core.directory().snapshot(), count);
            acknowledged.asked = peers.len();
            let mut pushes: FuturesUnordered<_> =
                peers.iter().map(|peer| exchange(core, &peer.link, Some(own.key()))).collect();
            while let Some(pushed) = pushes.next().await {
                acknowledged.acknowledged += usize::from(pushed.is_ok());
            }
            // Those that follow us without being members have it when their stream took it.
            let change = core.replica().change();
            self.shared.watchers.delivered(change).await;
        };
        // What did not acknowledge in time hears of it from the others.
        drop(tokio::time::timeout(bound, acknowledge).await);
        Ok(acknowledged)
    }

    /// Ends the streams of those that follow this node, once each has told what it has; they follow others from then on.
    pub fn release_observers(&self) {
        self.shared.watchers.close();
    }

    /// Ends the tasks and the streams, as a crash would: the record stays until its time is over.
    pub fn stop(&self) {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).abort_all();
        self.release_observers();
    }

    /// Says goodbye, waits like [`set_state`](Self::set_state), and ends the streams of those that follow this node.
    ///
    /// The goodbye is kept by all until the record's time is over, so that no late message brings the node back.
    ///
    /// # Errors
    /// [`PublishError`], if the goodbye could not be signed.
    ///
    /// # Cancel safety
    /// Dropping the future gives up waiting; the goodbye stays, the streams go on.
    pub async fn leave(&self, bound: Duration) -> Result<Acknowledged, PublishError> {
        let acknowledged = self.set_state(NodeState::Left, bound).await;
        self.shared.watchers.close();
        acknowledged
    }

    /// Compares the directory with that of whoever listens at `address`, now, and keeps the connection for later.
    ///
    /// Each call takes [`Settings::call_timeout`] at most, all of them ten times as long.
    ///
    /// # Errors
    /// [`SyncError`] says what hindered it.
    ///
    /// # Cancel safety
    /// Dropping the future ends the comparison; what was learned by then stays.
    pub async fn sync_now(&self, address: &Address) -> Result<Synced, SyncError> {
        replicate::sync_at(&self.shared, address).await
    }

    /// What is the matter with the own identity.
    pub fn status(&self) -> MemberStatus {
        match (self.shared.own.get(), self.shared.conflict.address()) {
            (None, _) => MemberStatus::NotStarted,
            (Some(own), Some(address)) if !own.advertises() => MemberStatus::Displaced { address },
            (Some(own), _) => MemberStatus::Advertised { state: own.state() },
        }
    }

    /// What became of records that peers sent.
    pub fn counters(&self) -> Counters {
        self.shared.core.inbox.counters()
    }
}

impl fmt::Debug for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Member").field("status", &self.status()).finish_non_exhaustive()
    }
}

/// Who has heard of a change of our own state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Acknowledged {
    /// How many peers were told directly.
    pub asked: usize,
    /// How many of them answered.
    pub acknowledged: usize,
}

/// How it stands with a member's own record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberStatus {
    /// The directory shows the own record.
    Advertised {
        /// What it says about taking calls.
        state: NodeState,
    },
    /// Another living process with the same identity started later; its record is shown and ours is not.
    Displaced {
        /// Where the other process listens.
        address: Address,
    },
    /// [`Member::start`] was not called.
    NotStarted,
}

fn draw_instance() -> Instance {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // Only has to differ from that of another process with our key.
        bytes.fill_with(|| fastrand::u8(..));
    }
    Instance::from_bytes(bytes)
}
