//! Calls that are given up: cheap, without limit, and nobody else's business.

use std::task::Poll;

use aegis_node::Limits;
use aegis_testing::eventually;
use bytes::Bytes;
use futures_util::future::poll_fn;
use h2::Reason;

use crate::support::{LIMIT, Peer, node, post};

#[tokio::test]
async fn a_reset_drops_the_handler() {
    let (mesh, server, lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    for count in 1..=100 {
        let (_response, mut stream) = peer.open(post("Forever")).await.unwrap();
        eventually(LIMIT, || if lab.seen.calls() == count { Ok(()) } else { Err("not called") })
            .await;
        stream.send_reset(Reason::CANCEL);
        eventually(LIMIT, || if lab.seen.cancelled() == count { Ok(()) } else { Err("it lives") })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_cancelled_calls_leave_a_good_connection() {
    let (mesh, server, lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    let mut begun = Vec::new();
    for index in 0..5_000 {
        let (response, mut stream) = peer.open(post("Forever")).await.unwrap();
        stream.send_data(Bytes::new(), true).unwrap();
        begun.push((response, stream));
        // As many at once as are allowed, then all of them are given up.
        if index % 200 == 199 {
            begun.clear();
            peer.ask().await;
            // Until the server knows, they count as streams of this connection.
            let asked = (index + 1) / 200;
            eventually(LIMIT, || match lab.seen.calls() - lab.seen.cancelled() {
                running if running == asked => Ok(()),
                running => Err(format!("{running} calls are running")),
            })
            .await;
        }
    }
    eventually(LIMIT, || match lab.seen.calls() - lab.seen.cancelled() {
        // The calls that were asked in between, which ended well.
        25 => Ok(()),
        running => Err(format!("{running} handlers were not dropped")),
    })
    .await;
    for _ in 0..200 {
        peer.ask().await;
    }
    assert_eq!(server.stats().accepted, 1);
}

#[tokio::test]
async fn calls_given_up_before_they_arrive_leave_a_good_connection() {
    let (mesh, server, _lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    for _ in 0..5_000 {
        // Begun and dropped in one go, as a hedged call is.
        let (response, stream) = peer.open(post("Forever")).await.unwrap();
        drop((response, stream));
        let mut yielded = false;
        poll_fn(|cx| {
            if yielded {
                return Poll::Ready(());
            }
            yielded = true;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }
    for _ in 0..200 {
        peer.ask().await;
    }
    assert_eq!(server.stats().accepted, 1);
}
