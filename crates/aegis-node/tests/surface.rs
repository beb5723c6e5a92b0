//! What the API promises beside serving: counters, layers, and that nothing secret is printed.

use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use aegis_node::{BuildError, Handler, HandlerFuture, Limits, Node, ServerStats, StartError};
use aegis_testing::{TestCa, TestMesh, eventually};
use http::Request;
use tonic::body::Body;
use tonic::service::interceptor::InterceptedService;
use tower_layer::Layer;
use tower_service::Service;

use crate::support::{LAB_V1, LIMIT, Lab, Peer, node, node_with, post};

#[tokio::test]
async fn each_counter_counts() {
    let (mesh, server, _lab) = node(Limits::default()).await;
    assert_eq!(server.stats(), ServerStats::default());
    let first = Peer::connect(mesh.ca(), "a", server.local_addr()).await;
    for _ in 0..1_000 {
        first.ask().await;
    }
    // Read once for a connection, whatever the number of its calls.
    let stats = server.stats();
    assert_eq!((stats.connections, stats.accepted), (1, 1));
    assert_eq!((stats.calls, stats.certificates_parsed), (1_000, 1));
    let second = Peer::connect(mesh.ca(), "b", server.local_addr()).await;
    second.ask().await;
    let stats = server.stats();
    assert_eq!((stats.connections, stats.accepted), (2, 2));
    assert_eq!((stats.calls, stats.certificates_parsed), (1_001, 2));
    drop((first, second));
    eventually(LIMIT, || match server.stats().connections {
        0 => Ok(()),
        open => Err(format!("{open} are open")),
    })
    .await;
    let stats = server.stats();
    assert_eq!((stats.refused, stats.evicted, stats.over_limit), (0, 0, 0), "{stats:?}");
}

/// Notes its name when a request passes.
#[derive(Clone)]
struct Note(&'static str, Arc<Mutex<Vec<String>>>);

#[derive(Clone)]
struct Noting(Note, Handler);

impl Layer<Handler> for Note {
    type Service = Noting;

    fn layer(&self, handler: Handler) -> Noting {
        Noting(self.clone(), handler)
    }
}

impl Service<Request<Body>> for Noting {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = HandlerFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.1.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> HandlerFuture {
        let Note(name, notes) = &self.0;
        notes.lock().unwrap().push(format!("{name} {}", self.1.name()));
        self.1.call(request)
    }
}

#[tokio::test]
async fn the_first_layer_runs_first_and_ours_have_none() {
    let notes = Arc::<Mutex<Vec<_>>>::default();
    let note = |name| Note(name, Arc::clone(&notes));
    let with = |node: aegis_node::NodeBuilder| node.layer(note("first")).layer(note("last"));
    let (mesh, server, _lab) = node_with(Limits::default(), with).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    peer.ask().await;
    assert_eq!(*notes.lock().unwrap(), ["first test.Lab", "last test.Lab"]);
    let ping = Request::post("https://server/aegis.MeshService/Ping")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let answer = peer.call(ping, crate::support::message(b"")).await.unwrap();
    assert_eq!(answer.code(), Some("0"));
    assert_eq!(notes.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn nothing_secret_is_printed() {
    let ca = TestCa::new();
    let certificate = ca.issue("a", "test");
    let secret: String = certificate.key_pem.lines().nth(1).unwrap().chars().take(24).collect();
    let builder = || {
        Node::builder()
            .id("a")
            .node_type("test")
            .address("127.0.0.1:0")
            .tls(certificate.options())
            .service(LAB_V1, Lab::default())
    };
    let node = builder().build().unwrap();
    let server = node.start().await.unwrap();
    let text = format!(
        "{:?} {node:?} {server:?} {:?} {:?} {:?} {:?} {:?}",
        builder(),
        node.peers(),
        node.health(),
        node.pool(),
        node.directory(),
        server.stats(),
    );
    let key: Vec<u8> = certificate.key().secret_der().to_vec();
    assert!(!text.contains(&secret) && !text.contains("PRIVATE"), "{text}");
    assert!(!text.contains(&format!("{:?}", &key[..8]).replace(['[', ']'], "")), "{text}");
    assert!(text.contains("id: "), "nothing is printed: {text}");
}

#[tokio::test]
async fn a_node_starts_once() {
    let (_mesh, server, _lab) = node(Limits::default()).await;
    let node = server.node().clone();
    assert!(matches!(node.start().await, Err(StartError::AlreadyStarted { .. })));
    server.shutdown().await.unwrap();
    assert!(matches!(node.start().await, Err(StartError::AlreadyStarted { .. })));
}

#[test]
fn a_service_that_consists_of_nothing_is_a_mistake() {
    let ca = TestCa::new();
    let node = Node::builder().id("a").address("127.0.0.1:0").tls(ca.options("a", "node"));
    let error = node.advertise::<String>(LAB_V1, []).build().unwrap_err();
    assert!(matches!(error, BuildError::Empty { .. }), "{error}");
}

#[tokio::test]
async fn a_handler_may_have_an_interceptor() {
    // What the `with_interceptor` of a generated server makes; its bodies are of a type of their own.
    let refusing = InterceptedService::new(Lab::default(), |_: tonic::Request<()>| {
        Err(tonic::Status::permission_denied("not today"))
    });
    let mesh = TestMesh::loopback();
    let server = mesh.serve("server", |node| node.service(LAB_V1, refusing)).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    let answer = peer.call(post("Echo"), bytes::Bytes::new()).await.unwrap();
    assert_eq!((answer.code(), answer.text()), (Some("7"), "not%20today"));
}
