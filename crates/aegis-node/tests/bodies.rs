//! Requests that break off, and answers that nobody reads.

use std::time::{Duration, Instant};

use aegis_node::Limits;
use aegis_testing::{TestMesh, eventually};
use bytes::Bytes;
use futures_util::future::join_all;
use h2::Reason;
use http::Request;
use tokio::time::timeout;

use crate::support::{LAB_V1, LIMIT, Lab, Peer, message, node, post, read, tls_in};

/// A message that says it has more bytes than come.
fn half() -> Bytes {
    message(&[7; 100]).slice(..50)
}

#[tokio::test]
async fn a_request_that_its_caller_resets_halfway_is_dropped() {
    let (mesh, server, lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    let (_response, mut stream) = peer.open(post("Echo")).await.unwrap();
    stream.send_data(half(), false).unwrap();
    eventually(LIMIT, || if lab.seen.calls() == 1 { Ok(()) } else { Err("not called") }).await;
    stream.send_reset(Reason::CANCEL);
    eventually(LIMIT, || match (lab.seen.cancelled(), lab.seen.cut()) {
        // The handler saw its body break off, or was dropped before it looked.
        (1, 0) | (0, 1) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    peer.ask().await;
}

#[tokio::test]
async fn a_request_that_ends_within_a_message_is_an_error_of_its_call() {
    let (mesh, server, _lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    // A generated server, which every node has.
    let ping = Request::post("https://server/aegis.MeshService/Ping")
        .header("content-type", "application/grpc")
        .body(())
        .unwrap();
    let answer = peer.call(ping, half()).await.unwrap();
    assert_eq!(answer.code(), Some("13"), "{answer:?}");
    peer.ask().await;
}

/// Each of them has begun in place, and not all of them fit in the turn in which the rest of their requests comes.
#[tokio::test]
async fn a_burst_of_calls_that_wait_for_the_rest_of_their_requests_is_answered_without_a_further_word()
 {
    let (mesh, server, lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    for round in 0..20_u64 {
        // The service has to show that it is quick, and to show it again after each burst that got tasks.
        for _ in 0..60 {
            peer.call(post("Echo"), message(b"x")).await.unwrap();
        }
        let before = lab.seen.calls();
        // Their heads come together, and so does what follows them.
        let opening = (0..60).map(|_| peer.open(post("Echo")));
        let mut open = join_all(opening).await.into_iter().map(Result::unwrap).collect::<Vec<_>>();
        eventually(LIMIT, || match lab.seen.calls() - before {
            60 => Ok(()),
            other => Err(format!("{other} calls have begun")),
        })
        .await;
        for (_, stream) in &mut open {
            stream.send_data(message(b"x"), true).unwrap();
        }
        for (response, _) in open {
            let answer = timeout(LIMIT / 2, response).await;
            let answer = answer.unwrap_or_else(|_| panic!("a call hangs in round {round}"));
            assert_eq!(read(answer.unwrap()).await.unwrap().code(), Some("0"));
        }
    }
}

#[tokio::test]
async fn a_lost_connection_drops_the_handlers_of_its_calls() {
    let (mesh, server, lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    let mut open = Vec::new();
    for method in ["Forever", "Echo", "Slow"] {
        let (response, mut stream) = peer.open(post(method)).await.unwrap();
        stream.send_data(half(), false).unwrap();
        open.push((response, stream));
    }
    eventually(LIMIT, || if lab.seen.calls() == 3 { Ok(()) } else { Err("not called") }).await;
    drop(peer);
    eventually(LIMIT, || match (lab.seen.cancelled(), server.stats().connections) {
        (3, 0) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends_with_its_deadline() {
    let (mesh, server, _lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    for method in ["Big", "Events"] {
        let mut request = post(method);
        request.headers_mut().insert("grpc-timeout", "300m".parse().unwrap());
        let began = Instant::now();
        let mut body = peer.send(request, Bytes::new()).await.unwrap().into_body();
        // Takes in what the window holds and opens no other.
        let mut length = 0;
        while let Some(piece) = timeout(LIMIT, body.data()).await.expect("the call hangs") {
            length += piece.unwrap().len();
        }
        assert_eq!(length, 65_535, "{method}");
        let trailers = body.trailers().await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "4", "{method}");
        assert!(Duration::from_millis(290) < began.elapsed(), "{method}: {:?}", began.elapsed());
        peer.ask().await;
    }
}

/// What was left to HTTP/2 while the caller read along comes first, a mebibyte at most, and then the end.
#[tokio::test(start_paused = true)]
async fn an_answer_that_is_read_no_further_ends_with_its_deadline_all_the_same() {
    const WINDOW: usize = 65_535;
    let mesh = TestMesh::in_memory();
    let server = mesh.serve("server", |node| node.service(LAB_V1, Lab::default())).await;
    let peer = Peer::over(tls_in(&mesh, "peer", server.local_addr()).await).await.unwrap();
    let mut request = post("Big");
    request.headers_mut().insert("grpc-timeout", "500m".parse().unwrap());
    let mut body = peer.send(request, Bytes::new()).await.unwrap().into_body();
    let mut length = 0;
    while length < 2 * WINDOW {
        let piece = body.data().await.unwrap().unwrap();
        length += piece.len();
        body.flow_control().release_capacity(piece.len()).unwrap();
    }
    tokio::time::sleep(Duration::from_millis(700)).await;
    peer.ask().await;
    while let Some(piece) = timeout(LIMIT, body.data()).await.expect("the call hangs") {
        let piece = piece.unwrap();
        length += piece.len();
        body.flow_control().release_capacity(piece.len()).unwrap();
    }
    let trailers = body.trailers().await.unwrap().unwrap();
    assert_eq!(trailers["grpc-status"], "4");
    assert!(length <= 4 * WINDOW + (1 << 20), "{length} bytes came");
}

#[tokio::test]
async fn many_small_messages_to_a_slow_handler_stop_nobody_else() {
    let (mesh, server, _lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    let (response, mut stream) = peer.open(post("Slow")).await.unwrap();
    // Far more frames than h2 takes by itself from a reader that lags.
    for _ in 0..30_000 {
        stream.send_data(message(b""), false).unwrap();
    }
    stream.send_data(Bytes::new(), true).unwrap();
    let mut calls = 0;
    let mut response = std::pin::pin!(response);
    let answer = loop {
        tokio::select! {
            response = &mut response => break read(response.unwrap()).await.unwrap(),
            _ = peer.ask() => calls += 1,
        }
    };
    assert_eq!((answer.code(), &answer.data[5..7]), (Some("0"), &b"30"[..]), "{answer:?}");
    assert!(20 < calls, "{calls} calls beside the slow one");
}

/// The silly window syndrome: were each piece given back to the window by itself, a sender that waits for it would cut each
/// message where an earlier one was cut, and once more each time it has used the window up.
#[tokio::test(start_paused = true)]
async fn a_slow_handler_does_not_make_its_caller_cut_small_messages() {
    const MESSAGES: u32 = 8_000;
    let mesh = TestMesh::in_memory();
    let server = mesh.serve("server", |node| node.service(LAB_V1, Lab::default())).await;
    let peer = Peer::over(tls_in(&mesh, "peer", server.local_addr()).await).await.unwrap();
    let (response, mut stream) = peer.open(post("Slower")).await.unwrap();
    for _ in 0..MESSAGES {
        stream.send_data(message(&[7; 64]), false).unwrap();
    }
    stream.send_data(Bytes::new(), true).unwrap();
    let answer = read(response.await.unwrap()).await.unwrap();
    let pieces = String::from_utf8(answer.data[5..].to_vec()).unwrap();
    let pieces: u32 = pieces.parse().unwrap();
    println!("{MESSAGES} messages came in {pieces} pieces");
    assert!(pieces <= MESSAGES + MESSAGES / 50, "{MESSAGES} messages came in {pieces} pieces");
}

#[tokio::test]
async fn slow_readers_of_many_small_messages_are_served_beside_others() {
    let (mesh, server, _lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    let mut readers = Vec::new();
    for _ in 0..8 {
        readers.push(peer.send(post("Ticks"), Bytes::new()).await.unwrap().into_body());
    }
    for _ in 0..200 {
        for body in &mut readers {
            let piece = timeout(LIMIT, body.data()).await.expect("no tick comes");
            let length = piece.expect("the stream ended").unwrap().len();
            body.flow_control().release_capacity(length).unwrap();
        }
        peer.ask().await;
    }
    assert_eq!(server.stats().accepted, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_stream_that_never_waits_ends_with_its_deadline_all_the_same() {
    let (mesh, server, _lab) = node(Limits::default()).await;
    let peer = Peer::connect(mesh.ca(), "peer", server.local_addr()).await;
    for method in ["Ticks", "Events"] {
        let mut request = post(method);
        request.headers_mut().insert("grpc-timeout", "300m".parse().unwrap());
        let began = Instant::now();
        let mut body = peer.send(request, Bytes::new()).await.unwrap().into_body();
        let reading = async {
            while let Some(piece) = body.data().await.transpose().unwrap() {
                body.flow_control().release_capacity(piece.len()).unwrap();
            }
            body.trailers().await.unwrap().unwrap()
        };
        let trailers = timeout(LIMIT, reading).await.expect("the stream outlives its deadline");
        assert_eq!(trailers["grpc-status"], "4", "{method}");
        assert!(began.elapsed() < Duration::from_secs(1), "{method}: {:?}", began.elapsed());
    }
}
