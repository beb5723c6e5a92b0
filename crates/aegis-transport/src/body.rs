use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::{HeaderMap, HeaderName};
use http_body::{Body, Frame, SizeHint};
use tonic::Status;

use crate::bulk::Meter;
use crate::call_error::{CallError, Cause};
use crate::lease::Lease;
use crate::task::OwnedTask;

pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The body of a response: data and trailers, straight from the stream.
///
/// Window is given back to the peer as frames are taken, so a body that nobody reads stops its own stream only.
/// It holds the call's slot to its end; dropped before, it resets the stream (`CANCEL`) and ends the request body.
/// A stream that breaks is a `Status` that names node and address.
pub struct ResponseBody {
    state: State,
}

enum State {
    Data(Box<Reading>),
    Trailers(Box<Reading>),
    Ended,
}

struct Reading {
    // In this order: the stream is reset before its slot is free for another.
    stream: RecvStream,
    call: Call,
    meter: Meter,
}

/// What a running call holds besides its response.
pub(crate) enum Call {
    /// Its request is complete.
    Sent(Lease),
    /// A task sends the rest of it, and frees the slot with us.
    Sending(Arc<Sending>, #[expect(dead_code, reason = "dropping it ends the task")] OwnedTask),
}

/// What the two halves of a call share while both run.
pub(crate) struct Sending {
    pub(crate) lease: Lease,
    /// Why the request body failed.
    pub(crate) failed: Mutex<Option<Status>>,
}

impl Call {
    fn lease(&self) -> &Lease {
        match self {
            Self::Sent(lease) => lease,
            Self::Sending(sending, _) => &sending.lease,
        }
    }

    /// The caller's own failure, where that is why the stream ended.
    fn take_failure(&self) -> Option<Status> {
        match self {
            Self::Sent(_) => None,
            Self::Sending(sending, _) => {
                sending.failed.lock().unwrap_or_else(PoisonError::into_inner).take()
            }
        }
    }
}

impl ResponseBody {
    pub(crate) fn new(stream: RecvStream, call: Call) -> Self {
        if stream.is_end_stream() {
            call.lease().done();
            return Self { state: State::Ended };
        }
        let meter = Meter::new(&call.lease().connection);
        Self { state: State::Data(Box::new(Reading { stream, call, meter })) }
    }
}

impl Reading {
    /// h2 cuts trailers at the limit without a word, and the status is often what comes last.
    fn check(&self, trailers: HeaderMap) -> Result<HeaderMap, Status> {
        if trailers.contains_key(GRPC_STATUS) {
            return Ok(trailers);
        }
        let connection = &self.call.lease().connection;
        Err(CallError::new(&connection.node, &connection.address, Cause::Trailers).into())
    }

    fn failed(&self, error: h2::Error) -> Status {
        self.call.lease().done();
        if let Some(status) = self.call.take_failure() {
            return status;
        }
        let connection = &self.call.lease().connection;
        let cause = Cause::Http2 { error, lost: connection.lost() };
        CallError::new(&connection.node, &connection.address, cause).into()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let State::Data(reading) = &mut self.state {
            match ready!(reading.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Fails only for more than was received.
                    drop(reading.stream.flow_control().release_capacity(data.len()));
                    reading.meter.moved(data.len());
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => {
                    let status = reading.failed(error);
                    self.state = State::Ended;
                    return Poll::Ready(Some(Err(status)));
                }
                None => {}
            }
            let State::Data(reading) = std::mem::replace(&mut self.state, State::Ended) else {
                return Poll::Ready(None);
            };
            self.state = State::Trailers(reading);
        }
        let State::Trailers(reading) = &mut self.state else {
            return Poll::Ready(None);
        };
        let end = match ready!(reading.stream.poll_trailers(cx)) {
            Ok(trailers) => {
                reading.call.lease().done();
                trailers.map(|trailers| reading.check(trailers).map(Frame::trailers))
            }
            Err(error) => Some(Err(reading.failed(error))),
        };
        self.state = State::Ended;
        Poll::Ready(end)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.state, State::Ended)
    }

    fn size_hint(&self) -> SizeHint {
        match self.state {
            State::Ended => SizeHint::with_exact(0),
            State::Data(_) | State::Trailers(_) => SizeHint::default(),
        }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("ended", &self.is_end_stream()).finish_non_exhaustive()
    }
}
