//! Who gets a call when providers differ.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aegis_client::{Balance, Balancer, Choices, ServiceClient, ServicePool};
use aegis_core::NodeId;
use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use aegis_proto::identity::v1::{ValidateSessionRequest, ValidateSessionResponse};
use aegis_testing::{TestMesh, eventually};
use tokio::task::JoinSet;
use tonic::{Request, Response, Status};

use crate::mesh::{Client, IDENTITY, Mesh, PATIENCE, call, call_many, identity, one_connection};
use crate::provider::{Act, Provider};

const UNAVAILABLE: u8 = 14;

async fn connected(
    mesh: &Mesh,
    providers: &[&Provider],
    balancer: Balancer,
) -> (ServicePool, ServiceClient<Client>) {
    let addresses: Vec<_> = providers.iter().map(|it| (it.id.as_str(), it.address)).collect();
    // Of ejection there is another story.
    let builder = mesh.builder(&addresses).balance(balancer).no_outlier_detection();
    let pool = builder.build().unwrap();
    let client = identity(&pool);
    client.wait_ready(providers.len(), PATIENCE).await.unwrap();
    (pool, client)
}

/// So many callers share so many calls, whatever comes of them.
async fn crowd(client: &ServiceClient<Client>, callers: usize, calls: usize) {
    let (mut tasks, left) = (JoinSet::new(), Arc::new(AtomicUsize::new(calls)));
    for _ in 0..callers {
        let (client, left) = (client.clone(), Arc::clone(&left));
        tasks.spawn(async move {
            while left
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |it| it.checked_sub(1))
                .is_ok()
            {
                drop(call(&client).await);
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

// The balancer's own tests have it exactly, on a clock; here other tests slow the fast ones down, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_provider_gets_few_calls_of_least_loaded() {
    const CALLS: usize = 3_000;
    let mesh = Mesh::new();
    let [slow, a, b] = [
        Provider::start(&mesh, "slow").await,
        Provider::start(&mesh, "a").await,
        Provider::start(&mesh, "b").await,
    ];
    slow.always(Act::AnswerAfter(Duration::from_secs(1)));
    a.always(Act::AnswerAfter(Duration::from_millis(1)));
    b.always(Act::AnswerAfter(Duration::from_millis(1)));
    let (_pool, client) = connected(&mesh, &[&slow, &a, &b], Balancer::least_loaded()).await;
    crowd(&client, 30, CALLS).await;
    assert!(slow.requests() <= CALLS / 50, "{}", client.explain());
    assert!(CALLS / 4 <= a.requests().min(b.requests()), "{}", client.explain());
    let explanation = client.explain();
    let latency = explanation.candidate(&NodeId::new("slow").unwrap()).unwrap().latency.unwrap();
    assert!(Duration::from_millis(100) < latency, "{explanation}");
    assert!(explanation.candidates.iter().all(|it| it.in_flight == 0), "{explanation}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_fails_at_once_gets_few_calls_of_least_loaded() {
    const CALLS: usize = 3_000;
    let mesh = Mesh::new();
    let [bad, a, b] = [
        Provider::start(&mesh, "bad").await,
        Provider::start(&mesh, "a").await,
        Provider::start(&mesh, "b").await,
    ];
    bad.always(Act::Fail(UNAVAILABLE));
    a.always(Act::AnswerAfter(Duration::from_millis(1)));
    b.always(Act::AnswerAfter(Duration::from_millis(1)));
    let (_pool, client) = connected(&mesh, &[&bad, &a, &b], Balancer::least_loaded()).await;
    crowd(&client, 30, CALLS).await;
    assert!(bad.requests() <= CALLS / 20, "{}", client.explain());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn least_loaded_passes_by_a_full_provider() {
    let mesh = Mesh::new();
    let full = Provider::with_streams(&mesh, "full", 1).await;
    let free = Provider::start(&mesh, "free").await;
    full.always(Act::Hang);
    free.always(Act::AnswerAfter(Duration::from_millis(2)));
    let addresses = [("free", free.address), ("full", full.address)];
    let builder = mesh.builder(&addresses).settings(one_connection());
    let client = identity(&builder.balance(Balancer::least_loaded()).build().unwrap());
    client.wait_ready(2, PATIENCE).await.unwrap();
    let mut hanging = JoinSet::new();
    eventually(PATIENCE, || {
        let client = client.clone();
        hanging.spawn(async move { drop(call(&client).await) });
        if full.requests() == 1 { Ok(()) } else { Err("it has no request") }
    })
    .await;
    // With eight at a time the full one has least to do, and would be chosen.
    let counts = call_many(&client, 200).await.unwrap();
    assert_eq!(counts, BTreeMap::from([("free".to_owned(), 200)]));
    assert_eq!(full.requests(), 1);
}

/// Answers.
struct Ready;

#[tonic::async_trait]
impl IdentityService for Ready {
    async fn validate_session(
        &self,
        _: Request<ValidateSessionRequest>,
    ) -> Result<Response<ValidateSessionResponse>, Status> {
        Ok(Response::new(ValidateSessionResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_that_nodes_advertise_are_the_shares_of_weighted() {
    let mesh = TestMesh::in_memory();
    let mut servers = Vec::new();
    for (id, weight) in [("large", 700), ("medium", 200), ("small", 100)] {
        let service = IdentityServiceServer::new(Ready);
        servers.push(
            mesh.serve(id, |it| it.service(IDENTITY, service).weight(weight).zone("berlin-1"))
                .await,
        );
    }
    let pool = ServicePool::builder()
        .tls(mesh.ca().options("vicky-1", "gateway"))
        .network(mesh.network())
        .seeds(servers.iter().map(|it| it.local_addr().to_string()))
        .balance_service(IDENTITY, Balancer::weighted())
        .build()
        .unwrap();
    let client = identity(&pool);
    client.wait_ready(3, PATIENCE).await.unwrap();
    for _ in 0..1_000 {
        call(&client).await.unwrap();
    }
    let explanation = client.explain();
    let snapshot = pool.directory().snapshot();
    assert!(snapshot.providers(&IDENTITY).iter().all(|it| it.zone() == "berlin-1"));
    let of = |id: &str| {
        let candidate = explanation.candidate(&NodeId::new(id).unwrap()).unwrap();
        (candidate.weight, candidate.picks)
    };
    assert_eq!([of("large"), of("medium"), of("small")], [(700, 700), (200, 200), (100, 100)]);
}

/// The last one, or whatever is beyond.
struct Last(usize);

impl Balance for Last {
    fn pick(&self, choices: &Choices<'_>) -> usize {
        assert!(!choices.is_empty());
        assert!(choices.get(choices.len()).is_none());
        choices.len() - 1 + self.0
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_balancer_of_ones_own_is_asked_and_cannot_reach_beyond() {
    let mesh = Mesh::new();
    let (a, b) = (Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await);
    for (beyond, expected) in [(0, "b"), (1, "a")] {
        let balancer = Balancer::custom(move |_| Last(beyond));
        let (_pool, client) = connected(&mesh, &[&a, &b], balancer).await;
        let counts = call_many(&client, 20).await.unwrap();
        assert_eq!(counts, BTreeMap::from([(expected.to_owned(), 20)]));
    }
    // A request that one has refused goes to the other, whatever the balancer would like best.
    let (_pool, client) = connected(&mesh, &[&a, &b], Balancer::custom(|_| Last(0))).await;
    b.once(Act::NotServed);
    assert_eq!(call(&client).await.unwrap(), "a");
}
