use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aegis_transport::Owed;
use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::task::coop::poll_proceed;
use tonic::Status;

/// What a client sends, as the handler reads it.
///
/// The client's window is opened again as the handler takes the bytes, never before:
/// a handler that does not read holds back its own client and nobody else.
#[derive(Debug)]
pub(crate) struct RequestBody {
    stream: h2::RecvStream,
    owed: Owed,
    data_done: bool,
}

impl RequestBody {
    /// `window` is that of the stream, in bytes.
    pub(crate) fn new(stream: h2::RecvStream, window: u32) -> Self {
        Self { stream, owed: Owed::of(window), data_done: false }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        // A handler that reads whatever has come must leave others their turn.
        let coop = ready!(poll_proceed(cx));
        if !self.data_done {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    coop.made_progress();
                    if let Some(bytes) = self.owed.add(data.len()) {
                        // Fails only where the stream is gone, as its next poll says.
                        drop(self.stream.flow_control().release_capacity(bytes));
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(cut(&error)))),
                None => self.data_done = true,
            }
        }
        match ready!(self.stream.poll_trailers(cx)) {
            Ok(Some(trailers)) => Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(cut(&error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}

fn cut(error: &h2::Error) -> Status {
    if error.is_reset() {
        Status::cancelled(format!("the caller ended the call: {error}"))
    } else {
        Status::unavailable(format!("the connection to the caller was lost: {error}"))
    }
}
