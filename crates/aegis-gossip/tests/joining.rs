//! Nodes that join find each other.

use aegis_core::Address;
use aegis_gossip::SyncError;
use aegis_testing::TestCa;
use aegis_topology::SyncState;

use crate::mesh::{IDENTITY, Node, SOON, shows};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_providers_and_a_node_that_knows_only_one_of_them_see_each_other() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let seeds = [&a.address];
    let (b, c) = tokio::join!(Node::start(&ca, "b", &seeds), Node::start(&ca, "c", &seeds));
    for node in [&a, &b, &c] {
        shows(&node.directory(), &["a", "b", "c"]).await;
    }
    let snapshot = c.directory().snapshot();
    let entry = snapshot.providers(&IDENTITY).iter().find(|it| *it.node_id() == "b").unwrap();
    assert_eq!(entry.addresses(), std::slice::from_ref(&b.address));
    assert_eq!(entry.node_type().unwrap().as_str(), "worker");
    assert_eq!(entry.name(), "a worker");
    assert_eq!(&*entry.services()[0].grpc_services()[0], "identity.Service");
    let root = a.directory().version().root;
    for node in [&b, &c] {
        node.directory().wait_for(|it| it.version().root == root, SOON).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_of_nodes_each_of_which_knows_the_one_before_becomes_one_mesh() {
    let ca = TestCa::new();
    let ids = ["n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7"];
    let mut nodes: Vec<Node> = Vec::new();
    for id in ids {
        let last = nodes.last().map(|node| node.address.clone());
        nodes.push(Node::start(&ca, id, &last.iter().collect::<Vec<_>>()).await);
    }
    for node in &nodes {
        shows(&node.directory(), &ids).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_starts_before_its_seed_finds_it() {
    let ca = TestCa::new();
    // Reserved, not listened on: the seed comes up there later.
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::from(reserved.local_addr().unwrap());
    drop(reserved);
    let b = Node::start(&ca, "b", &[&address]).await;
    let failing = b
        .directory()
        .wait_for(|it| matches!(it.sync_state(), SyncState::Failing(_)), SOON)
        .await
        .unwrap();
    assert!(!failing.is_synced());
    let SyncState::Failing(failures) = failing.sync_state() else { panic!() };
    assert_eq!(failures[0].address, address);
    assert!(failures[0].reason.contains("refused"), "{}", failures[0].reason);
    let a = Node::start_at(&ca, "a", &address.to_string(), &[]).await;
    shows(&a.directory(), &["a", "b"]).await;
    shows(&b.directory(), &["a", "b"]).await;
    b.directory().wait_for(aegis_topology::Snapshot::is_synced, SOON).await.unwrap();
}

#[tokio::test]
async fn a_node_without_seeds_is_synced_at_once_and_one_that_is_its_own_seed_too() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    assert!(a.directory().snapshot().is_synced());
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = Address::from(reserved.local_addr().unwrap());
    drop(reserved);
    let b = Node::start_at(&ca, "b", &address.to_string(), &[&address]).await;
    b.directory().wait_for(aegis_topology::Snapshot::is_synced, SOON).await.unwrap();
    let error = b.member.sync_now(&address).await.unwrap_err();
    assert!(matches!(error, SyncError::OwnNode { .. }), "{error}");
}

#[tokio::test]
async fn a_seed_of_another_ca_is_reported_with_the_reason() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let a = Node::start(&other, "a", &[]).await;
    let b = Node::start(&ca, "b", &[&a.address]).await;
    let failing =
        b.directory().wait_for(|it| *it.sync_state() != SyncState::Pending, SOON).await.unwrap();
    let SyncState::Failing(failures) = failing.sync_state() else { panic!() };
    assert!(failures[0].reason.contains("CA"), "{}", failures[0].reason);
    assert_eq!(a.directory().snapshot().nodes().len(), 1);
}

#[tokio::test]
async fn a_sync_on_demand_says_what_it_did() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let b = Node::start(&ca, "b", &[]).await;
    let synced = b.member.sync_now(&a.address).await.unwrap();
    assert_eq!((synced.node_id.as_str(), synced.news, synced.equal), ("a", 1, true));
    assert!(synced.calls <= 3);
    let again = b.member.sync_now(&a.address).await.unwrap();
    assert_eq!((again.news, again.calls), (0, 1));
    shows(&a.directory(), &["a", "b"]).await;
}
