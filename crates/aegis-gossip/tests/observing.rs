//! Processes that follow a mesh without being in it.

use aegis_gossip::Settings;
use aegis_testing::TestCa;
use aegis_topology::{NodeState, SyncState};

use crate::mesh::{Node, SOON, observe, observe_with, shows};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_sees_everybody_and_nobody_sees_it() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let b = Node::start(&ca, "b", &[&a.address]).await;
    let observer = observe(&ca, "client", &[&a.address]);
    let directory = observer.directory();
    directory.wait_for(aegis_topology::Snapshot::is_synced, SOON).await.unwrap();
    shows(&directory, &["a", "b"]).await;
    let c = Node::start(&ca, "c", &[&b.address]).await;
    shows(&directory, &["a", "b", "c"]).await;
    let root = directory.version().root;
    c.directory().wait_for(|it| it.version().root == root, SOON).await.unwrap();
    shows(&a.directory(), &["a", "b", "c"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_whose_member_dies_follows_another() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let b = Node::start(&ca, "b", &[&a.address]).await;
    let mut settings = Settings::default();
    // With two, the other one would have brought the news anyway.
    settings.watched_members = 1;
    let observer = observe_with(&ca, "client", &[&a.address], settings);
    shows(&observer.directory(), &["a", "b"]).await;
    drop(a);
    b.member.set_state(NodeState::Draining, SOON).await.unwrap();
    shows(&observer.directory(), &["a"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_observer_started_before_its_seed_says_why_it_waits_and_then_syncs() {
    let ca = TestCa::new();
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = reserved.local_addr().unwrap().into();
    drop(reserved);
    let observer = observe(&ca, "client", &[&address]);
    let directory = observer.directory();
    let failing = |it: &aegis_topology::Snapshot| matches!(it.sync_state(), SyncState::Failing(_));
    directory.wait_for(failing, SOON).await.unwrap();
    let _a = Node::start_at(&ca, "a", &address.to_string(), &[]).await;
    directory.wait_for(aegis_topology::Snapshot::is_synced, SOON).await.unwrap();
    shows(&directory, &["a"]).await;
}

#[tokio::test]
async fn an_observer_with_the_id_of_its_seed_says_that_this_is_another_process() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let observer = observe(&ca, "a", &[&a.address]);
    let failing = |it: &aegis_topology::Snapshot| matches!(it.sync_state(), SyncState::Failing(_));
    let snapshot = observer.directory().wait_for(failing, SOON).await.unwrap();
    let SyncState::Failing(failures) = snapshot.sync_state() else { panic!() };
    assert!(failures[0].reason.contains("another process"), "{}", failures[0].reason);
}

#[tokio::test]
async fn an_observer_without_seeds_has_nothing_to_wait_for() {
    let ca = TestCa::new();
    let observer = observe(&ca, "client", &[]);
    assert!(observer.directory().snapshot().is_synced());
}
