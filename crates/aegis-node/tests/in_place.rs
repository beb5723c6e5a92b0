//! Calls that are over at once are answered on their connection's own task, and what runs there harms nobody.

use aegis_node::Limits;
use bytes::Bytes;

use crate::support::{Answer, Peer, node, post};

async fn call(peer: &Peer, method: &str) -> Answer {
    peer.call(post(method), Bytes::new()).await.unwrap()
}

/// The task on which a call ran.
async fn place(peer: &Peer) -> Vec<u8> {
    let answer = call(peer, "Where").await;
    assert_eq!(answer.code(), Some("0"));
    answer.data
}

/// Makes quick calls until the service has shown that it is one: then two in a row run on the same task.
async fn until_in_place(peer: &Peer) {
    let mut last = place(peer).await;
    for _ in 0..5_000 {
        let next = place(peer).await;
        if next == last {
            return;
        }
        last = next;
    }
    panic!("no call was answered in place");
}

#[tokio::test]
async fn quick_calls_share_a_task_and_one_that_blocks_gives_them_their_own() {
    let (mesh, server, _lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    let first = place(&peer).await;
    assert_ne!(first, place(&peer).await, "nothing is known of the service yet");
    until_in_place(&peer).await;
    assert_eq!(call(&peer, "Block").await.code(), Some("0"));
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..20 {
        places.insert(place(&peer).await);
    }
    assert_eq!(places.len(), 20, "it is barred for a second");
}

#[tokio::test]
async fn a_handler_in_place_may_wait_or_panic() {
    let (mesh, server, _lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    // INTERNAL, whether the poll or the drop that ends it panics.
    for (method, code) in [("Pause", "0"), ("Panic", "13"), ("Bomb", "13")] {
        for _ in 0..20 {
            until_in_place(&peer).await;
            assert_eq!(call(&peer, method).await.code(), Some(code), "{method}");
        }
    }
    assert_eq!(server.stats().accepted, 1, "its connection is the first one");
}
