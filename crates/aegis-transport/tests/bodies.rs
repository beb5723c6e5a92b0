//! What goes over a stream, in both directions.

use std::pin::Pin;
use std::time::Duration;

use aegis_testing::TestCa;
use aegis_transport::{Link, NeverSent};
use bytes::Bytes;
use http_body::{Body, Frame};
use tonic::{Code, Status};

use crate::support::{
    Client, Http2, Kind, Raw, STATUS_200, Server, chunks, collect, empty, eventually, field, full,
    request, slot,
};

async fn start(max_streams: u32) -> (Client, Server, Link, Raw) {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let link = client.link(&server);
    let raw = server.greeted(max_streams).await;
    (client, server, link, raw)
}

/// Answers each request with its own body.
async fn echo(mut connection: Http2) {
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let mut body = request.into_body();
            let response = http::Response::new(());
            let mut reply = respond.send_response(response, false).unwrap();
            while let Some(Ok(data)) = body.data().await {
                body.flow_control().release_capacity(data.len()).unwrap();
                reply.send_data(data, false).unwrap();
            }
            let trailers = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
            reply.send_trailers(trailers.into_iter().collect()).unwrap();
        });
    }
}

#[tokio::test]
async fn the_head_names_the_node_and_us() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "node.1").await;
    let client = Client::new(&ca);
    let link = client.link(&server);
    let mut http2 = server.http2().await;
    let accepted = tokio::spawn(async move {
        let (request, _respond) = http2.accept().await.unwrap().unwrap();
        assert!(request.body().is_end_stream(), "an empty body ends with the head");
        request
    });
    let mut request = request(empty());
    request.headers_mut().insert("user-agent", "tonic/1".parse().unwrap());
    request.headers_mut().insert("host", "elsewhere".parse().unwrap());
    let _sent = tokio::spawn(slot(&link).await.send(request));
    let head = accepted.await.unwrap();
    // `node.1` is no DNS name.
    assert_eq!(head.uri(), "https://node.aegis.invalid/test.Echo/Echo");
    assert_eq!(head.headers()["te"], "trailers");
    let agent = head.headers()["user-agent"].to_str().unwrap();
    assert!(agent.starts_with("tonic/1 aegis/"), "{agent}");
    assert!(!head.headers().contains_key("host"));
}

#[tokio::test]
async fn a_small_body_goes_out_whole_with_the_head() {
    let (_client, _server, link, mut raw) = start(10).await;
    let _sent = tokio::spawn(slot(&link).await.send(request(full("hello"))));
    let stream = raw.opened().await;
    let data = raw.frame().await.unwrap();
    assert_eq!((data.kind, data.stream, data.ends_stream()), (Kind::Data, stream, true));
    assert_eq!(data.payload, b"hello");
}

#[tokio::test]
async fn bodies_larger_than_every_window_come_through() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| {
        settings.stream_window = 20_000;
        settings.connection_window = 70_000;
    });
    let link = client.link(&server);
    server.spawn(echo(server.http2().await));
    // One frame of 1 MB, and many of odd sizes.
    let big = vec![7; 1 << 20];
    let response = slot(&link).await.send(request(full(big.clone()))).await.unwrap();
    assert_eq!(collect(response.into_body()).await.unwrap().0, big);

    let (feed, body) = chunks();
    let response = slot(&link).await.send(request(body)).await.unwrap();
    let reading = tokio::spawn(collect(response.into_body()));
    for size in (0..200).map(|it| it * 37) {
        feed.send(Ok(Frame::data(vec![1; size].into()))).unwrap();
    }
    drop(feed);
    let (data, trailers) = reading.await.unwrap().unwrap();
    assert_eq!(data.len(), (0..200).map(|it| it * 37).sum::<usize>());
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_request_waits_for_window_and_holds_nothing_else_back() {
    let (_client, _server, link, mut raw) = start(10).await;
    let _sent = tokio::spawn(slot(&link).await.send(request(full(vec![0; 200_000]))));
    let stream = raw.opened().await;
    let mut got = 0;
    while got < 65_535 {
        got += raw.next(Kind::Data).await.payload.len();
    }
    assert_eq!(got, 65_535, "the initial window");
    // The connection's window is used up; what needs none goes through all the same.
    let sent = tokio::spawn(slot(&link).await.send(request(empty())));
    let other = raw.opened().await;
    raw.answer(other).await;
    sent.await.unwrap().unwrap();

    raw.window(0, 1 << 20).await;
    raw.window(stream, 1_000).await;
    assert_eq!(raw.next(Kind::Data).await.payload.len(), 1_000);
    raw.window(stream, 1 << 20).await;
    while got < 199_000 {
        got += raw.next(Kind::Data).await.payload.len();
    }
}

