//! Three providers, a client of them, and callers that go on until they are told to stop.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aegis::client::{Balancer, Verdict};
use aegis::{Node, NodeBuilder, Server, ServiceClient};
use aegis_core::NodeId;
use aegis_proto::identity::v1::GetUserRequest;
use aegis_testing::{TestMesh, eventually};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::{Request, Status};

use crate::service::{Client, Identity, LIMIT, client};

/// Providers `a`, `b` and `c`, and the node `v` that calls them.
pub(crate) struct Trio {
    pub(crate) mesh: TestMesh,
    pub(crate) servers: Vec<(Server, Identity)>,
    pub(crate) identity: ServiceClient<Client>,
    _node: Node,
}

impl Trio {
    /// All three are connected.
    pub(crate) async fn connected(mesh: TestMesh) -> Self {
        let trio = Self::start(mesh).await;
        trio.identity.wait_ready(3, LIMIT).await.unwrap();
        trio
    }

    /// All three are connected, and calls go to them by this rule.
    pub(crate) async fn balanced(mesh: TestMesh, balancer: Balancer) -> Self {
        let trio = Self::start_with(mesh, |node| node.balance(balancer)).await;
        trio.identity.wait_ready(3, LIMIT).await.unwrap();
        trio
    }

    pub(crate) async fn start(mesh: TestMesh) -> Self {
        Self::start_with(mesh, |node| node).await
    }

    async fn start_with(mesh: TestMesh, with: impl FnOnce(NodeBuilder) -> NodeBuilder) -> Self {
        let mut servers = Vec::new();
        for id in ["a", "b", "c"] {
            let identity = Identity::new(id);
            servers.push((mesh.serve(id, |node| identity.on(node)).await, identity));
        }
        let node = with(mesh.builder("v")).build().unwrap();
        let identity = client(&node.pool());
        Self { mesh, servers, identity, _node: node }
    }

    /// The calls that a provider was given so far.
    pub(crate) fn picks(&self, id: &str) -> u64 {
        let id = NodeId::new(id).unwrap();
        self.identity.explain().candidate(&id).unwrap().picks
    }

    /// Waits until a provider is seen as it should be.
    pub(crate) async fn until(&self, id: &str, like: impl Fn(&Verdict) -> bool) {
        let id = NodeId::new(id).unwrap();
        eventually(LIMIT, || match self.identity.explain().candidate(&id) {
            Some(candidate) if like(&candidate.verdict) => Ok(()),
            Some(candidate) => Err(candidate.to_string()),
            None => Err(format!("{id} is not listed")),
        })
        .await;
    }
}

/// One call as it went.
pub(crate) struct Call {
    pub(crate) began: Instant,
    pub(crate) took: Duration,
    /// Who answered.
    pub(crate) answer: Result<String, Status>,
}

/// Callers that call one after another until they are told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    callers: JoinSet<Vec<Call>>,
}

impl Load {
    /// Each caller makes a call, whose request `make` makes, waits for its end and then for `pause`.
    pub(crate) fn start(
        identity: &ServiceClient<Client>,
        callers: usize,
        pause: Duration,
        make: impl Fn() -> Request<GetUserRequest> + Clone + Send + Sync + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut set = JoinSet::new();
        for _ in 0..callers {
            let (identity, stop, make) = (identity.clone(), Arc::clone(&stop), make.clone());
            set.spawn(async move {
                let mut calls = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let answer = send(&identity, make()).await;
                    calls.push(Call { began, took: began.elapsed(), answer });
                    sleep(pause).await;
                }
                calls
            });
        }
        Self { stop, callers: set }
    }

    /// Lets the calls under way end.
    pub(crate) async fn stop(self) -> Vec<Call> {
        self.stop.store(true, Ordering::Relaxed);
        self.callers.join_all().await.into_iter().flatten().collect()
    }
}

/// Who answers, or what the call ends with.
pub(crate) async fn send(
    identity: &ServiceClient<Client>,
    request: Request<GetUserRequest>,
) -> Result<String, Status> {
    Ok(identity.get()?.get_user(request).await?.into_inner().name)
}

pub(crate) fn request(user: &str) -> Request<GetUserRequest> {
    Request::new(GetUserRequest { user_id: user.to_owned() })
}

pub(crate) fn timed(user: &str, timeout: Duration) -> Request<GetUserRequest> {
    let mut request = request(user);
    request.set_timeout(timeout);
    request
}

pub(crate) fn failures(calls: &[Call]) -> Vec<&Status> {
    calls.iter().filter_map(|call| call.answer.as_ref().err()).collect()
}

/// How many calls each provider answered.
pub(crate) fn shares(calls: &[Call]) -> BTreeMap<&str, usize> {
    let mut shares = BTreeMap::new();
    for provider in calls.iter().filter_map(|call| call.answer.as_deref().ok()) {
        *shares.entry(provider).or_default() += 1;
    }
    shares
}

#[track_caller]
pub(crate) fn none_failed(calls: &[Call]) {
    let failures = failures(calls);
    assert!(!calls.is_empty(), "nobody called");
    assert!(failures.is_empty(), "{} of {} failed: {}", failures.len(), calls.len(), failures[0]);
}
