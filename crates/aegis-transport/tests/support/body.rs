use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio::sync::mpsc;
use tonic::Status;

/// A request body that a test feeds.
pub(crate) struct Chunks(mpsc::UnboundedReceiver<Result<Frame<Bytes>, Status>>);

pub(crate) type Feed = mpsc::UnboundedSender<Result<Frame<Bytes>, Status>>;

pub(crate) fn chunks() -> (Feed, Chunks) {
    let (feed, chunks) = mpsc::unbounded_channel();
    (feed, Chunks(chunks))
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.0.poll_recv(cx)
    }
}

/// A body that is there at once.
pub(crate) fn full(data: impl Into<Bytes>) -> Chunks {
    let (feed, chunks) = chunks();
    feed.send(Ok(Frame::data(data.into()))).unwrap();
    chunks
}

pub(crate) fn empty() -> Chunks {
    chunks().1
}

/// All data of a body, and its trailers.
pub(crate) async fn collect(
    body: impl Body<Data = Bytes, Error = Status>,
) -> Result<(Vec<u8>, Option<http::HeaderMap>), Status> {
    let mut body = std::pin::pin!(body);
    let (mut data, mut trailers) = (Vec::new(), None);
    while let Some(frame) =
        std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await.transpose()?
    {
        match frame.into_data() {
            Ok(piece) => data.extend(piece),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((data, trailers))
}