#[tokio::test]
async fn window_is_given_back_as_the_body_is_read() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| settings.stream_window = 65_535);
    let link = client.link(&server);
    let mut raw = server.greeted(10).await;
    let sent = tokio::spawn(slot(&link).await.send(request(empty())));
    let stream = raw.opened().await;
    raw.head(stream).await;
    for _ in 0..4 {
        raw.data(stream, &[0; 16_000]).await;
    }
    let mut body = sent.await.unwrap().unwrap().into_body();
    // Nothing was read, so nothing is given back; a call beside it is answered.
    let sent = tokio::spawn(slot(&link).await.send(request(empty())));
    let other = loop {
        let frame = raw.frame().await.unwrap();
        assert!(frame.kind != Kind::WindowUpdate || frame.stream == 0, "{frame:?}");
        if frame.kind == Kind::Headers {
            break frame.stream;
        }
    };
    raw.answer(other).await;
    sent.await.unwrap().unwrap();

    let mut read = 0;
    while read < 64_000 {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        read += frame.unwrap().unwrap().into_data().unwrap().len();
    }
    let update = raw.next(Kind::WindowUpdate).await;
    assert_eq!(update.stream, stream);
    assert!(update.word() >= 32_000, "{update:?}");
}

#[tokio::test]
async fn both_sides_of_a_stream_run_at_once() {
    let (_client, _server, link, mut raw) = start(10).await;
    let (feed, body) = chunks();
    let sent = tokio::spawn(slot(&link).await.send(request(body)));
    let stream = raw.opened().await;
    raw.head(stream).await;
    let mut reply = sent.await.unwrap().unwrap().into_body();
    for text in ["one", "two"] {
        // The response is not polled meanwhile.
        feed.send(Ok(Frame::data(Bytes::from(text)))).unwrap();
        assert_eq!(raw.next(Kind::Data).await.payload, text.as_bytes());
        raw.data(stream, text.as_bytes()).await;
        let frame = std::future::poll_fn(|cx| Pin::new(&mut reply).poll_frame(cx)).await;
        assert_eq!(frame.unwrap().unwrap().into_data().unwrap(), text);
    }
    drop(feed);
    assert!(raw.next(Kind::Data).await.ends_stream());
    assert_eq!(link.in_flight(), 1);
    raw.trailers(stream).await;
    collect(reply).await.unwrap();
    eventually(|| (link.in_flight() == 0).then_some(())).await;
    assert_eq!(link.counters().cancelled, 0);
}

