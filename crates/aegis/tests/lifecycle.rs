//! Versions, health, peers of the Go mesh, and the end.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aegis::ServiceInfo;
use aegis::node::{HealthStatus, ServeError};
use aegis_proto::identity::v1::SubscribeSessionEventsRequest;
use aegis_proto::identity::v2;
use aegis_proto::identity::v2::identity_service_client::IdentityServiceClient as ClientV2;
use aegis_proto::identity::v2::identity_service_server::{
    IdentityService as IdentityV2, IdentityServiceServer as ServerV2,
};
use aegis_proto::mesh::mesh_service_client::MeshServiceClient;
use aegis_proto::mesh::{GetTopologyRequest, TopologySyncRequest};
use aegis_testing::{TestMesh, eventually};
use aegis_transport::{BoxFuture, BoxIo, Connections, Listener, Network, Settings};
use tonic::{Code, Request, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::service::{IDENTITY_V1, Identity, LIMIT, ask, client, ready};

const IDENTITY_V2: ServiceInfo = ServiceInfo::from_static("identity", "v2");
const SESSION_V1: ServiceInfo = ServiceInfo::from_static("session", "v1");

struct Second;

#[tonic::async_trait]
impl IdentityV2 for Second {
    async fn renew_session(
        &self,
        _: Request<v2::RenewSessionRequest>,
    ) -> Result<Response<v2::RenewSessionResponse>, Status> {
        Ok(Response::new(v2::RenewSessionResponse { expires_at: 7 }))
    }
}

#[tokio::test]
async fn one_node_serves_versions_side_by_side_and_one_handler_under_two_names() {
    let mesh = TestMesh::in_memory();
    let _a = mesh
        .serve("a", |node| {
            Identity::new("a")
                .on(node)
                .service(IDENTITY_V2, ServerV2::new(Second))
                .advertise(SESSION_V1, ["aegis.identity.v1.IdentityService"])
        })
        .await;
    let pool = mesh.node("c").pool();
    let v1 = ready(&pool, 1).await;
    assert_eq!(ask(&v1, "1").await.unwrap().name, "a");
    let v2 = aegis::ServiceClient::new(&pool, IDENTITY_V2, ClientV2::new);
    let mut v2 = v2.get().unwrap();
    assert_eq!(
        v2.renew_session(v2::RenewSessionRequest::default()).await.unwrap().into_inner().expires_at,
        7
    );
    // A default stub answers what nobody implemented.
    assert_eq!(
        v2.get_user(v2::GetUserRequest::default()).await.unwrap_err().code(),
        Code::Unimplemented
    );
    let session = aegis::ServiceClient::new(
        &pool,
        SESSION_V1,
        aegis_proto::identity::v1::identity_service_client::IdentityServiceClient::new,
    );
    session.wait_ready(1, LIMIT).await.unwrap();
    assert_eq!(
        session
            .get()
            .unwrap()
            .get_user(aegis_proto::identity::v1::GetUserRequest::default())
            .await
            .unwrap()
            .into_inner()
            .name,
        "a"
    );
    // The second name does not stand for the second proto: the server checks what a caller means.
    let mixed = aegis::ServiceClient::new(
        &pool,
        IDENTITY_V2,
        aegis_proto::identity::v1::identity_service_client::IdentityServiceClient::new,
    );
    let status = mixed
        .get()
        .unwrap()
        .get_user(aegis_proto::identity::v1::GetUserRequest::default())
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status}");
    assert!(status.message().contains("does not serve identity/v2"), "{status}");
}

#[tokio::test]
async fn a_stream_that_never_ends_does_not_hold_a_shutdown() {
    let mesh = TestMesh::in_memory();
    let limit = Duration::from_millis(300);
    let a = mesh.serve("a", |node| Identity::new("a").on(node).drain_timeout(limit)).await;
    let identity = ready(&mesh.node("c").pool(), 1).await;
    let mut events = identity
        .get()
        .unwrap()
        .subscribe_session_events(SubscribeSessionEventsRequest {})
        .await
        .unwrap()
        .into_inner();
    events.message().await.unwrap().unwrap();
    let began = Instant::now();
    let shutdown = tokio::spawn(a.shutdown());
    let end = loop {
        match events.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended well"),
            Err(status) => break status,
        }
    };
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    shutdown.await.unwrap().unwrap();
    assert!(limit <= began.elapsed() && began.elapsed() < 10 * limit, "{:?}", began.elapsed());
}

