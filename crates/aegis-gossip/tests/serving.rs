//! What the service answers.

use aegis_core::{NodeId, ServiceInfo};
use aegis_proto::convert::{decode_record, records};
use aegis_proto::mesh::v1 as wire;
use aegis_proto::mesh::v1::directory_service_client::DirectoryServiceClient;
use aegis_testing::TestCa;
use aegis_tls::Expected;
use aegis_topology::{Description, Key, Label, NodeState, ServiceEntry};
use aegis_transport::Target;
use bytes::Bytes;
use tonic::{Code, Request};

use crate::mesh::{Node, SOON, connections, link, push, record, shows, sign};

#[tokio::test]
async fn a_caller_without_a_certificate_gets_no_answer() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    // Past the transport: as if a server had forgotten to say who calls.
    let mut client = DirectoryServiceClient::new(a.member.service());
    let code = |status: tonic::Status| status.code();
    let sync = client.sync(wire::SyncRequest::default()).await.map_err(code).unwrap_err();
    let fetch = client.fetch_records(wire::FetchRequest::default()).await.map_err(code).err();
    let watch = client.watch_topology(wire::WatchRequest::default()).await.map_err(code).err();
    assert_eq!([Some(sync), fetch, watch], [Some(Code::Unauthenticated); 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_can_be_read_all_or_by_key_and_providers_first() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let _b = Node::start(&ca, "b", &[&a.address]).await;
    shows(&a.directory(), &["a", "b"]).await;
    let tls = ca.tls("client", "client");
    let connections = connections(&tls);
    let link = connections.link(Target::new(NodeId::from_static("a"), vec![a.address.clone()]));
    let mut client = DirectoryServiceClient::new(link.channel());
    let mut fetch = async |keys: Vec<Bytes>| {
        let request = wire::FetchRequest { keys, services_first: vec!["identity".to_owned()] };
        let mut pages = client.fetch_records(request).await.unwrap().into_inner();
        let mut ids = Vec::new();
        while let Some(page) = pages.message().await.unwrap() {
            for record in records(page.records).unwrap().0 {
                ids.push(decode_record(&record.body).unwrap().owner.node_id().to_string());
            }
        }
        ids.sort();
        ids
    };
    assert_eq!(fetch(Vec::new()).await, ["a", "b"]);
    let key = Key::of(tls.spiffe_id().trust_domain(), &NodeId::from_static("b"));
    let key = Bytes::copy_from_slice(key.as_bytes());
    assert_eq!(fetch(vec![key.clone(), key]).await, ["b"]);
    assert_eq!(fetch(vec![Bytes::from_static(&[0; 16])]).await, Vec::<String>::new());

    let swim = client.swim(wire::SwimPacket::default()).await.unwrap_err();
    assert_eq!(swim.code(), Code::Unimplemented);
    let nonsense = wire::SyncRequest { root: Bytes::from_static(b"short"), ..Default::default() };
    let refused = client.sync(nonsense).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn one_caller_cannot_hold_many_streams() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let tls = ca.tls("client", "client");
    let connections = connections(&tls);
    let link = connections.link(Target::new(NodeId::from_static("a"), vec![a.address.clone()]));
    let mut client = DirectoryServiceClient::new(link.channel());
    let mut streams = Vec::new();
    let refused = loop {
        match client.watch_topology(Request::new(wire::WatchRequest::default())).await {
            Ok(stream) => streams.push(stream),
            Err(status) => break status,
        }
        assert!(streams.len() < 100);
    };
    assert_eq!((streams.len(), refused.code()), (8, Code::Unavailable));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_of_one_service_hears_of_its_providers_only_and_of_what_becomes_of_them() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let tls = ca.tls("client", "client");
    let connections = connections(&tls);
    let link = connections.link(Target::new(NodeId::from_static("a"), vec![a.address.clone()]));
    let mut client = DirectoryServiceClient::new(link.channel());
    let mut follow = async |service: &str| {
        let services = vec![service.to_owned()];
        let request = wire::WatchRequest { services, ..Default::default() };
        client.watch_topology(request).await.unwrap().into_inner()
    };
    let mut followed = follow("identity/v1").await;
    let mut other = follow("billing").await;
    let first = followed.message().await.unwrap().unwrap();
    assert_eq!((first.records.len(), first.root.len()), (1, 16));
    assert_eq!(other.message().await.unwrap().unwrap().records.len(), 0);
    // The goodbye names no service any more.
    a.member.leave(SOON).await.unwrap();
    let last = followed.message().await.unwrap().unwrap();
    let last = decode_record(&last.records[0].body).unwrap();
    assert_eq!((last.state, last.description.services().len()), (NodeState::Left, 0));
    assert_eq!(other.message().await.unwrap().unwrap().records.len(), 0);
    for stream in [&mut followed, &mut other] {
        assert!(stream.message().await.unwrap().is_none(), "a node that left ends its streams");
    }
}

#[tokio::test]
async fn a_follower_that_has_everything_is_told_so_without_records() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let root = Bytes::copy_from_slice(&a.directory().version().root.to_bytes());
    let tls = ca.tls("client", "client");
    let connections = connections(&tls);
    let link = connections.link(Target::new(NodeId::from_static("a"), vec![a.address.clone()]));
    let request = wire::WatchRequest { root: root.clone(), services: Vec::new() };
    let mut stream =
        DirectoryServiceClient::new(link.channel()).watch_topology(request).await.unwrap();
    let first = stream.get_mut().message().await.unwrap().unwrap();
    assert_eq!((first.records.len(), first.root), (0, root));
}

