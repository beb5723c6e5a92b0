//! What becomes of connections and calls when the server ends, well or at once.

use std::time::{Duration, Instant};

use aegis_node::Limits;
use aegis_testing::eventually;
use bytes::Bytes;
use h2::Reason;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{
    ACK, END_HEADERS, END_STREAM, Frames, Kind, LIMIT, Peer, node, node_with, post, request_block,
    tls,
};

const STEP: Duration = Duration::from_millis(300);

/// Reads until the other end closes.
async fn closed(io: &mut (impl AsyncRead + Unpin)) {
    let mut bytes = [0; 1024];
    let reading = async { while let Ok(1..) = io.read(&mut bytes).await {} };
    timeout(LIMIT, reading).await.expect("the server did not close");
}

#[tokio::test]
async fn a_drain_lets_calls_run_and_turns_away_whoever_has_not_begun() {
    let (mesh, server, lab) =
        node_with(Limits::default(), |node| node.drain_timeout(4 * STEP)).await;
    let address = server.local_addr();
    let peer = Peer::connect(mesh.ca(), "peer", address).await;
    let (running, mut stream) = peer.open(post("Forever")).await.unwrap();
    stream.send_data(Bytes::new(), true).unwrap();
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut mute = tls(mesh.ca(), "mute", address).await.unwrap();
    eventually(LIMIT, || match (lab.seen.calls(), server.stats().connections) {
        (1, 2) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;

    let began = Instant::now();
    let shutdown = tokio::spawn(server.shutdown());
    closed(&mut silent).await;
    closed(&mut mute).await;
    // The listener went first, with whatever waited in its backlog.
    assert!(TcpStream::connect(address).await.is_err());
    assert!(began.elapsed() < 4 * STEP, "they were held until the end of the drain");
    assert_eq!(lab.seen.cancelled(), 0);

    let answer = timeout(LIMIT, running).await.unwrap().unwrap();
    assert_eq!(answer.headers()["grpc-status"], "14", "{answer:?}");
    assert!(4 * STEP <= began.elapsed());
    shutdown.await.unwrap().unwrap();
    assert_eq!(lab.seen.cancelled(), 1);
    assert!(began.elapsed() < 8 * STEP, "{:?}", began.elapsed());
}

#[tokio::test]
async fn late_streams_are_served_until_the_peer_knows_and_then_refused_as_never_processed() {
    let (mesh, server, lab) = node_with(Limits::default(), |node| node.drain_timeout(LIMIT)).await;
    let mut frames = Frames::connect(mesh.ca(), "peer", server.local_addr()).await;
    // A call that keeps the connection open.
    frames.send(Kind::Headers, END_HEADERS, 1, &request_block("/test.Lab/Echo")).await;
    eventually(LIMIT, || if lab.seen.calls() == 1 { Ok(()) } else { Err("not called") }).await;
    let shutdown = tokio::spawn(server.shutdown());

    // The first step announces the end and refuses nothing.
    let first = frames.next(Kind::GoAway).await;
    assert_eq!((first.word(0), first.word(1)), ((1 << 31) - 1, 0));
    let flags = END_HEADERS | END_STREAM;
    frames.send(Kind::Headers, flags, 3, &request_block("/test.Lab/Seen")).await;
    let mut pings = Vec::new();
    loop {
        let frame = frames.frame().await.expect("the connection was closed");
        match frame.kind {
            Kind::Ping => pings.push(frame.payload),
            Kind::Data => break assert_eq!(frame.stream, 3),
            _ => {}
        }
    }

    // Its answers show that the peer knows; the second step names the last stream that was served.
    for ping in pings {
        frames.send(Kind::Ping, ACK, 0, &ping).await;
    }
    let second = frames.next(Kind::GoAway).await;
    assert_eq!((second.word(0), second.word(1)), (3, 0));
    let calls = lab.seen.calls();
    frames.send(Kind::Headers, flags, 5, &request_block("/test.Lab/Seen")).await;
    // The first call goes on to its good end, and with it the connection and the server.
    frames.send(Kind::Data, END_STREAM, 1, &[]).await;
    let rest = frames.rest().await;
    assert!(
        rest.iter().any(|frame| frame.stream == 1 && frame.flags & END_STREAM != 0),
        "{rest:?}"
    );
    assert!(rest.iter().all(|frame| frame.stream != 5), "{rest:?}");
    assert_eq!(lab.seen.calls(), calls);
    timeout(LIMIT, shutdown).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn what_a_peer_sends_before_it_reads_the_end_does_not_reset_the_connection() {
    let (mesh, server, lab) = node_with(Limits::default(), |node| node.drain_timeout(LIMIT)).await;
    let mut frames = Frames::connect(mesh.ca(), "peer", server.local_addr()).await;
    let flags = END_HEADERS | END_STREAM;
    frames.send(Kind::Headers, flags, 1, &request_block("/test.Lab/Seen")).await;
    eventually(LIMIT, || if lab.seen.calls() == 1 { Ok(()) } else { Err("not called") }).await;
    let shutdown = tokio::spawn(server.shutdown());
    let mut ping = frames.next(Kind::Ping).await;
    while ping.flags & ACK != 0 {
        ping = frames.next(Kind::Ping).await;
    }
    frames.send(Kind::Ping, ACK, 0, &ping.payload).await;
    frames.rest().await;
    // The server has ended its side. A request that has crossed its goodbye must not make it throw away the answers
    // that the peer has not read: on a reset connection the second of these fails.
    for stream in [3, 5] {
        frames.send(Kind::Headers, flags, stream, &request_block("/test.Lab/Seen")).await;
    }
    drop(frames);
    timeout(LIMIT, shutdown).await.unwrap().unwrap().unwrap();
    assert_eq!(lab.seen.calls(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_fails_no_call_that_was_processed() {
    let (mesh, server, lab) = node_with(Limits::default(), |node| node.drain_timeout(LIMIT)).await;
    let mut callers = JoinSet::new();
    for index in 0..8 {
        let peer = Peer::connect(mesh.ca(), &format!("c{index}"), server.local_addr()).await;
        callers.spawn(async move {
            let mut calls = 0;
            loop {
                match peer.call(post("Seen"), Bytes::new()).await {
                    Ok(answer) => assert_eq!(answer.code(), Some("0")),
                    // Told by the server, without an error, and so never processed: another node takes it.
                    Err(error) => {
                        let told = error.is_go_away() && error.reason() == Some(Reason::NO_ERROR);
                        assert!(told, "{error:?}");
                        return calls;
                    }
                }
                calls += 1;
            }
        });
    }
    eventually(LIMIT, || if 1_000 < lab.seen.calls() { Ok(()) } else { Err("no load") }).await;
    server.shutdown().await.unwrap();
    let calls: u64 = callers.join_all().await.into_iter().sum();
    assert_eq!(calls, lab.seen.calls(), "a call was processed and not answered");
}

#[tokio::test]
async fn a_shutdown_that_is_given_up_stops_the_node_at_once() {
    let (mesh, server, lab) = node(Limits::default()).await;
    let address = server.local_addr();
    let peer = Peer::connect(mesh.ca(), "peer", address).await;
    let (running, _stream) = peer.open(post("Forever")).await.unwrap();
    eventually(LIMIT, || if lab.seen.calls() == 1 { Ok(()) } else { Err("not called") }).await;
    assert!(timeout(STEP, server.shutdown()).await.is_err(), "it ended beside a call");
    assert!(timeout(STEP, running).await.expect("the call goes on").is_err());
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_peer_that_is_gone_does_not_hold_the_drain() {
    let limits = Limits::default().keepalive(LIMIT, STEP);
    let (mesh, server, _lab) = node_with(limits, |node| node.drain_timeout(LIMIT)).await;
    // Connected and idle, and it answers nothing any more.
    let mut frames = Frames::connect(mesh.ca(), "gone", server.local_addr()).await;
    frames.next(Kind::Settings).await;
    let began = Instant::now();
    server.shutdown().await.unwrap();
    assert!((STEP..4 * STEP).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_server_that_is_dropped_is_gone_at_once() {
    let (mesh, server, lab) = node(Limits::default()).await;
    let address = server.local_addr();
    let mut peer = Peer::connect(mesh.ca(), "peer", address).await;
    let (running, _stream) = peer.open(post("Forever")).await.unwrap();
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut mute = tls(mesh.ca(), "mute", address).await.unwrap();
    eventually(LIMIT, || match (lab.seen.calls(), server.stats().connections) {
        (1, 2) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let began = Instant::now();
    drop(server);
    assert!(timeout(LIMIT, running).await.unwrap().is_err());
    peer.closed().await;
    closed(&mut silent).await;
    closed(&mut mute).await;
    assert!(TcpStream::connect(address).await.is_err());
    assert_eq!(lab.seen.cancelled(), 1);
    assert!(began.elapsed() < STEP, "{:?}", began.elapsed());
}
