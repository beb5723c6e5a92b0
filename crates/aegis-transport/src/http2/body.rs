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
use crate::http2::call_error::{CallError, Cause};
use crate::lease::Lease;
use crate::owed::Owed;
use crate::sanitize::sanitize;
use crate::task::OwnedTask;

pub(crate) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// The body of a response: data and trailers, straight from the stream.
///
/// Window is given back to the peer as frames are taken (8 KiB or more at once), so a body that nobody reads stops its own stream only.
/// It holds the call's slot to its end; dropped before, it resets the stream (`CANCEL`) and ends the request body.
/// A stream that breaks is a `Status` that names node and address.
pub struct ResponseBody {
    /// `None` once it has ended.
    reading: Option<Reading>,
}

struct Reading {
    // In this order: the stream is reset before its slot is free for another.
    stream: RecvStream,
    call: Call,
    meter: Meter,
    owed: Owed,
    data_ended: bool,
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

impl Drop for Sending {
    fn drop(&mut self) {
        // Where the response came first, the request may have been cut.
        self.lease.connection.let_go();
    }
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
            return Self { reading: None };
        }
        let owed = Owed::of(call.lease().connection.window());
        let reading = Reading { stream, call, meter: Meter::default(), owed, data_ended: false };
        Self { reading: Some(reading) }
    }
}

impl Reading {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if !self.data_ended {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    if let Some(bytes) = self.owed.add(data.len()) {
                        // Fails only where the stream is gone, as its next poll says.
                        drop(self.stream.flow_control().release_capacity(bytes));
                    }
                    self.meter.moved(data.len(), &self.call.lease().connection);
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(self.failed(error)))),
                None => self.data_ended = true,
            }
        }
        Poll::Ready(match ready!(self.stream.poll_trailers(cx)) {
            Ok(trailers) => {
                self.call.lease().done();
                trailers.map(|trailers| self.check(trailers).map(Frame::trailers))
            }
            Err(error) => Some(Err(self.failed(error))),
        })
    }

    /// h2 cuts trailers at the limit without a word, and the status is often what comes last.
    fn check(&self, mut trailers: HeaderMap) -> Result<HeaderMap, Status> {
        if trailers.contains_key(GRPC_STATUS) {
            sanitize(&mut trailers);
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
        let Some(reading) = &mut self.reading else {
            return Poll::Ready(None);
        };
        let frame = ready!(reading.poll_frame(cx));
        if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            self.reading = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.reading.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        if self.is_end_stream() { SizeHint::with_exact(0) } else { SizeHint::default() }
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("ended", &self.is_end_stream()).finish_non_exhaustive()
    }
}
