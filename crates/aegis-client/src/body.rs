use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aegis_transport::deadline::{Deadline, DeadlineBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::Status;

use crate::pool::UnderWay;

pin_project! {
    /// The body of an answer. Dropping it before its end resets the stream, which tells the provider to stop.
    ///
    /// A deadline of the call ends it with `DEADLINE_EXCEEDED`, a lost connection with `UNAVAILABLE`.
    pub struct ResponseBody {
        #[pin]
        body: DeadlineBody<Held>,
    }
}

impl ResponseBody {
    pub(crate) fn new(
        body: aegis_transport::ResponseBody,
        deadline: Option<(Deadline, String)>,
        under_way: UnderWay,
    ) -> Self {
        let body = Held { body, under_way: Some(under_way) };
        let body = match deadline {
            Some((deadline, text)) => DeadlineBody::new(body, Some(deadline)).with_message(text),
            None => DeadlineBody::new(body, None),
        };
        Self { body }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("body", &self.body).finish()
    }
}

pin_project! {
    /// A body whose call is under way until its end, or until it is dropped.
    struct Held {
        #[pin]
        body: aegis_transport::ResponseBody,
        under_way: Option<UnderWay>,
    }
}

impl Body for Held {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        if frame.as_ref().is_none_or(|it| it.as_ref().map_or(true, Frame::is_trailers)) {
            *this.under_way = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
