//! Nobody speaks for anybody else.

use std::time::Duration;

use aegis_core::{NodeId, SpiffeId};
use aegis_gossip::{MemberStatus, Settings};
use aegis_proto::convert::encode_record;
use aegis_proto::mesh::v1 as wire;
use aegis_proto::mesh::v1::directory_service_client::DirectoryServiceClient;
use aegis_testing::TestCa;
use aegis_tls::Tls;
use aegis_topology::{Instance, Precedence, Record, SignedRecord, Timestamp};
use aegis_transport::Target;
use bytes::Bytes;

use crate::mesh::{Node, SOON, connections, describe, eventually, shows};

/// Pushes a record about `about`, signed by the key of the process that pushes it.
async fn push(from: &Tls, to: &Node, about: &str, precedence: Precedence, port: u16) {
    let own = from.spiffe_id();
    let owner = SpiffeId::new(
        own.trust_domain().clone(),
        own.node_type().clone(),
        NodeId::new(about).unwrap(),
    );
    let instance = Instance::from_bytes([9; 16]);
    let description = describe(&format!("127.0.0.1:{port}").parse().unwrap());
    let minute = Duration::from_secs(60);
    let record = Record::new(owner, instance, precedence, description, now(), minute);
    let body = encode_record(&record);
    let signature = from.sign_record(&body).unwrap();
    let chain: Vec<_> = signature.chain.iter().map(|der| Bytes::copy_from_slice(der)).collect();
    let record = SignedRecord::new(body, chain, signature.scheme, signature.signature.into());
    let target = Target::new(to.tls.spiffe_id().node_id().clone(), vec![to.address.clone()]);
    let connections = connections(from);
    let link = connections.link(target);
    let request = wire::SyncRequest { records: vec![record.into()], ..Default::default() };
    DirectoryServiceClient::new(link.channel()).sync(request).await.unwrap();
}

fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

#[tokio::test]
async fn a_node_with_a_valid_certificate_cannot_publish_a_record_for_another_id() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let b = Node::start(&ca, "b", &[&a.address]).await;
    shows(&a.directory(), &["a", "b"]).await;
    let mallory = ca.tls("mallory", "worker");
    let later = Precedence::new(now().as_millis() + 1_000, 1);
    push(&mallory, &a, "b", later, 1).await;
    push(&mallory, &a, "ghost", later, 1).await;
    assert_eq!(a.member.counters().refused, 2);
    let snapshot = a.directory().snapshot();
    let entry = snapshot.node(&NodeId::from_static("b")).unwrap();
    assert_eq!(entry.addresses(), std::slice::from_ref(&b.address));
    assert!(snapshot.node(&NodeId::from_static("ghost")).is_none());
    // The same record about itself is taken.
    push(&mallory, &a, "mallory", later, 1).await;
    shows(&a.directory(), &["a", "b", "mallory"]).await;
    assert_eq!(a.member.counters().refused, 2);
}

#[tokio::test]
async fn an_owner_that_signs_two_records_with_one_number_is_counted() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let b = ca.tls("b", "worker");
    for port in [1, 2] {
        push(&b, &a, "b", Precedence::new(5, 5), port).await;
    }
    assert_eq!(a.member.counters().equivocations, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_last_run_had_a_later_clock_is_shown_all_the_same() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let an_hour_ahead = Precedence::new(now().as_millis() + 3_600_000, 7);
    push(&ca.tls("b", "worker"), &a, "b", an_hour_ahead, 1).await;
    let b = Node::start(&ca, "b", &[&a.address]).await;
    let id = NodeId::from_static("b");
    for node in [&a, &b] {
        node.directory()
            .wait_for(|it| it.node(&id).is_some_and(|it| it.addresses()[0] == b.address), SOON)
            .await
            .unwrap();
    }
    // b itself was right from the start; what counts is that it won.
    let won = |it: &aegis_topology::Snapshot| {
        an_hour_ahead.incarnation < it.node(&id).unwrap().incarnation()
    };
    b.directory().wait_for(won, SOON).await.unwrap();
    let seen = a.directory().snapshot().node(&id).unwrap().incarnation();
    assert!(an_hour_ahead.incarnation < seen);
    assert_eq!(b.member.counters().conflicts, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_with_one_id_the_later_one_is_shown_and_the_other_returns_when_it_is_gone()
{
    let ca = TestCa::new();
    let mut settings = Settings::default();
    settings.conflict_every = Duration::from_millis(200);
    let a = Node::start(&ca, "a", &[]).await;
    let first = Node::start_with(&ca, "b", "127.0.0.1:0", &[&a.address], settings.clone()).await;
    shows(&a.directory(), &["a", "b"]).await;
    let second = Node::start_with(&ca, "b", "127.0.0.1:0", &[&a.address], settings).await;
    let id = NodeId::from_static("b");
    let at = |address: &aegis_core::Address| {
        let (directory, address) = (a.directory(), address.clone());
        let id = id.clone();
        async move {
            let shown = |it: &aegis_topology::Snapshot| {
                it.node(&id).is_some_and(|it| it.addresses()[0] == address)
            };
            directory.wait_for(shown, SOON).await.unwrap();
        }
    };
    at(&second.address).await;
    let displaced = MemberStatus::Displaced { address: second.address.clone() };
    eventually(|| first.member.status() == displaced).await;
    // Both report it.
    eventually(|| 1 <= first.member.counters().conflicts).await;
    eventually(|| 1 <= second.member.counters().conflicts).await;
    drop(second);
    at(&first.address).await;
    assert!(matches!(first.member.status(), MemberStatus::Advertised { .. }));
}
