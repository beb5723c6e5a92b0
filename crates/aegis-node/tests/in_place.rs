//! Calls that are over at once are answered on their connection's own task, and what runs there harms nobody.

use aegis_node::{Limits, Server};
use bytes::Bytes;

use aegis_testing::{TestMesh, eventually};
use tokio::time::timeout;

use crate::support::{Answer, LIMIT, Lab, Peer, message, node, post, read};

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
async fn is_in_place(peer: &Peer) -> bool {
    let mut last = place(peer).await;
    for _ in 0..2_000 {
        let next = place(peer).await;
        if next == last {
            return true;
        }
        last = next;
    }
    false
}

/// A node whose service has shown that it is quick, and a peer of it.
async fn quick() -> (TestMesh, Server, Lab, Peer) {
    // A busy machine may bar a service that has done nothing for it.
    for _ in 0..20 {
        let (mesh, server, lab) = node(Limits::default()).await;
        let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
        if is_in_place(&peer).await {
            return (mesh, server, lab, peer);
        }
    }
    panic!("no call was answered in place");
}

#[tokio::test]
async fn quick_calls_share_a_task_and_one_that_blocks_gives_them_their_own() {
    let (mesh, server, _lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    let first = place(&peer).await;
    assert_ne!(first, place(&peer).await, "nothing is known of the service yet");
    let (_mesh, _server, _lab, peer) = quick().await;
    assert_eq!(call(&peer, "Block").await.code(), Some("0"));
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..20 {
        places.insert(place(&peer).await);
    }
    assert_eq!(places.len(), 20, "it is barred for a second");
}

#[tokio::test]
async fn a_handler_in_place_may_wait_or_panic() {
    // INTERNAL, whether the poll or the drop that ends it panics.
    for (method, code) in [("Pause", "0"), ("Panic", "13"), ("Bomb", "13")] {
        for _ in 0..3 {
            let (_mesh, server, _lab, peer) = quick().await;
            assert_eq!(call(&peer, method).await.code(), Some(code), "{method}");
            peer.ask().await;
            assert_eq!(server.stats().accepted, 1, "its connection is the first one");
        }
    }
}

/// As hyper's client sends them: head and message in writes of their own.
#[tokio::test]
async fn a_call_whose_message_comes_after_its_head_is_answered_in_place() {
    for _ in 0..4 {
        // A poll that lost its processor bars the service for a second, so another one has to show it then.
        let (_mesh, server, _lab, peer) = quick().await;
        // What else wakes the connection between the two takes the call's turn.
        for _ in 0..5 {
            let connection = place(&peer).await;
            let before = server.stats().calls;
            let (response, mut body) = peer.open(post("WhereAfter")).await.unwrap();
            let begun = || if server.stats().calls == before { Err("not begun") } else { Ok(()) };
            eventually(LIMIT, begun).await;
            body.send_data(message(b""), true).unwrap();
            let answer = read(timeout(LIMIT, response).await.unwrap().unwrap()).await.unwrap();
            assert_eq!(answer.code(), Some("0"));
            if answer.data == connection {
                return;
            }
        }
    }
    panic!("each such call had a task of its own");
}

#[tokio::test]
async fn a_handler_that_waits_after_its_poll_in_place_is_woken() {
    let (_mesh, _server, _lab, peer) = quick().await;
    let (response, mut body) = peer.open(post("Echo")).await.unwrap();
    peer.ask().await;
    let mut rest = message(b"12345");
    body.send_data(rest.split_to(3), false).unwrap();
    peer.ask().await;
    body.send_data(rest, true).unwrap();
    let answer = read(timeout(LIMIT, response).await.unwrap().unwrap()).await.unwrap();
    assert_eq!((answer.code(), &answer.data[5..]), (Some("0"), &b"10"[..]));
}

#[tokio::test]
async fn a_handler_that_waits_after_its_poll_in_place_is_cancelled() {
    let (_mesh, _server, lab, peer) = quick().await;
    let (_response, mut body) = peer.open(post("Forever")).await.unwrap();
    peer.ask().await;
    body.send_reset(h2::Reason::CANCEL);
    let dropped = || if lab.seen.cancelled() == 1 { Ok(()) } else { Err("it lives") };
    eventually(LIMIT, dropped).await;
}

#[tokio::test]
async fn a_handler_that_waits_after_its_poll_in_place_is_bound_by_its_deadline() {
    let (_mesh, _server, lab, peer) = quick().await;
    let mut request = post("Forever");
    request.headers_mut().insert("grpc-timeout", "20m".parse().unwrap());
    let late = timeout(LIMIT, peer.call(request, Bytes::new())).await.unwrap();
    assert_eq!((late.unwrap().code(), lab.seen.cancelled()), (Some("4"), 1));
}

#[tokio::test]
async fn a_drain_waits_for_a_call_that_waits_after_its_poll_in_place() {
    let (_mesh, server, _lab, peer) = quick().await;
    let (response, mut body) = peer.open(post("Echo")).await.unwrap();
    peer.ask().await;
    let shutdown = tokio::spawn(server.shutdown());
    // Told to go away.
    while peer.open(post("Seen")).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!shutdown.is_finished());
    body.send_data(message(b"12345"), true).unwrap();
    let answer = read(timeout(LIMIT, response).await.unwrap().unwrap()).await.unwrap();
    assert_eq!(answer.code(), Some("0"));
    shutdown.await.unwrap().unwrap();
}

#[tokio::test]
async fn streams_of_names_that_nobody_serves_hold_up_no_call() {
    let (mesh, server, _lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    for round in 0..20 {
        let unknown = (0..50).map(|index| {
            let mut request = post("M");
            *request.uri_mut() =
                format!("https://server/unknown.{round}.{index}/M").parse().unwrap();
            peer.call(request, Bytes::new())
        });
        let (answers, _) = tokio::join!(futures_util::future::join_all(unknown), peer.ask());
        for answer in answers {
            assert_eq!(answer.unwrap().code(), Some("12"));
        }
    }
}
