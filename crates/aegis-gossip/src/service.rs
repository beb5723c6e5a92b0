use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use aegis_core::NodeId;
use aegis_proto::convert::{keys, root, signed_records};
use aegis_proto::mesh::v1 as wire;
use aegis_proto::mesh::v1::directory_service_server::{DirectoryService, DirectoryServiceServer};
use aegis_tls::Caller;
use aegis_topology::{Key, Root, SyncRequest};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::watch;
use tonic::codegen::{BoxStream, async_trait};
use tonic::{Request, Response, Status};

use crate::exchange::MAX_MESSAGE;
use crate::inbox::Origin;
use crate::interest::Interest;
use crate::member::Shared;
use crate::watchers::Watcher;

/// Syncs and readers of one caller at a time.
const RUNNING: usize = 4;

/// Answers peers: syncs with members, and shows the directory to those that follow it.
///
/// Callers of another trust domain get `FAILED_PRECONDITION`, those without a certificate `UNAUTHENTICATED`.
#[derive(Debug)]
pub(crate) struct DirectoryHandler {
    shared: Arc<Shared>,
    running: Arc<Mutex<HashMap<NodeId, usize>>>,
}

pub(crate) fn server(shared: Arc<Shared>) -> DirectoryServiceServer<DirectoryHandler> {
    DirectoryServiceServer::new(DirectoryHandler { shared, running: Arc::default() })
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

#[async_trait]
impl DirectoryService for DirectoryHandler {
    async fn sync(
        &self,
        request: Request<wire::SyncRequest>,
    ) -> Result<Response<wire::SyncResponse>, Status> {
        let caller = self.member(&request)?;
        let _running = self.begin(caller.node_id())?;
        let host = other_host(&request);
        let request = SyncRequest::try_from(request.into_inner())?;
        let core = &self.shared.core;
        let records = request.records.clone();
        core.admit(caller.node_id(), Origin::Pushed, records, request.unreadable).await;
        if let Some(host) = host {
            core.look_at_addresses_of(caller.node_id(), host);
        }
        let response = core.replica().answer(&request);
        Ok(Response::new(response.into()))
    }

    async fn fetch_records(
        &self,
        request: Request<wire::FetchRequest>,
    ) -> Result<Response<BoxStream<wire::RecordPage>>, Status> {
        let caller = self.member(&request)?;
        let running = self.begin(caller.node_id())?;
        let request = request.into_inner();
        let first = Interest::parse(&request.services_first)?;
        let wanted: BTreeSet<Key> = keys(&request.keys)?.into_iter().collect();
        let keys: Vec<Key> = if wanted.is_empty() {
            self.shared.core.replica().stamps().map(|stamp| stamp.key).collect()
        } else {
            wanted.into_iter().collect()
        };
        let keys = if first.is_empty() { keys } else { self.put_first(&first, keys).await };
        let (shared, mut keys) = (Arc::downgrade(&self.shared), keys.into_iter());
        let pages = std::iter::from_fn(move || {
            // For as long as the stream is there.
            let _running = &running;
            let shared = shared.upgrade()?;
            let replica = shared.core.replica();
            let records = keys.by_ref().filter_map(|key| replica.record(key));
            let page: Vec<_> = records.take(PAGE).map(|record| record.signed().clone()).collect();
            let records = signed_records(page);
            (!records.is_empty()).then_some(Ok(wire::RecordPage { records }))
        });
        Ok(Response::new(Box::pin(stream::iter(pages))))
    }

    async fn watch_topology(
        &self,
        request: Request<wire::WatchRequest>,
    ) -> Result<Response<BoxStream<wire::TopologyDelta>>, Status> {
        let caller = self.member(&request)?;
        let request = request.into_inner();
        let theirs = root(&request.root)?;
        let interest = Interest::parse(&request.services)?;
        let Some(watcher) = self.shared.watchers.join(caller.node_id()) else {
            return Err(Status::unavailable("this node is leaving, or too many follow it already"));
        };
        let core = &self.shared.core;
        let follow = Follow {
            shared: Arc::downgrade(&self.shared),
            changed: core.changed(),
            watcher,
            at: 0,
            theirs: Some(theirs),
            interest,
            sent: HashSet::new(),
        };
        Ok(Response::new(Box::pin(stream::unfold(follow, Follow::next))))
    }
}

/// The host that a request came from, if it is another one, as far as the addresses of its connection tell.
fn other_host<T>(request: &Request<T>) -> Option<IpAddr> {
    let ip = |address: Option<SocketAddr>| address.map(|it| it.ip().to_canonical());
    let (remote, local) = (ip(request.remote_addr())?, ip(request.local_addr()));
    // Who dials its own host at an outer address comes from that address.
    (!remote.is_loopback() && Some(remote) != local).then_some(remote)
}

/// Records that are looked at before others get the replica.
const LOOKS: usize = 256;

impl DirectoryHandler {
    /// The caller, if it is of our own trust domain.
    fn member<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let caller = Caller::from_request(request)?;
        let own = self.shared.core.tls.spiffe_id();
        if caller.spiffe_id().trust_domain() != own.trust_domain() {
            return Err(Status::failed_precondition(format!(
                "this is the mesh of {}, not of {}",
                own.trust_domain(),
                caller.spiffe_id().trust_domain()
            )));
        }
        Ok(caller)
    }

    /// The keys of those that provide what is asked for, and then the others.
    async fn put_first(&self, first: &Interest, keys: Vec<Key>) -> Vec<Key> {
        let (mut providers, mut others) = (Vec::new(), Vec::new());
        for keys in keys.chunks(LOOKS) {
            {
                let replica = self.shared.core.replica();
                for key in keys {
                    let covered = replica.record(*key).is_some_and(|record| first.covers(record));
                    if covered { &mut providers } else { &mut others }.push(*key);
                }
            }
            tokio::task::yield_now().await;
        }
        providers.append(&mut others);
        providers
    }

    /// Counts a sync or a reader of a caller.
    fn begin(&self, caller: &NodeId) -> Result<Running, Status> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let count = running.entry(caller.clone()).or_default();
        if RUNNING <= *count {
            return Err(Status::resource_exhausted("too many syncs or readers at a time"));
        }
        *count += 1;
        Ok(Running { caller: caller.clone(), running: Arc::clone(&self.running) })
    }
}

