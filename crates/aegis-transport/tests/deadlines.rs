//! Bodies that end at a deadline, on virtual time.

use std::time::Duration;

use aegis_transport::deadline::{Deadline, DeadlineBody, enforce};
use http_body::{Body, Frame};
use tonic::{Code, Status};

use crate::support::{chunks, collect};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_clients_body_fails_at_the_deadline_and_drops_the_stream() {
    let (feed, body) = chunks();
    feed.send(Ok(Frame::data("in time".into()))).unwrap();
    let deadline = Deadline::after(SECOND);
    let mut body = Box::pin(DeadlineBody::new(body, Some(deadline)).with_message("the call to x"));
    let first = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
    assert_eq!(first.unwrap().unwrap().into_data().unwrap(), "in time");
    let status = collect(body).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::DeadlineExceeded, "the call to x"));
    assert!(deadline.has_passed());
    assert!(feed.is_closed());
}

#[tokio::test(start_paused = true)]
async fn an_end_that_is_there_counts_even_when_it_is_read_late() {
    let (feed, body) = chunks();
    let ok = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
    feed.send(Ok(Frame::trailers(ok.into_iter().collect()))).unwrap();
    let body = Box::pin(DeadlineBody::new(body, Some(Deadline::after(SECOND))));
    tokio::time::advance(2 * SECOND).await;
    assert_eq!(collect(body).await.unwrap().1.unwrap()["grpc-status"], "0");
}

#[tokio::test(start_paused = true)]
async fn a_peers_cancel_at_the_deadline_is_the_deadline() {
    let (feed, body) = chunks();
    let body = Box::pin(DeadlineBody::new(body, Some(Deadline::after(SECOND))));
    tokio::time::advance(SECOND).await;
    feed.send(Err(Status::cancelled("reset"))).unwrap();
    assert_eq!(collect(body).await.unwrap_err().code(), Code::DeadlineExceeded);

    let late = async {
        tokio::time::advance(SECOND).await;
        Err::<(), _>(Status::cancelled("reset"))
    };
    let status = enforce(Some(Deadline::after(SECOND)), late).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn without_a_deadline_nothing_ends() {
    let (feed, body) = chunks();
    let body = Box::pin(DeadlineBody::new(body, None));
    let reading = tokio::spawn(collect(body));
    tokio::time::advance(Duration::from_secs(86_400)).await;
    drop(feed);
    assert!(reading.await.unwrap().is_ok());
    assert_eq!(enforce(None, async { Ok(7) }).await.unwrap(), 7);
}

#[tokio::test(start_paused = true)]
async fn the_longest_timeout_is_not_over_at_once() {
    let deadline = Deadline::after(Duration::MAX);
    assert!(!deadline.has_passed());
    assert!(deadline.remaining() > Duration::from_secs(86_400));
}
