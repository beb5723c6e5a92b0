use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aegis_core::{Address, Chain, NodeId};
use aegis_proto::convert::records;
use aegis_proto::mesh::v1 as wire;
use aegis_proto::mesh::v1::directory_service_client::DirectoryServiceClient;
use aegis_tls::Tls;
use aegis_topology::{Directory, NodeEntry, SignedRecord, Snapshot, SyncRequest, SyncState};
use aegis_transport::{Connections, Link};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tonic::{Request, Status};

use crate::core::Core;
use crate::exchange::{MAX_MESSAGE, Synced, exchange};
use crate::inbox::Origin;
use crate::seeds::{RETRY_GROWTH, Seeds, dial, warn_while_alone};
use crate::settings::jittered;
use crate::target::target;
use crate::{Counters, Settings, SyncError, tasks};

/// A process that follows a mesh's directory without being in it: one that only calls.
///
/// It follows one or two members at a time, first those at the seeds and then any it learns of, and verifies every
/// record itself: a member can withhold news, not invent it. Dropping it stops following.
pub struct Observer {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    core: Arc<Core>,
    seeds: Vec<Address>,
    failures: Seeds,
    /// Whom a task follows now.
    followed: Mutex<HashSet<NodeId>>,
}

impl Observer {
    /// Begins to follow; seeds are tried for ever. Without seeds the directory stays empty and counts as synced.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        tls: Tls,
        connections: Connections,
        seeds: impl IntoIterator<Item = Address>,
        settings: Settings,
    ) -> Self {
        Self::over(Arc::new(Core::new(tls, connections, settings)), seeds.into_iter().collect())
    }

    /// Follows into a directory that may have other writers: records merge in any order.
    pub(crate) fn over(core: Arc<Core>, seeds: Vec<Address>) -> Self {
        let count = if seeds.is_empty() { 0 } else { core.settings.watched_members.max(1) };
        if seeds.is_empty() {
            core.set_sync_state(SyncState::Complete);
        }
        let failures = Seeds::default();
        failures.expect(&seeds);
        let shared = Arc::new(Shared { core, seeds, failures, followed: Mutex::default() });
        let mut tasks = JoinSet::new();
        for at in 0..count {
            tasks.spawn(follow(Arc::clone(&shared), at));
        }
        tasks.spawn(warn_while_alone(shared.core.directory(), shared.seeds.clone()));
        tasks.spawn(tasks::publish(Arc::clone(&shared.core)));
        tasks.spawn(tasks::expire(Arc::clone(&shared.core)));
        Self { shared, _tasks: tasks }
    }

    /// The mesh's directory, as the followed members tell it.
    pub fn directory(&self) -> Directory {
        self.shared.core.directory()
    }

    /// Compares the directory with that of whoever listens at `address`, now.
    ///
    /// Each call takes [`Settings::call_timeout`] at most, all of them ten times as long.
    ///
    /// # Errors
    /// [`SyncError`] says what hindered it.
    ///
    /// # Cancel safety
    /// Dropping the future ends the comparison; what was learned by then stays.
    pub async fn sync_now(&self, address: &Address) -> Result<Synced, SyncError> {
        let link = dial(&self.shared.core, address).await?;
        let synced = exchange(&self.shared.core, &link, None).await?;
        self.shared.core.joined(&synced.node_id);
        Ok(synced)
    }

    /// What became of records that members sent.
    pub fn counters(&self) -> Counters {
        self.shared.core.inbox.counters()
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").field("seeds", &self.shared.seeds).finish_non_exhaustive()
    }
}

/// How long a seed may take to bring the first sync before the next one is tried beside it.
const STAGGER: Duration = Duration::from_millis(250);
/// How long a stream must have lasted for the next failure to count as the first.
const STEADY: Duration = Duration::from_secs(5);
/// How long a member may take for its first delta.
const FIRST_DELTA: Duration = Duration::from_secs(10);

/// Follows one member after the other, for ever. The first task begins at once, others when there is a second member.
async fn follow(shared: Arc<Shared>, at: usize) {
    let settings = &shared.core.settings;
    let mut wait = settings.seed_retry;
    if at == 0 {
        first(&shared).await;
        sleep(jittered(wait)).await;
    }
    let mut watch = shared.core.directory().watch();
    loop {
        let round = shared.round(at);
        if round.is_empty() {
            watch.changed().await;
            continue;
        }
        for choice in round {
            let began = Instant::now();
            if let Err(error) = shared.follow_one(&choice, &AtomicBool::new(false)).await {
                shared.failed(&choice, &error);
            }
            if STEADY < began.elapsed() {
                wait = settings.seed_retry;
            }
        }
        sleep(jittered(wait)).await;
        wait = wait.mul_f64(RETRY_GROWTH).min(settings.seed_retry_limit);
    }
}

/// Follows the seed that brings the first sync, for as long as it goes.
///
/// Each is tried a little after the one before it or when that one has failed: every call waits for the directory, and one
/// seed that says nothing would hold them up for as long as a dial may take.
async fn first(shared: &Arc<Shared>) {
    let mut racing = JoinSet::new();
    for address in &shared.seeds {
        let (racer, seed) = (Arc::clone(shared), Choice::Seed(address.clone()));
        racing.spawn(async move { race(&racer, &seed).await });
        // Whether one has failed or time has passed, it is the next one's turn.
        drop(timeout(STAGGER, racing.join_next()).await);
        if shared.core.directory().snapshot().is_synced() {
            break;
        }
    }
    while racing.join_next().await.is_some() {}
}