/// Counts a sync or a reader down when it ends, however it ends.
struct Running {
    caller: NodeId,
    running: Arc<Mutex<HashMap<NodeId, usize>>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let left = running.get(&self.caller).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            running.remove(&self.caller);
        } else {
            running.insert(self.caller.clone(), left);
        }
    }
}

/// Records in a page of a stream: below 1 MiB at their largest.
const PAGE: usize = 64;

/// Follows the replica for one caller.
struct Follow {
    shared: Weak<Shared>,
    changed: watch::Receiver<u64>,
    watcher: Watcher,
    /// The last change that was sent.
    at: u64,
    /// What the caller has, until the first delta.
    theirs: Option<Root>,
    interest: Interest,
    /// Nodes that the caller knows of because they once provided what it follows.
    sent: HashSet<Key>,
}

impl Follow {
    async fn next(mut self) -> Option<(Result<wire::TopologyDelta, Status>, Self)> {
        self.watcher.took(self.at);
        loop {
            let shared = self.shared.upgrade()?;
            if let Some(delta) = self.delta(&shared) {
                return Some((Ok(delta), self));
            }
            drop(shared);
            if !self.watcher.is_open() {
                return None;
            }
            tokio::select! {
                changed = self.changed.changed() => changed.ok()?,
                () = self.watcher.closed() => {}
            }
        }
    }

    /// What is new since the last delta. The root comes with the last page, and says that the caller is up to date.
    fn delta(&mut self, shared: &Shared) -> Option<wire::TopologyDelta> {
        let replica = shared.core.replica();
        let first = self.theirs.take();
        if first == Some(replica.root()) {
            self.at = replica.change();
        }
        if self.at == replica.change() && first.is_none() {
            return None;
        }
        let (records, at) = replica.changes_after(self.at);
        self.at = at;
        let done = at == replica.change();
        let records = records.into_iter().filter(|record| {
            // A node that ceased to provide what is followed is news too.
            self.interest.is_empty()
                || self.interest.covers(record) && self.sent.insert(record.key())
                || self.sent.contains(&record.key())
        });
        let records = signed_records(records.map(|record| record.signed().clone()).collect());
        let root = if done { replica.root().to_bytes().to_vec().into() } else { Bytes::new() };
        Some(wire::TopologyDelta { records, down: Vec::new(), root })
    }
}
