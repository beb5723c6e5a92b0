//! Calls to one node, with their deadlines.

use std::time::{Duration, Instant};

use aegis_testing::TestCa;
use aegis_transport::deadline::DeadlineBody;
use aegis_transport::{NodeChannel, ResponseBody, Target};
use tonic::body::Body;
use tonic::{Code, Status};
use tower_service::Service;

use crate::support::{Client, Kind, Server, collect, eventually, full, request};

type Outcome = Result<http::Response<DeadlineBody<ResponseBody>>, Status>;

fn call(channel: &NodeChannel, timeout: Option<&str>) -> tokio::task::JoinHandle<Outcome> {
    let mut request = request(Body::new(full("x")));
    if let Some(timeout) = timeout {
        request.headers_mut().insert("grpc-timeout", timeout.parse().unwrap());
    }
    tokio::spawn(channel.clone().call(request))
}

#[tokio::test]
async fn a_call_waits_for_the_connection_and_ends_with_its_answer() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let channel = client.link(&server).channel();
    let sent = call(&channel, Some("30S"));
    let mut raw = server.greeted(10).await;
    let stream = raw.opened().await;
    raw.answer(stream).await;
    collect(sent.await.unwrap().unwrap().into_body()).await.unwrap();
}

#[tokio::test]
async fn a_deadline_ends_the_wait_for_the_head_and_resets_the_stream() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let channel = client.link(&server).channel();
    let mut raw = server.greeted(10).await;
    let sent = call(&channel, Some("100m"));
    raw.opened().await;
    let status = sent.await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("node server-1"), "{status}");
    assert_eq!(raw.next(Kind::Reset).await.word(), 8, "CANCEL");
}

#[tokio::test]
async fn a_deadline_covers_the_body_too() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let channel = client.link(&server).channel();
    let mut raw = server.greeted(10).await;
    let sent = call(&channel, Some("200m"));
    let stream = raw.opened().await;
    raw.head(stream).await;
    let body = sent.await.unwrap().unwrap().into_body();
    // A stream that never pauses has to end as well.
    let pouring = tokio::spawn(async move {
        loop {
            let more = tokio::time::timeout(Duration::from_millis(1), raw.frame()).await;
            if let Ok(frame) = more {
                match frame.unwrap() {
                    frame if frame.kind == Kind::Reset => return frame.word(),
                    _ => {}
                }
            }
            raw.data(stream, b"x").await;
        }
    });
    let status = collect(body).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(status.message().contains("node server-1"), "{status}");
    drop(pouring.await);
    eventually(|| (channel.link().in_flight() == 0).then_some(())).await;
}

#[tokio::test]
async fn a_deadline_that_is_over_or_no_deadline_sends_nothing() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let channel = client.link(&server).channel();
    let _raw = server.greeted(10).await;
    channel.link().settled().await;
    for (timeout, code) in [("0n", Code::DeadlineExceeded), ("5", Code::InvalidArgument)] {
        assert_eq!(call(&channel, Some(timeout)).await.unwrap().unwrap_err().code(), code);
    }
    assert_eq!(channel.link().counters().calls, 0);
}

#[tokio::test]
async fn a_node_that_cannot_be_reached_fails_at_once_and_says_why() {
    let client = Client::new(&TestCa::new());
    let target = Target::new("server-1".parse().unwrap(), vec!["127.0.0.1:1".parse().unwrap()]);
    let channel = client.connections.link(target).channel();
    let start = Instant::now();
    let status = call(&channel, Some("30S")).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("node server-1 is not connected"), "{status}");
    assert!(status.message().contains("cannot reach 127.0.0.1:1"), "{status}");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_call_without_a_deadline_does_not_wait_for_a_stream_for_ever() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| {
        settings.wait = Duration::from_millis(100);
        settings.connections = 1;
    });
    let channel = client.link(&server).channel();
    let mut raw = server.greeted(1).await;
    channel.link().settled().await;
    let held = channel.link().try_acquire().unwrap();
    let status = call(&channel, None).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    let status = call(&channel, Some("50m")).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");

    // One that becomes free in time is taken.
    drop(held);
    let sent = call(&channel, None);
    let stream = raw.opened().await;
    raw.answer(stream).await;
    sent.await.unwrap().unwrap();
}
