//! Which requests may be sent again: each row says whether the request was moved, and why.

use std::sync::Arc;

use aegis_testing::TestCa;
use aegis_transport::{CallError, NeverSent, ResponseBody};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use crate::support::{Client, Kind, Raw, Server, collect, eventually, full, request, slot};

type Outcome = Result<http::Response<ResponseBody>, CallError>;

const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const NO_ERROR: u32 = 0;

struct Row {
    _client: Client,
    _server: Server,
    link: aegis_transport::Link,
    raw: Raw,
    stream: u32,
    call: JoinHandle<Outcome>,
}

impl Row {
    /// One request has arrived on a fresh connection, and waits.
    async fn new() -> Self {
        let ca = TestCa::new();
        let server = Server::start(&ca, "server-1").await;
        let client = Client::new(&ca);
        let link = client.link(&server);
        let mut raw = server.greeted(100).await;
        let slot = slot(&link).await;
        let call = tokio::spawn(slot.send(request(full("hello"))));
        let stream = raw.opened().await;
        Self { _client: client, _server: server, link, raw, stream, call }
    }

    #[track_caller]
    fn check(outcome: Outcome, never_sent: Option<NeverSent>, code: Code) {
        let error = outcome.expect_err("the call succeeded");
        assert_eq!(error.never_sent(), never_sent, "{error}");
        assert_eq!(error.node_id().as_str(), "server-1");
        let status = Status::from(error);
        assert_eq!(status.code(), code, "{status}");
        assert!(status.message().contains("server-1 at 127.0.0.1:"), "{status}");
    }
}

#[tokio::test]
async fn a_refused_stream_was_never_sent() {
    let mut row = Row::new().await;
    row.raw.reset(row.stream, REFUSED_STREAM).await;
    Row::check(row.call.await.unwrap(), Some(NeverSent::Refused), Code::Unavailable);
    assert_eq!(row.link.in_flight(), 0);
}

#[tokio::test]
async fn a_cancelled_stream_was_sent() {
    let mut row = Row::new().await;
    row.raw.reset(row.stream, CANCEL).await;
    Row::check(row.call.await.unwrap(), None, Code::Cancelled);
}

#[tokio::test]
async fn a_stream_above_the_last_of_a_goaway_was_never_sent() {
    let mut row = Row::new().await;
    row.raw.go_away(0, NO_ERROR, "").await;
    Row::check(row.call.await.unwrap(), Some(NeverSent::GoAway), Code::Unavailable);
}

#[tokio::test]
async fn a_stream_below_the_last_of_a_goaway_goes_on() {
    let mut row = Row::new().await;
    row.raw.go_away(row.stream, NO_ERROR, "").await;
    eventually(|| (row.link.counters().go_aways == 1).then_some(())).await;
    row.raw.answer(row.stream).await;
    let response = row.call.await.unwrap().expect("the stream was not processed");
    let (_, trailers) = collect(response.into_body()).await.unwrap();
    assert_eq!(trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn a_stream_that_our_own_goaway_ended_was_sent() {
    let mut row = Row::new().await;
    // DATA on a stream that was never opened breaks the protocol: our end gives the connection up.
    row.raw.data(99, b"x").await;
    Row::check(row.call.await.unwrap(), None, Code::Unavailable);
    row.raw.next(Kind::GoAway).await;
}

#[tokio::test]
async fn a_stream_on_a_connection_that_is_cut_was_sent() {
    let row = Row::new().await;
    drop(row.raw);
    Row::check(row.call.await.unwrap(), None, Code::Unavailable);
    eventually(|| (row.link.counters().lost == 1).then_some(())).await;
}

#[tokio::test]
async fn a_slot_whose_connection_goes_first_was_never_sent() {
    let row = Row::new().await;
    let slot = slot(&row.link).await;
    drop(row.raw);
    row.call.await.unwrap().unwrap_err();
    Row::check(
        slot.send(request(full("late"))).await,
        Some(NeverSent::SlotLost),
        Code::Unavailable,
    );
}

/// A body that nobody may look at.
struct Untouched;

impl http_body::Body for Untouched {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Status>>> {
        panic!("the body was polled, so it cannot be sent again")
    }
}

#[tokio::test]
async fn a_slot_that_meets_a_goaway_was_never_sent() {
    let mut row = Row::new().await;
    let slot = slot(&row.link).await;
    row.raw.go_away(row.stream, NO_ERROR, "").await;
    eventually(|| (row.link.counters().go_aways == 1).then_some(())).await;
    let body = Untouched;
    Row::check(slot.send(request(body)).await, Some(NeverSent::SlotLost), Code::Unavailable);
}

#[tokio::test]
async fn what_waits_for_a_slot_was_never_sent_when_the_connection_is_cut() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| settings.connections = 1);
    let link = client.link(&server);
    let mut raw = server.greeted(1).await;
    let running = tokio::spawn(slot(&link).await.send(request(full("one"))));
    raw.opened().await;
    // The second call has nothing but our own accounting, so nothing of it is on the wire.
    let waiting = Arc::new(link.clone());
    let waiting =
        tokio::spawn(async move { slot(&waiting).await.send(request(full("two"))).await });
    drop(raw);
    Row::check(running.await.unwrap(), None, Code::Unavailable);
    let mut raw = server.greeted(1).await;
    let stream = raw.opened().await;
    assert_eq!(stream, 1, "the waiting call is the first of the new connection");
    raw.answer(stream).await;
    waiting.await.unwrap().unwrap();
}