#[tokio::test]
async fn health_follows_the_node() {
    let mesh = TestMesh::in_memory();
    let a = mesh.serve("a", |node| Identity::new("a").on(node).drain_timeout(LIMIT)).await;
    let c = mesh.node("c");
    let identity = ready(&c.pool(), 1).await;
    // A standard client, over the channel of any service of that node.
    let mut health = HealthClient::new(c.pool().channel(IDENTITY_V1));
    let mut check = async |service: &str| {
        health
            .check(HealthCheckRequest { service: service.to_owned() })
            .await
            .map(|reply| reply.into_inner().status())
    };
    for service in ["", "aegis.identity.v1.IdentityService"] {
        assert_eq!(check(service).await.unwrap(), ServingStatus::Serving, "{service:?}");
    }
    assert_eq!(check("unknown").await.unwrap_err().code(), Code::NotFound);
    a.node().health().set(HealthStatus::Unhealthy, "the store is away").await;
    assert_eq!(check("").await.unwrap(), ServingStatus::NotServing);
    let id = a.node().id().clone();
    let told = c.peers().health(&id).await.unwrap();
    assert_eq!(
        (told.status, told.message.as_str()),
        (HealthStatus::Unhealthy, "the store is away")
    );
    a.node().health().set(HealthStatus::Healthy, "").await;
    assert_eq!(check("").await.unwrap(), ServingStatus::Serving);

    let slow = tokio::spawn(async move { ask(&identity, "sleep 300").await });
    let mut watch = HealthClient::new(c.pool().channel(IDENTITY_V1))
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    let shutdown = tokio::spawn(a.shutdown());
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    drop(watch);
    slow.await.unwrap().unwrap();
    shutdown.await.unwrap().unwrap();
}

#[tokio::test]
async fn peers_answer_one_by_one() {
    let mesh = TestMesh::in_memory();
    let c = mesh.node("c");
    let a = mesh.serve("a", |node| Identity::new("a").on(node.name("Morpheus"))).await;
    // Without a seed it knows nobody, until it is told an address.
    let peers = c.peers();
    let id = peers.add(&a.local_addr().into()).await.unwrap();
    assert_eq!(&id, a.node().id());
    c.directory().wait_for(|snapshot| snapshot.node(&id).is_some(), LIMIT).await.unwrap();
    assert!(peers.sync(&"127.0.0.1:1".parse().unwrap()).await.is_err());
    peers.ping(&id).await.unwrap();
    let info = peers.info(&id).await.unwrap();
    assert_eq!(
        (info.id.as_str(), info.name.as_str(), info.node_type.as_str()),
        ("a", "Morpheus", "test")
    );
    assert_eq!(info.address, a.local_addr().to_string());
    assert_eq!(peers.ping(&"nobody".parse().unwrap()).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn a_go_caller_gets_the_whole_list_and_a_higher_version_only_after_a_change() {
    let mesh = TestMesh::in_memory();
    let a = mesh.serve("a", |node| Identity::new("a").on(node)).await;
    let connections =
        Connections::new(mesh.ca().tls("go", "test"), mesh.network(), Settings::default());
    let link = connections.dial_seed(&a.local_addr().into()).await.unwrap();
    let mut go = MeshServiceClient::new(link.channel());
    let mut sync = async |version| {
        go.sync_topology(TopologySyncRequest { sender_id: "go".into(), version })
            .await
            .unwrap()
            .into_inner()
    };
    let first = sync(5).await;
    assert!(5 < first.version, "it knows nothing of ours yet");
    assert_eq!(first.nodes.iter().map(|node| node.id.as_str()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(sync(first.version).await.version, first.version, "nothing changed");
    // A number that is larger than any of ours, the largest included, moves nothing of ours.
    assert_eq!(sync(i64::MAX).await.version, i64::MAX);

    let b = mesh.serve("b", |node| node).await;
    eventually(LIMIT, || match a.node().directory().snapshot().nodes().len() {
        2 => Ok(()),
        count => Err(format!("{count} nodes")),
    })
    .await;
    let changed = sync(first.version).await;
    assert!(first.version < changed.version);
    assert_eq!(changed.nodes.len(), 2);
    let mut go = MeshServiceClient::new(link.channel());
    assert_eq!(
        go.get_topology(GetTopologyRequest { sender_id: "go".into() })
            .await
            .unwrap()
            .into_inner()
            .nodes,
        changed.nodes
    );
    drop(b);
}

#[tokio::test]
async fn a_closed_pool_says_so() {
    let mesh = TestMesh::in_memory();
    let _a = mesh.serve("a", |node| Identity::new("a").on(node)).await;
    let pool = mesh.node("c").pool();
    ready(&pool, 1).await;
    pool.close().await;
    assert!(matches!(client(&pool).get().map(|_| ()), Err(aegis::client::Error::Closed)));
}

/// A network whose listeners break.
#[derive(Debug)]
struct Breaking(Arc<dyn Network>);

struct BrokenListener(std::net::SocketAddr);

impl Network for Breaking {
    fn connect(&self, address: &aegis::Address) -> BoxFuture<'static, io::Result<BoxIo>> {
        self.0.connect(address)
    }

    fn bind(&self, address: &aegis::Address) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let bound = self.0.bind(address);
        Box::pin(async move {
            let local = bound.await?.local_addr()?;
            Ok(Box::new(BrokenListener(local)) as Box<dyn Listener>)
        })
    }
}

impl Listener for BrokenListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxIo>> {
        panic!("the listener broke")
    }

    fn local_addr(&self) -> io::Result<std::net::SocketAddr> {
        Ok(self.0)
    }
}

#[tokio::test]
async fn a_server_that_stops_by_itself_says_so() {
    let mesh = TestMesh::in_memory();
    let broken = || mesh.builder("a").network(Arc::new(Breaking(mesh.network()))).build().unwrap();
    let waiting = broken().start().await.unwrap().run_until_signal();
    let ended = tokio::time::timeout(LIMIT, waiting).await.unwrap();
    assert!(matches!(ended, Err(ServeError::Stopped { source: Some(_) })), "{ended:?}");
}
