//! What `build()` and `start()` refuse.

use aegis::node::{BuildError, MemberStatus, StartError};
use aegis::{Node, NodeBuilder, ServiceInfo, TlsOptions};
use aegis_testing::{TestCa, TestMesh};

use crate::service::{IDENTITY_V1, Identity, LIMIT};

const AUDIT_V1: ServiceInfo = ServiceInfo::from_static("audit", "v1");

/// Each mistake, by its variant.
#[track_caller]
fn check(with: impl FnOnce(NodeBuilder) -> NodeBuilder, expected: &[&str]) {
    let ca = TestCa::new();
    let builder = Node::builder()
        .id("a")
        .node_type("test")
        .address("127.0.0.1:0")
        .tls(ca.options("a", "test"));
    let error = with(builder).build().map(|_| ()).unwrap_err();
    let found: Vec<_> = error.mistakes().map(variant).collect();
    assert_eq!(found, expected, "{error}");
}

fn variant(mistake: &BuildError) -> &'static str {
    match mistake {
        BuildError::Advertise { .. } => "Advertise",
        BuildError::Advertised { .. } => "Advertised",
        BuildError::Duplicate { .. } => "Duplicate",
        BuildError::Label { .. } => "Label",
        BuildError::Name { .. } => "Name",
        BuildError::NoAddress => "NoAddress",
        BuildError::Reserved { .. } => "Reserved",
        _ => "another",
    }
}

#[test]
fn each_mistake_has_its_reason() {
    let identity = Identity::new("a");
    check(|node| node.id("../a"), &["Name"]);
    check(|node| node.node_type("Type"), &["Name"]);
    check(|node| node.address("nowhere"), &["Name"]);
    check(|node| node.join(["nowhere"]), &["Name"]);
    check(|node| node.name("line\nbreak"), &["Label"]);
    check(|node| node.address("0.0.0.0:80"), &["Advertise"]);
    check(|node| node.address("[::]:0"), &["Advertise"]);
    check(|node| node.address("0.0.0.0:80").advertise_address("0.0.0.0:80"), &["Advertise"]);
    check(|node| node.advertise(AUDIT_V1, ["audit.Audit"]), &["Advertised"]);
    check(
        |node| node.service(IDENTITY_V1, identity.server()).service(AUDIT_V1, identity.server()),
        &["Duplicate"],
    );
    check(|node| node.routes(|routes| routes.add(reserved())), &["Reserved"]);
}

#[test]
fn mistakes_are_told_all_at_once() {
    check(
        |node| node.id("A").join(["x"]).address("0.0.0.0:1").advertise(AUDIT_V1, ["audit.Audit"]),
        &["Name", "Name", "Advertise", "Advertised"],
    );
    let text = Node::builder().id("A").build().map(|_| ()).unwrap_err().to_string();
    assert_eq!(
        text,
        "2 mistakes; id is not valid: \"A\" is not a valid node id: it must begin and end with a-z or 0-9; \
         the node has no certificates: name their source with cert_dir or tls"
    );
}

/// Two versions from one proto package: the likely way to it.
#[test]
fn a_handler_registered_twice_is_told_the_two_ways_out() {
    let (identity, ca) = (Identity::new("a"), TestCa::new());
    let builder = Node::builder()
        .id("a")
        .node_type("test")
        .address("127.0.0.1:0")
        .tls(ca.options("a", "test"));
    let twice =
        builder.service(IDENTITY_V1, identity.server()).service(AUDIT_V1, identity.server());
    assert_eq!(
        twice.build().map(|_| ()).unwrap_err().to_string(),
        "aegis.identity.v1.IdentityService is registered twice: give another version a proto package of its own, \
         or register one handler and name it again with advertise"
    );
}

#[test]
fn a_node_needs_an_id_and_certificates() {
    assert!(matches!(Node::builder().id("a").build(), Err(BuildError::NoTlsConfig)));
    let ca = TestCa::new();
    assert!(matches!(Node::builder().tls(ca.options("a", "test")).build(), Err(BuildError::NoId)));
}

#[test]
fn services_need_an_address() {
    let identity = Identity::new("a");
    let ca = TestCa::new();
    let builder = || Node::builder().id("a").node_type("test").tls(ca.options("a", "test"));
    builder().build().unwrap();
    for node in [
        builder().service(IDENTITY_V1, identity.server()),
        builder().routes(|routes| routes.add(identity.server())),
    ] {
        let error = node.build().map(|_| ()).unwrap_err();
        assert!(matches!(error, BuildError::NoAddress), "{error}");
    }
}

