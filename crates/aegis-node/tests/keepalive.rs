//! Who is taken for dead, and who is not.

use std::time::{Duration, Instant};

use aegis_node::Limits;
use aegis_testing::eventually;
use futures_util::future::poll_fn;
use tokio::time::{sleep, timeout};

use crate::support::{
    ACK, END_HEADERS, END_STREAM, Frames, Kind, LIMIT, Peer, message, node, node_with, post,
    request_block,
};

const STEP: Duration = Duration::from_millis(150);

fn limits() -> Limits {
    Limits::default().keepalive(STEP, STEP)
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_closed() {
    let (mesh, server, _lab) = node(limits()).await;
    let mut frames = Frames::connect(mesh.ca(), "peer", server.local_addr()).await;
    frames.next(Kind::Settings).await;
    let began = Instant::now();
    frames.next(Kind::Ping).await;
    assert!(STEP / 2 < began.elapsed(), "{:?}", began.elapsed());
    frames.rest().await;
    assert!((2 * STEP..6 * STEP).contains(&(began.elapsed() + STEP / 2)), "{:?}", began.elapsed());
    eventually(LIMIT, || if server.stats().connections == 0 { Ok(()) } else { Err("open") }).await;
}

#[tokio::test]
async fn a_peer_that_sends_bytes_lives_even_without_an_answer() {
    let (mesh, server, _lab) = node(limits()).await;
    let mut frames = Frames::connect(mesh.ca(), "peer", server.local_addr()).await;
    frames.next(Kind::Settings).await;
    frames.send(Kind::Settings, ACK, 0, &[]).await;
    for _ in 0..20 {
        sleep(STEP / 3).await;
        frames.send(Kind::WindowUpdate, 0, 0, &1_u32.to_be_bytes()).await;
    }
    assert_eq!(server.stats().connections, 1);
    // Once it falls silent it is closed all the same.
    frames.rest().await;
}

#[tokio::test]
async fn an_idle_peer_that_answers_stays() {
    let (mesh, server, _lab) = node(limits()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    sleep(7 * STEP).await;
    assert!(peer.is_open());
    peer.ask().await;
}

#[tokio::test]
async fn a_call_of_a_dead_peer_is_dropped_with_its_connection() {
    let (mesh, server, lab) = node(limits()).await;
    let mut frames = Frames::connect(mesh.ca(), "peer", server.local_addr()).await;
    let block = request_block("/test.Lab/Forever");
    frames.send(Kind::Headers, END_HEADERS, 1, &block).await;
    eventually(LIMIT, || if lab.seen.calls() == 1 { Ok(()) } else { Err("not called") }).await;
    eventually(LIMIT, || if lab.seen.cancelled() == 1 { Ok(()) } else { Err("it lives") }).await;
}

#[tokio::test]
async fn settings_without_an_end_are_no_trap() {
    let forever = Duration::MAX;
    let limits = Limits::default()
        .handshake_timeout(forever)
        .keepalive(STEP, forever)
        .max_connection_age(forever, forever);
    let (mesh, server, _lab) = node_with(limits, |node| node.drain_timeout(forever)).await;
    let mut frames = Frames::connect(mesh.ca(), "quiet", server.local_addr()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    peer.ask().await;
    frames.next(Kind::Ping).await;
    sleep(2 * STEP).await;
    peer.ask().await;
    assert_eq!(server.stats().connections, 2);
    drop((frames, peer));
    server.shutdown().await.unwrap();
}

#[tokio::test]
async fn an_old_connection_is_cut_when_the_end_of_its_calls_is_not_read() {
    let limits = Limits::default().max_connection_age(STEP, STEP);
    let (mesh, server, lab) = node(limits).await;
    let mut frames = Frames::connect(mesh.ca(), "peer", server.local_addr()).await;
    // No window at all, so that no answer can end.
    frames.send(Kind::Settings, 0, 0, &[0, 4, 0, 0, 0, 0]).await;
    let block = request_block("/test.Lab/Seen");
    let flags = END_HEADERS | END_STREAM;
    frames.send(Kind::Headers, flags, 1, &block).await;
    eventually(LIMIT, || if lab.seen.calls() == 1 { Ok(()) } else { Err("not called") }).await;
    let began = Instant::now();
    loop {
        let Some(frame) = frames.frame().await else { break };
        if frame.kind == Kind::Ping && frame.flags & ACK == 0 {
            frames.send(Kind::Ping, ACK, 0, &frame.payload).await;
        }
    }
    // Its age and its grace, and a second for the last words.
    let took = began.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(4)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_connection_that_is_never_idle_grows_old_all_the_same() {
    let limits = Limits::default().max_connection_age(STEP, STEP);
    let (mesh, server, _lab) = node(limits).await;
    let mut peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    let (_response, mut stream) = peer.open(post("Sink")).await.unwrap();
    let piece = message(&[7; 16_000]);
    let began = Instant::now();
    // As fast as the server takes it.
    let uploading = async {
        loop {
            stream.reserve_capacity(piece.len());
            if !matches!(poll_fn(|cx| stream.poll_capacity(cx)).await, Some(Ok(_))) {
                return;
            }
            let room = stream.capacity().min(piece.len());
            if stream.send_data(piece.slice(..room), false).is_err() {
                return;
            }
        }
    };
    timeout(LIMIT, uploading).await.expect("the upload goes on");
    peer.closed().await;
    assert!(began.elapsed() < 20 * STEP, "{:?}", began.elapsed());
}
