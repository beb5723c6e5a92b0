//! Headers that are longer than the other side takes end their call with a clear error, and nothing else.
//!
//! Nothing to compare with: plain tonic resets the stream or, as it happens, closes the connection.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use http_body_util::BodyExt as _;
use tonic::body::Body;
use tonic::metadata::{MetadataKey, MetadataMap};
use tonic::{Request, Response, Status};
use tower::ServiceExt as _;

use super::describe::{say, stream, unary};
use super::echo::Client;
use super::row::{Outcome, Row};
use super::streams::{echo, failing, of};
use super::{Way, play};

fn fill(map: &mut MetadataMap, bytes: usize) {
    map.insert("long", "v".repeat(bytes).parse().unwrap());
}

/// In fields of a KiB each: of those, h2 takes fewer than of one long field before it ends a connection.
fn spread(map: &mut MetadataMap, kib: usize) {
    for index in 0..kib {
        let name = format!("long-{index}").parse::<MetadataKey<_>>().unwrap();
        map.insert(name, "v".repeat(1 << 10).parse().unwrap());
    }
}

/// 100,000 characters, three bytes each on the wire.
fn long_text() -> Status {
    Status::internal("\u{e9}".repeat(100_000))
}

fn long_metadata() -> Status {
    let mut status = Status::aborted("why");
    fill(status.metadata_mut(), 20 << 10);
    status
}

async fn one(mut client: Client) -> Outcome {
    unary(client.unary(Bytes::new()).await)
}

async fn talk(mut client: Client) -> Outcome {
    let words = ["a", "b"].map(Bytes::from);
    stream(client.both(tokio_stream::iter(words)).await).await
}

async fn one_with(kib: usize, mut client: Client) -> Outcome {
    let mut request = Request::new(Bytes::new());
    spread(request.metadata_mut(), kib);
    unary(client.unary(request).await)
}

async fn talk_with(kib: usize, mut client: Client) -> Outcome {
    let mut request = Request::new(tokio_stream::iter(["a", "b"].map(Bytes::from)));
    spread(request.metadata_mut(), kib);
    stream(client.both(request).await).await
}

/// An answer that says well and has as many trailers as no client takes.
fn with_trailers(response: http::Response<Body>) -> http::Response<Body> {
    response.map(|body| {
        Body::new(body.map_frame(|frame| match frame.into_trailers() {
            Ok(mut trailers) => {
                trailers.insert("long", HeaderValue::from_str(&"v".repeat(20 << 10)).unwrap());
                http_body::Frame::trailers(trailers)
            }
            Err(frame) => frame,
        }))
    })
}

/// Each row, and what its outcome says.
fn answers() -> Vec<(Row, &'static [&'static str])> {
    let shortened: &[&str] = &["status Internal \"\u{e9}\u{e9}", "... [shortened]\""];
    let left_out: &[&str] = &["status Aborted", "its text and metadata are left out"];
    vec![
        (Row::unary("a long text", |_| async { Err(long_text()) }, one), shortened),
        (Row::both("a long text before a stream", |_| async { Err(long_text()) }, talk), shortened),
        (
            Row::both(
                "a long text within a stream",
                |_| async { Ok(Response::new(failing(&["a"], long_text()))) },
                talk,
            ),
            &["message \"a\"", "status Internal", "... [shortened]\""],
        ),
        (Row::unary("a status of 20 KiB", |_| async { Err(long_metadata()) }, one), left_out),
        (
            Row::both(
                "a status of 20 KiB before a stream",
                |_| async { Err(long_metadata()) },
                talk,
            ),
            left_out,
        ),
        (
            Row::both(
                "a status of 20 KiB within a stream",
                |_| async { Ok(Response::new(failing(&["a"], long_metadata()))) },
                talk,
            ),
            &["message \"a\"", "status Aborted", "its text and metadata are left out"],
        ),
        (
            Row::unary("trailers of 20 KiB after an answer", |_| async { say("well") }, one)
                .server_layer(|request, inner| async move {
                    Ok(with_trailers(inner.oneshot(request).await?))
                }),
            &["message \"well\""],
        ),
        (
            Row::both(
                "trailers of 20 KiB after a stream",
                |_| async { Ok(Response::new(of(&["well"]))) },
                talk,
            )
            .server_layer(|request, inner| async move {
                Ok(with_trailers(inner.oneshot(request).await?))
            }),
            &["message \"well\"", "end"],
        ),
        (
            Row::unary(
                "an answer that begins with 20 KiB",
                |_| async {
                    let mut response = Response::new(Bytes::new());
                    fill(response.metadata_mut(), 20 << 10);
                    Ok(response)
                },
                one,
            ),
            &["status ResourceExhausted", "the answer begins with"],
        ),
        (
            Row::both(
                "a stream that begins with 20 KiB",
                |request| async {
                    let mut response = Response::new(echo(request.into_inner()));
                    fill(response.metadata_mut(), 20 << 10);
                    Ok(response)
                },
                talk,
            ),
            &["status ResourceExhausted", "the answer begins with"],
        ),
    ]
}

fn requests() -> Vec<(Row, &'static [&'static str])> {
    let too_much: &[&str] =
        &["status ResourceExhausted", "the metadata of the call to node server at 127.0.0.1"];
    vec![
        (
            Row::unary(
                "a request with 20 KiB",
                |_| async { say("") },
                |client| one_with(20, client),
            ),
            too_much,
        ),
        (
            Row::both(
                "a request stream with 20 KiB",
                |request| async { Ok(Response::new(echo(request.into_inner()))) },
                |client| talk_with(20, client),
            ),
            too_much,
        ),
        (
            Row::unary(
                "a request with 40 KiB",
                |_| async { say("") },
                |client| one_with(40, client),
            ),
            too_much,
        ),
        (
            Row::both(
                "a request stream with 40 KiB",
                |request| async { Ok(Response::new(echo(request.into_inner()))) },
                |client| talk_with(40, client),
            ),
            too_much,
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_headers_end_their_call_within_a_second_and_leave_the_connection_alone() {
    for (row, words) in answers().into_iter().chain(requests()) {
        let name = row.name;
        let played = play(Way::Aegis, row).await;
        let text = played.outcome.join(", ");
        let mut rest = text.as_str();
        for word in words {
            rest =
                rest.split_once(word).unwrap_or_else(|| panic!("{name}: no {word:?} in {text}")).1;
        }
        assert!(!text.contains("a call after"), "{name}: {text}");
        assert!(played.took < Duration::from_secs(1), "{name} took {:?}", played.took);
        assert_eq!(played.connections, 1, "{name} cost the connection");
    }
}