/// What `main` prints of an error that it returns is its `Debug`.
#[tokio::test]
async fn an_error_that_main_returns_is_shown_with_its_causes() {
    let mesh = TestMesh::loopback();
    let server = mesh.serve("a", |node| node).await;
    let address = server.local_addr().to_string();
    let taken = mesh.builder("b").address(&address).build().unwrap();
    let error = taken.start().await.map(|_| ()).unwrap_err();
    let text = format!("{error:?}");
    assert!(text.starts_with(&format!("cannot listen on {address}: ")), "{text}");
    assert!(text.contains("already in use"), "{text}");

    let other = mesh.builder("b").tls(mesh.ca().options("c", "test")).build();
    let text = format!("{:?}", other.map(|_| ()).unwrap_err());
    assert!(text.starts_with("cannot use the certificates of this node: "), "{text}");
    assert!(text.contains("certificate of node c") && text.contains("the node is b"), "{text}");

    let pool = aegis::ServicePool::builder().tls(TlsOptions::files("a", "b", "c")).seeds(["a:1"]);
    let text = format!("{:?}", pool.build().unwrap_err());
    assert!(text.contains("cannot read the certificate a: No such file"), "{text}");

    let nobody = "127.0.0.1:1".parse().unwrap();
    let text = format!("{:?}", mesh.node("d").peers().sync(&nobody).await.unwrap_err());
    assert!(text.contains("cannot reach 127.0.0.1:1: Connection refused"), "{text}");

    let text = format!("{:?}", "Identity/v1".parse::<ServiceInfo>().unwrap_err());
    assert!(text.starts_with("\"Identity\" is not a valid service name: "), "{text}");
}

#[test]
fn a_certificate_of_another_identity_is_refused() {
    let ca = TestCa::new();
    for (id, node_type) in [("b", "test"), ("a", "other")] {
        let error = Node::builder()
            .id("a")
            .node_type("test")
            .tls(ca.options(id, node_type))
            .build()
            .map(|_| ())
            .unwrap_err();
        assert!(matches!(error, BuildError::Tls { .. }), "{error:?}");
    }
}

#[test]
fn a_missing_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a-cert.pem");
    let options =
        TlsOptions::files(&path, dir.path().join("a-key.pem"), dir.path().join("ca-cert.pem"));
    let error = Node::builder().id("a").tls(options).build().map(|_| ()).unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    assert!(text.contains(path.to_str().unwrap()), "{text}");
}

#[tokio::test]
async fn a_node_listens_once_and_only_where_it_can() {
    let mesh = TestMesh::loopback();
    let client = mesh.ca().options("c", "test");
    let no_address = Node::builder().id("c").node_type("test").tls(client).build().unwrap();
    assert!(matches!(no_address.start().await, Err(StartError::NoAddress { .. })));

    let server = mesh.serve("a", |node| node).await;
    assert!(matches!(server.node().start().await, Err(StartError::AlreadyStarted { .. })));

    let identity = Identity::new("a");
    let provider = mesh.serve("p", |node| identity.on(node)).await;
    let taken = mesh.builder("b").address(server.local_addr().to_string()).build().unwrap();
    // What was handed out before a failed start goes on following the mesh.
    let directory = taken.directory();
    let error = taken.start().await.map(|_| ()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {}", server.local_addr()));
    directory.wait_for_providers(&IDENTITY_V1, 1, LIMIT).await.unwrap();
    // The failed start can be tried again.
    server.shutdown().await.unwrap();
    let second = taken.start().await.unwrap();
    assert!(matches!(second.membership(), MemberStatus::Advertised { .. }));
    second.shutdown().await.unwrap();
    drop(provider);
}

/// A handler that takes one of our own names.
fn reserved() -> Reserved {
    Reserved
}

#[derive(Clone)]
struct Reserved;

impl tonic::server::NamedService for Reserved {
    const NAME: &'static str = "aegis.mesh.v1.DirectoryService";
}

impl tonic::codegen::Service<http::Request<tonic::body::Body>> for Reserved {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<tonic::body::Body>) -> Self::Future {
        std::future::ready(Ok(http::Response::new(tonic::body::Body::empty())))
    }
}