#[tokio::test]
async fn providers_of_what_a_reader_wants_come_first() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let tls = ca.tls("b", "worker");
    let mut billing = record(&tls, "b");
    let service = ServiceEntry::new(ServiceInfo::from_static("billing", "v2"));
    let address = "127.0.0.1:1".parse().unwrap();
    billing.description = Description::new(Label::default(), [address], [service]).unwrap();
    push(&tls, &a, [sign(&tls, &billing)]).await;
    let (_connections, link) = link(&tls, &a);
    let mut client = DirectoryServiceClient::new(link.channel());
    for (services_first, expected) in
        [("billing", "b"), ("billing/v2", "b"), ("identity", "a"), ("identity/v1", "a")]
    {
        let services_first = vec![services_first.to_owned()];
        let request = wire::FetchRequest { keys: Vec::new(), services_first };
        let mut pages = client.fetch_records(request).await.unwrap().into_inner();
        let page = pages.message().await.unwrap().unwrap();
        let first = decode_record(&page.records[0].body).unwrap();
        assert_eq!((page.records.len(), first.owner.node_id().as_str()), (2, expected));
    }
}

#[tokio::test]
async fn one_caller_cannot_read_many_times_at_once() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let (near, far) = tokio::io::duplex(64 << 10);
    let (id, tls) = (NodeId::from_static("a"), ca.tls("client", "client"));
    let (connected, accepted) =
        tokio::join!(tls.connect(Expected::Node(&id), near), a.tls.accept(far));
    connected.unwrap();
    let caller = accepted.unwrap().caller;
    // Past the transport, which would read ahead.
    let mut client = DirectoryServiceClient::new(a.member.service());
    let mut fetch = async || {
        let mut request = Request::new(wire::FetchRequest::default());
        request.extensions_mut().insert(caller.clone());
        client.fetch_records(request).await.map_err(|status| status.code())
    };
    let mut streams = Vec::new();
    for _ in 0..4 {
        streams.push(fetch().await.unwrap());
    }
    assert_eq!(fetch().await.err(), Some(Code::ResourceExhausted));
    streams.pop();
    assert!(fetch().await.is_ok());
}

#[tokio::test]
async fn what_is_no_service_cannot_be_followed() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let (_connections, link) = link(&ca.tls("client", "client"), &a);
    let mut client = DirectoryServiceClient::new(link.channel());
    let many: Vec<_> = (0..257).map(|at| format!("s{at}")).collect();
    for services in [vec!["../etc".to_owned()], vec!["x".repeat(1 << 20)], many] {
        let request = wire::WatchRequest { services: services.clone(), ..Default::default() };
        let watched = client.watch_topology(request).await.map_err(|status| status.code());
        let request = wire::FetchRequest { keys: Vec::new(), services_first: services };
        let fetched = client.fetch_records(request).await.map_err(|status| status.code());
        let refused = Some(Code::InvalidArgument);
        assert_eq!((watched.err(), fetched.err()), (refused, refused));
    }
}
