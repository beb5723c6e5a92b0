//! Nodes that drain, leave, die and come back.

use std::time::Duration;

use aegis_core::NodeId;
use aegis_testing::TestCa;
use aegis_topology::NodeState;

use crate::hostile::Echo;
use crate::mesh::{IDENTITY, Node, SOON, Stranger, observe, shows, state};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_draining_node_is_known_to_its_peers_and_followers_when_the_call_returns() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let b = Node::start(&ca, "b", &[&a.address]).await;
    let c = observe(&ca, "c", &[&a.address]);
    for directory in [a.directory(), b.directory(), c.directory()] {
        shows(&directory, &["a", "b"]).await;
    }
    let acknowledged = a.member.set_state(NodeState::Draining, SOON).await.unwrap();
    assert_eq!((acknowledged.asked, acknowledged.acknowledged), (1, 1));
    // Peers have merged it; their snapshot follows within moments.
    for directory in [a.directory(), b.directory(), c.directory()] {
        shows(&directory, &["b"]).await;
        assert_eq!(state(&directory, "a"), Some(NodeState::Draining));
        assert_eq!(directory.snapshot().providers(&IDENTITY).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_leaves_is_gone_everywhere_and_comes_back_when_it_restarts() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let b = Node::start(&ca, "b", &[&a.address]).await;
    let c = Node::start(&ca, "c", &[&a.address]).await;
    shows(&c.directory(), &["a", "b", "c"]).await;
    b.member.leave(SOON).await.unwrap();
    drop(b);
    for node in [&a, &c] {
        shows(&node.directory(), &["a", "c"]).await;
        assert_eq!(state(&node.directory(), "b"), Some(NodeState::Left));
        assert_eq!(node.directory().snapshot().nodes().len(), 2);
    }
    let b = Node::start(&ca, "b", &[&c.address]).await;
    for node in [&a, &b, &c] {
        shows(&node.directory(), &["a", "b", "c"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_killed_and_restarts_elsewhere_shows_once_with_the_new_address() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let b = Node::start(&ca, "b", &[&a.address]).await;
    shows(&a.directory(), &["a", "b"]).await;
    drop(b);
    let b = Node::start(&ca, "b", &[&a.address]).await;
    let id = NodeId::from_static("b");
    let moved = a
        .directory()
        .wait_for(|it| it.node(&id).is_some_and(|it| it.addresses()[0] == b.address), SOON)
        .await
        .unwrap();
    assert_eq!(moved.nodes().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_without_anybody_to_tell_ends_at_once_and_one_with_a_dead_peer_at_its_bound() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let alone = a.member.set_state(NodeState::Draining, Duration::from_secs(60)).await.unwrap();
    assert_eq!(alone.asked, 0);
    let b = Node::start(&ca, "b", &[]).await;
    let c = Node::start(&ca, "c", &[&b.address]).await;
    shows(&b.directory(), &["b", "c"]).await;
    drop(c);
    let acknowledged = b.member.leave(Duration::from_millis(500)).await.unwrap();
    assert_eq!(acknowledged.acknowledged, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_seed_that_left_and_restarts_without_seeds_is_found_again() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let settings = {
        let mut settings = aegis_gossip::Settings::default();
        settings.seed_every = Duration::from_millis(300);
        settings
    };
    let b = Node::start_with(&ca, "b", "127.0.0.1:0", &[&a.address], settings).await;
    shows(&a.directory(), &["a", "b"]).await;
    let address = a.address.clone();
    a.member.leave(SOON).await.unwrap();
    drop(a);
    shows(&b.directory(), &["b"]).await;
    let a = Node::start_at(&ca, "a", &address.to_string(), &[]).await;
    shows(&b.directory(), &["a", "b"]).await;
    shows(&a.directory(), &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_was_dead_for_a_while_is_found_again_though_it_knows_nobody() {
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let b = Node::start(&ca, "b", &[&a.address]).await;
    shows(&a.directory(), &["a", "b"]).await;
    let (address, id) = (b.address.clone(), NodeId::from_static("b"));
    drop(b);
    let first = a.directory().snapshot().node(&id).unwrap().incarnation();
    a.member.sync_now(&address).await.unwrap_err();
    let b = Node::start_at(&ca, "b", &address.to_string(), &[]).await;
    let again = |it: &aegis_topology::Snapshot| first < it.node(&id).unwrap().incarnation();
    a.directory().wait_for(again, 5 * SOON).await.unwrap();
    shows(&b.directory(), &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_is_told_to_no_more_peers_than_asked_for_also_where_one_has_no_record_yet() {
    let ca = TestCa::new();
    let mut settings = aegis_gossip::Settings::default();
    settings.acknowledging_peers = 4;
    let a = Node::start_with(&ca, "a", "127.0.0.1:0", &[], settings).await;
    let mut peers = Vec::new();
    for id in ["b", "c", "d", "e"] {
        peers.push(Node::start(&ca, id, &[&a.address]).await);
    }
    shows(&a.directory(), &["a", "b", "c", "d", "e"]).await;
    // It answers, and is in no directory.
    let stranger = Stranger::start(&ca.tls("stranger", "worker"), Echo).await;
    a.member.sync_now(&stranger.address).await.unwrap();
    let acknowledged = a.member.set_state(NodeState::Draining, SOON).await.unwrap();
    assert_eq!((acknowledged.asked, acknowledged.acknowledged), (4, 4));
}