#[tokio::test]
async fn a_dropped_response_ends_the_request_too() {
    let (_client, _server, link, mut raw) = start(10).await;
    let (feed, body) = chunks();
    let sent = tokio::spawn(slot(&link).await.send(request(body)));
    let stream = raw.opened().await;
    raw.head(stream).await;
    drop(sent.await.unwrap().unwrap());
    assert_eq!(raw.next(Kind::Reset).await.word(), 8, "CANCEL");
    feed.closed().await;
    eventually(|| (link.in_flight() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_server_may_end_before_the_request_has() {
    let (_client, _server, link, mut raw) = start(10).await;
    // Some say besides that they want no more of the request.
    for says_so in [false, true] {
        let (feed, body) = chunks();
        let sent = tokio::spawn(slot(&link).await.send(request(body)));
        let stream = raw.opened().await;
        raw.head(stream).await;
        raw.data(stream, b"enough").await;
        raw.trailers(stream).await;
        if says_so {
            raw.reset(stream, 0).await;
        }
        feed.send(Ok(Frame::data("more".into()))).unwrap();
        let (data, trailers) = collect(sent.await.unwrap().unwrap().into_body()).await.unwrap();
        assert_eq!(data, b"enough");
        assert_eq!(trailers.unwrap()["grpc-status"], "0");
        feed.closed().await;
        if !says_so {
            raw.next(Kind::Reset).await;
        }
        eventually(|| (link.in_flight() == 0).then_some(())).await;
    }
    assert_eq!(link.counters().cancelled, 0);
}

#[tokio::test]
async fn a_monstrous_header_list_is_an_error_and_the_next_call_goes_through() {
    let (_client, server, link, mut raw) = start(10).await;
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    let stream = raw.opened().await;
    raw.head(stream).await;
    let long = (0..900).flat_map(|_| field("x-long", "v".repeat(100))).collect::<Vec<_>>();
    let pieces = long.chunks(16_000).collect::<Vec<_>>();
    raw.headers(stream, 1, pieces[0]).await;
    for piece in &pieces[1..] {
        raw.send(Kind::Continuation, 0, stream, piece).await;
    }
    raw.send(Kind::Continuation, 4, stream, &field("grpc-status", "13")).await;
    let body = sent.await.unwrap().unwrap().into_body();
    let status =
        tokio::time::timeout(Duration::from_secs(2), collect(body)).await.unwrap().unwrap_err();
    // h2 gives the whole connection up; the error says so and why.
    assert!(status.message().contains("given up"), "{status}");
    assert!(status.message().contains("too_many_continuations"), "{status}");
    let mut raw = server.greeted(10).await;
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    let stream = raw.opened().await;
    raw.answer(stream).await;
    collect(sent.await.unwrap().unwrap().into_body()).await.unwrap();
}

#[tokio::test]
async fn a_request_body_that_fails_resets_the_stream_and_keeps_its_own_status() {
    let (_client, _server, link, mut raw) = start(10).await;
    // Before the response ..
    let (feed, body) = chunks();
    let sent = tokio::spawn(slot(&link).await.send(request(body)));
    raw.opened().await;
    feed.send(Err(Status::out_of_range("too large"))).unwrap();
    let error = sent.await.unwrap().unwrap_err();
    assert_eq!((error.code(), error.never_sent()), (Code::OutOfRange, None::<NeverSent>));
    assert_eq!(Status::from(error).message(), "too large");
    raw.next(Kind::Reset).await;

    // .. and after it has begun.
    let (feed, body) = chunks();
    let sent = tokio::spawn(slot(&link).await.send(request(body)));
    let stream = raw.opened().await;
    raw.head(stream).await;
    let body = sent.await.unwrap().unwrap().into_body();
    feed.send(Err(Status::out_of_range("too large"))).unwrap();
    assert_eq!(collect(body).await.unwrap_err().code(), Code::OutOfRange);
    raw.next(Kind::Reset).await;
}

#[tokio::test]
async fn a_response_without_a_body_is_one_frame() {
    let (_client, _server, link, mut raw) = start(1).await;
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    let stream = raw.opened().await;
    raw.trailers_only(stream, &[("grpc-status", b"5"), ("grpc-message", b"gone")]).await;
    let response = sent.await.unwrap().unwrap();
    assert_eq!(response.headers()["grpc-status"], "5");
    assert!(response.body().is_end_stream());
    // Its slot is free with the response still in hand.
    assert_eq!(link.in_flight(), 0);
    assert_eq!(link.counters().cancelled, 0);
}

#[tokio::test]
async fn interim_responses_are_skipped() {
    let (_client, _server, link, mut raw) = start(1).await;
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    let stream = raw.opened().await;
    raw.headers(stream, 4, &[&[0x08, 3], &b"103"[..]].concat()).await;
    raw.answer(stream).await;
    assert_eq!(sent.await.unwrap().unwrap().status(), 200);
}

#[tokio::test]
async fn an_http_error_without_a_grpc_status_is_mapped() {
    for (status, code) in [
        ("401", Code::Unauthenticated),
        ("403", Code::PermissionDenied),
        ("404", Code::Unimplemented),
        ("431", Code::Unknown),
        ("503", Code::Unavailable),
    ] {
        let (_client, _server, link, mut raw) = start(1).await;
        let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
        let stream = raw.opened().await;
        raw.headers(stream, 4, &[&[0x08, 3], status.as_bytes()].concat()).await;
        raw.data(stream, b"<html>").await;
        let error = sent.await.unwrap().unwrap_err();
        assert_eq!((error.code(), error.never_sent()), (code, None), "{error}");
    }
}

#[tokio::test]
async fn a_header_list_that_is_too_long_is_an_error_and_no_hang() {
    let (_client, _server, link, mut raw) = start(10).await;
    let mut long = STATUS_200.to_vec();
    for _ in 0..200 {
        long.extend(field("x-long", "v".repeat(100)));
    }
    let (first, rest) = long.split_at(16_000);
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    let stream = raw.opened().await;
    raw.headers(stream, 0, first).await;
    raw.send(Kind::Continuation, 4, stream, rest).await;
    let error =
        tokio::time::timeout(Duration::from_secs(2), sent).await.unwrap().unwrap().unwrap_err();
    assert_eq!((error.code(), error.never_sent()), (Code::Internal, None));
    assert!(error.to_string().contains("metadata too large"), "{error}");

    // As trailers.
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    let stream = raw.opened().await;
    raw.head(stream).await;
    let long = [&long[1..], &field("grpc-status", "13")].concat();
    let (first, rest) = long.split_at(16_000);
    raw.headers(stream, 1, first).await;
    raw.send(Kind::Continuation, 4, stream, rest).await;
    let status = collect(sent.await.unwrap().unwrap().into_body()).await.unwrap_err();
    assert!(status.message().contains("metadata too large"), "{status}");

    // The connection lives.
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    let stream = raw.opened().await;
    raw.answer(stream).await;
    collect(sent.await.unwrap().unwrap().into_body()).await.unwrap();
}

#[tokio::test]
async fn a_body_that_is_cut_says_whose() {
    let (_client, _server, link, mut raw) = start(10).await;
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    let stream = raw.opened().await;
    raw.head(stream).await;
    raw.data(stream, b"half").await;
    let body = sent.await.unwrap().unwrap().into_body();
    drop(raw);
    let status = collect(body).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("node server-1 at 127.0.0.1:"), "{status}");
    eventually(|| (link.in_flight() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_reset_in_the_body_has_grpcs_code() {
    let (_client, _server, link, mut raw) = start(10).await;
    for (reason, code) in [(0, Code::Internal), (8, Code::Cancelled), (11, Code::ResourceExhausted)]
    {
        let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
        let stream = raw.opened().await;
        raw.head(stream).await;
        raw.reset(stream, reason).await;
        let body = sent.await.unwrap().unwrap().into_body();
        assert_eq!(collect(body).await.unwrap_err().code(), code);
    }
}

#[tokio::test]
async fn two_hundred_cancelled_calls_at_once_leave_the_connection_alone() {
    let (_client, _server, link, mut raw) = start(1_000).await;
    for _ in 0..10 {
        let mut calls = tokio::task::JoinSet::new();
        for _ in 0..200 {
            calls.spawn(slot(&link).await.send(request(full("x"))));
        }
        for _ in 0..200 {
            raw.opened().await;
        }
        calls.shutdown().await;
    }
    assert_eq!(link.counters().cancelled, 2_000);
    assert_eq!(link.in_flight(), 0);
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    let stream = raw.opened().await;
    raw.answer(stream).await;
    sent.await.unwrap().unwrap();
    assert_eq!(link.counters().connected, 1);
}
