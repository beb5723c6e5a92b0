//! Faults of calls, in a node and around a channel.

use std::time::Duration;

use aegis_client::{ServiceChannel, ServiceClient};
use aegis_core::ServiceInfo;
use aegis_node::Server;
use aegis_proto::identity::v1 as wire;
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use aegis_testing::{FaultService, TestMesh};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};
use tower_layer::Layer as _;

const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
const LIMIT: Duration = Duration::from_secs(5);
const GET_USER: &str = "aegis.identity.v1.IdentityService/GetUser";

struct Fake;

#[tonic::async_trait]
impl IdentityService for Fake {
    async fn get_user(
        &self,
        _: Request<wire::GetUserRequest>,
    ) -> Result<Response<wire::GetUserResponse>, Status> {
        Ok(Response::new(wire::GetUserResponse::default()))
    }

    async fn validate_session(
        &self,
        _: Request<wire::ValidateSessionRequest>,
    ) -> Result<Response<wire::ValidateSessionResponse>, Status> {
        Ok(Response::new(wire::ValidateSessionResponse::default()))
    }
}

/// A mesh of a node `a` that serves, and a client of it.
struct Story {
    mesh: TestMesh,
    identity: ServiceClient<IdentityServiceClient<ServiceChannel>>,
    _server: Server,
}

impl Story {
    async fn new(seed: u64) -> Self {
        let mesh = TestMesh::in_memory().seeded(seed);
        let server = mesh
            .serve("a", |node| node.service(IDENTITY_V1, IdentityServiceServer::new(Fake)))
            .await;
        let pool = mesh.node("c").pool();
        let identity = ServiceClient::new(&pool, IDENTITY_V1, IdentityServiceClient::new);
        identity.wait_ready(1, LIMIT).await.unwrap();
        Self { mesh, identity, _server: server }
    }

    async fn get_user(&self) -> Code {
        let mut request = Request::new(wire::GetUserRequest::default());
        request.set_timeout(LIMIT);
        let answer = self.identity.get().unwrap().get_user(request).await;
        answer.err().map_or(Code::Ok, |status| status.code())
    }

    async fn validate_session(&self) -> Code {
        let request = wire::ValidateSessionRequest::default();
        let answer = self.identity.get().unwrap().validate_session(request).await;
        answer.err().map_or(Code::Ok, |status| status.code())
    }
}

#[tokio::test(start_paused = true)]
async fn a_failing_node_fails_all_its_calls_until_it_is_healed() {
    let story = Story::new(1).await;
    let faults = story.mesh.faults().at("a");
    faults.fail(Status::data_loss("gone"));
    assert_eq!(
        (story.get_user().await, story.validate_session().await),
        (Code::DataLoss, Code::DataLoss)
    );
    story.mesh.faults().at("b").fail(Status::aborted("another node"));
    faults.heal();
    assert_eq!((story.get_user().await, story.validate_session().await), (Code::Ok, Code::Ok));
    assert_eq!(faults.met(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_a_method_is_its_own_and_counts_before_one_of_the_node() {
    let story = Story::new(1).await;
    let node = story.mesh.faults().at("a");
    let method = node.method(GET_USER);
    method.fail(Status::internal("a bug"));
    assert_eq!(
        (story.get_user().await, story.validate_session().await),
        (Code::Internal, Code::Ok)
    );
    node.fail(Status::unavailable("all of it"));
    assert_eq!(
        (story.get_user().await, story.validate_session().await),
        (Code::Internal, Code::Unavailable)
    );
    method.heal();
    assert_eq!(story.get_user().await, Code::Unavailable);
    assert_eq!((method.met(), node.met()), (2, 2));
    story.mesh.faults().heal();
    assert_eq!((story.get_user().await, story.validate_session().await), (Code::Ok, Code::Ok));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_hangs_ends_by_its_deadline_and_a_slow_one_by_its_answer() {
    let story = Story::new(1).await;
    let faults = story.mesh.faults().at("a");
    faults.hang();
    let began = Instant::now();
    assert_eq!(story.get_user().await, Code::DeadlineExceeded);
    assert_eq!(began.elapsed().as_secs(), 5);

    faults.heal().delay(Duration::from_millis(300));
    let began = Instant::now();
    assert_eq!(story.get_user().await, Code::Ok);
    let took = began.elapsed().as_millis();
    assert!((300..320).contains(&took), "{took} ms");
    faults.fail(Status::aborted("in the end"));
    let began = Instant::now();
    assert_eq!(story.get_user().await, Code::Aborted);
    assert!(300 <= began.elapsed().as_millis());
}

/// Which of a hundred calls fail.
async fn failing(seed: u64) -> Vec<usize> {
    let story = Story::new(seed).await;
    story.mesh.faults().at("a").fail(Status::aborted("drawn")).share(0.2);
    let mut failing = Vec::new();
    for number in 0..100 {
        if story.get_user().await == Code::Aborted {
            failing.push(number);
        }
    }
    assert_eq!(story.mesh.faults().at("a").met(), failing.len() as u64);
    failing
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_draws_the_same_calls() {
    let first = failing(1).await;
    assert_eq!(first, failing(1).await);
    assert_ne!(first, failing(2).await);
    assert!((8..35).contains(&first.len()), "{first:?}");
}

#[tokio::test(start_paused = true)]
async fn a_layer_around_a_channel_has_faults_of_its_own() {
    let story = Story::new(1).await;
    let layer = story.mesh.faults().layer("what c calls");
    let pool = story.mesh.node("d").pool();
    let factory = move |channel| IdentityServiceClient::new(layer.layer(channel));
    let identity: ServiceClient<IdentityServiceClient<FaultService<ServiceChannel>>> =
        ServiceClient::new(&pool, IDENTITY_V1, factory);
    identity.wait_ready(1, LIMIT).await.unwrap();
    story.mesh.faults().at("what c calls").fail(Status::aborted("here"));
    let status =
        identity.get().unwrap().get_user(wire::GetUserRequest::default()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Aborted, "here"));
    assert_eq!(story.get_user().await, Code::Ok);
    story.mesh.faults().heal();
    identity.get().unwrap().get_user(wire::GetUserRequest::default()).await.unwrap();
}
