//! Request bodies that a generated client would not send.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;
use tonic::body::Body;

/// Gives its pieces, then ends or stays open.
pub(crate) struct Pieces {
    left: VecDeque<Bytes>,
    open: bool,
    failure: Option<Status>,
    pace: Duration,
    next: Pin<Box<Sleep>>,
}

impl Pieces {
    pub(crate) fn new(sizes: &[usize], open: bool) -> Self {
        let pieces = sizes.iter().map(|size| Bytes::from(vec![7; *size])).collect();
        Self {
            left: pieces,
            open,
            failure: None,
            pace: Duration::ZERO,
            next: Box::pin(sleep(Duration::ZERO)),
        }
    }

    /// Fails instead of ending.
    pub(crate) fn failing(self, failure: Status) -> Self {
        Self { failure: Some(failure), ..self }
    }

    /// So long before each piece, and before the end.
    pub(crate) fn every(self, pace: Duration) -> Self {
        Self { pace, next: Box::pin(sleep(pace)), ..self }
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.pace.is_zero() {
            ready!(self.next.as_mut().poll(cx));
            let next = Instant::now() + self.pace;
            self.next.as_mut().reset(next);
        }
        match self.left.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if self.open => Poll::Pending,
            None => Poll::Ready(self.failure.take().map(Err)),
        }
    }
}

pub(crate) fn upload(pieces: Pieces) -> http::Request<Body> {
    http::Request::post("/aegis.identity.v1.IdentityService/ValidateSession")
        .body(Body::new(pieces))
        .unwrap()
}