/// Follows a seed, unless another one was faster.
async fn race(shared: &Shared, seed: &Choice) {
    let synced = AtomicBool::new(false);
    let beaten = async {
        // It fails only when the directory is gone.
        drop(shared.core.directory().wait_for(Snapshot::is_synced, Duration::MAX).await);
        if synced.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        followed = shared.follow_one(seed, &synced) => {
            if let Err(error) = followed {
                shared.failed(seed, &error);
            }
        }
        () = beaten => {}
    }
}

/// Whom to follow next.
#[derive(Clone, Debug)]
enum Choice {
    Member(Arc<NodeEntry>),
    Seed(Address),
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Member(node) => node.node_id().fmt(f),
            Self::Seed(address) => address.fmt(f),
        }
    }
}

impl Shared {
    /// Whom to try, in order: known members in a random one and, for the first task, the seeds before them.
    fn round(&self, at: usize) -> Vec<Choice> {
        let snapshot = self.core.directory().snapshot();
        let followed = self.followed().clone();
        let mut members: Vec<_> = snapshot
            .nodes()
            .iter()
            .filter(|node| !node.addresses().is_empty() && !followed.contains(node.node_id()))
            .map(|node| Choice::Member(Arc::clone(node)))
            .collect();
        fastrand::shuffle(&mut members);
        let seeds = if at == 0 { self.seeds.as_slice() } else { &[] };
        seeds.iter().cloned().map(Choice::Seed).chain(members).collect()
    }

    fn failed(&self, choice: &Choice, error: &SyncError) {
        tracing::debug!(%choice, error = %Chain::new(error), "cannot follow the directory here");
        if let Choice::Seed(address) = choice {
            self.failures.failed(&self.core, address, error);
        }
    }

    /// Follows a member until its stream ends; `synced` becomes true when all that it knows has come.
    async fn follow_one(&self, choice: &Choice, synced: &AtomicBool) -> Result<(), SyncError> {
        let link = match choice {
            Choice::Seed(address) => match dial(&self.core, address).await {
                // Who only follows does not listen.
                Err(SyncError::OwnNode { address }) => {
                    return Err(SyncError::Duplicate { address });
                }
                dialled => dialled?,
            },
            Choice::Member(node) => self.core.connections.link(target(node)),
        };
        let id = link.node_id().clone();
        if !self.followed().insert(id.clone()) {
            return Ok(());
        }
        let _followed = Followed { shared: self, id };
        let address = match choice {
            Choice::Seed(address) => Some(address),
            Choice::Member(..) => None,
        };
        self.watch(&link, address, synced).await
    }

    async fn watch(
        &self,
        link: &Link,
        seed: Option<&Address>,
        done: &AtomicBool,
    ) -> Result<(), SyncError> {
        let call = |status| SyncError::Call { node: link.node_id().clone(), status };
        let root = self.core.replica().root().to_bytes().to_vec().into();
        let mut client =
            DirectoryServiceClient::new(link.channel()).max_decoding_message_size(MAX_MESSAGE);
        let request = Request::new(wire::WatchRequest { root, services: Vec::new() });
        let late = || Status::deadline_exceeded("the member does not answer");
        let opened = timeout(FIRST_DELTA, client.watch_topology(request)).await;
        let mut stream = opened.unwrap_or_else(|_| Err(late())).map_err(call)?.into_inner();
        let mut synced = false;
        loop {
            let next = if synced {
                stream.message().await
            } else {
                timeout(FIRST_DELTA, stream.message()).await.unwrap_or_else(|_| Err(late()))
            };
            let Some(delta) = next.map_err(call)? else { return Ok(()) };
            let (records, unreadable) = records(delta.records).map_err(|error| {
                SyncError::Message { node: link.node_id().clone(), source: Arc::new(error) }
            })?;
            let admitted =
                self.core.admit(link.node_id(), Origin::Asked, records, unreadable).await;
            if let Some(past) = admitted.past {
                self.tell(link, past).await;
            }
            // The root says that this was the last page.
            if !delta.root.is_empty() && !synced {
                synced = true;
                // Before others can see that the directory is there.
                done.store(true, Ordering::Relaxed);
                self.core.joined(link.node_id());
                if let Some(address) = seed {
                    self.failures.succeeded(&self.core, address, link.node_id());
                }
            }
        }
    }

    /// Shows a member a record of an earlier run of it that wins over what it shows: there may be nobody else left who holds
    /// it, and a member that knows it outbids it.
    async fn tell(&self, link: &Link, past: SignedRecord) {
        let mut request = SyncRequest::default();
        request.records = vec![past];
        let mut request = Request::new(wire::SyncRequest::from(request));
        request.set_timeout(self.core.settings.call_timeout);
        let mut client = DirectoryServiceClient::new(link.channel());
        if let Err(status) = client.sync(request).await {
            tracing::debug!(node = %link.node_id(), %status, "cannot tell a node of its past");
        }
    }

    fn followed(&self) -> std::sync::MutexGuard<'_, HashSet<NodeId>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps other tasks from following the same member.
struct Followed<'a> {
    shared: &'a Shared,
    id: NodeId,
}

impl Drop for Followed<'_> {
    fn drop(&mut self) {
        self.shared.followed().remove(&self.id);
    }
}
