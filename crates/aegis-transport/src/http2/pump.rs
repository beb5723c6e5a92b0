use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::HeaderMap;
use http_body::{Body, Frame};
use tonic::Status;

use crate::bulk::Meter;
use crate::head::fields_size;
use crate::http2::connection::Connection;

/// Moves a request body into its stream, as fast as the peer's windows allow.
///
/// Dropping it before its end resets the stream.
pub(crate) struct Pump<B> {
    body: B,
    stream: SendStream<Bytes>,
    /// What the body has given and the window has not taken yet.
    held: Option<Bytes>,
    /// The end of the body, where that has come early.
    trailers: Option<HeaderMap>,
    meter: Meter,
    connection: Arc<Connection>,
}

/// How a pump ended.
#[derive(Debug)]
pub(crate) enum Pumped {
    /// HTTP/2 has all of the body, or the stream was closed: the response says which.
    Done,
    /// The body failed: the stream is to be reset.
    BodyFailed(Status),
}

impl<B> Pump<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    pub(crate) fn new(body: B, stream: SendStream<Bytes>, connection: Arc<Connection>) -> Self {
        Self { body, stream, held: None, trailers: None, meter: Meter::default(), connection }
    }

    /// Takes a frame that the body gave earlier.
    pub(crate) fn with(mut self, frame: Frame<Bytes>) -> Self {
        match frame.into_data() {
            Ok(data) => self.held = Some(data),
            Err(frame) => self.trailers = frame.into_trailers().ok(),
        }
        self
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Pumped> {
        loop {
            if let Some(data) = self.held.take() {
                match self.poll_send(cx, data) {
                    Poll::Ready(true) => {}
                    Poll::Ready(false) => return Poll::Ready(Pumped::Done),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if let Some(trailers) = self.trailers.take() {
                return Poll::Ready(self.send_trailers(trailers));
            }
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.held = Some(data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
                Poll::Ready(Some(Err(error))) => {
                    return Poll::Ready(Pumped::BodyFailed(body_error(error.into())));
                }
                Poll::Ready(None) => {
                    drop(self.stream.send_data(Bytes::new(), true));
                    return Poll::Ready(Pumped::Done);
                }
                // Nothing to send, but the stream may have ended meanwhile.
                Poll::Pending => return self.stream.poll_reset(cx).map(|_| Pumped::Done),
            }
        }
    }

    /// Ends the stream; dropping the pump would too, but only when nobody else holds the stream.
    pub(crate) fn reset(&mut self) {
        self.stream.send_reset(Reason::CANCEL);
    }

    /// Sends what the window takes and holds the rest; `false` when the stream is closed.
    fn poll_send(&mut self, cx: &mut Context<'_>, mut data: Bytes) -> Poll<bool> {
        loop {
            let window = self.window(cx, data.len());
            let Poll::Ready(Some(window)) = window else {
                self.held = Some(data);
                return window.map(|_| false);
            };
            let piece = data.split_to(window.min(data.len()));
            self.meter.moved(piece.len(), &self.connection);
            let last = data.is_empty() && self.body.is_end_stream();
            if self.stream.send_data(piece, last).is_err() || last {
                return Poll::Ready(false);
            }
            if data.is_empty() {
                return Poll::Ready(true);
            }
        }
    }

    /// How much may be sent of so much; `None` when the stream is closed.
    fn window(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<Option<usize>> {
        if wanted == 0 {
            return Poll::Ready(Some(0));
        }
        self.stream.reserve_capacity(wanted);
        match self.stream.capacity() {
            // `poll_capacity` speaks of increases only.
            0 => self.stream.poll_capacity(cx).map(|window| window.and_then(Result::ok)),
            window => Poll::Ready(Some(window)),
        }
    }

    fn send_trailers(&mut self, trailers: HeaderMap) -> Pumped {
        let (size, longest) = (fields_size(&trailers), self.connection.longest_head);
        if longest < size {
            return Pumped::BodyFailed(Status::resource_exhausted(format!(
                "the trailers of the request are {size} bytes long, above the {longest} that are sent to node {} at {}",
                self.connection.node, self.connection.address
            )));
        }
        // A stream that is closed does not want them, and its response says why.
        drop(self.stream.send_trailers(trailers));
        Pumped::Done
    }
}

/// A caller's own status stays what it is.
pub(crate) fn body_error(error: Box<dyn Error + Send + Sync>) -> Status {
    Status::try_from_error(error)
        .unwrap_or_else(|error| Status::unknown(format!("the request body failed: {error}")))
}
