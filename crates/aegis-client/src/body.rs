use std::error::Error as _;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use aegis_core::ServiceInfo;
use aegis_transport::deadline::{Deadline, DeadlineBody};
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tonic::{Code, Status};

use crate::headers::take_refusal;
use crate::load::Measure;
use crate::shared::UnderWay;
use crate::stage::Attempt;

pin_project! {
    /// The body of an answer. Dropping it before its end resets the stream, which tells the provider to stop.
    ///
    /// A deadline of the call ends it with `DEADLINE_EXCEEDED`, a lost connection with `UNAVAILABLE`, and trailers with a
    /// failed status with that status: such trailers come as the error that they are, and not as a frame.
    /// Its default is an empty body, as interceptors that answer themselves want it.
    #[derive(Default)]
    pub struct ResponseBody {
        #[pin]
        body: Option<DeadlineBody<Held>>,
        at: Option<Attempt>,
        // For a call with a deadline.
        info: Option<ServiceInfo>,
    }
}

impl ResponseBody {
    pub(crate) fn new(
        body: aegis_transport::ResponseBody,
        deadline: Option<Deadline>,
        at: Option<Attempt>,
        under_way: UnderWay,
        measure: Measure,
    ) -> Self {
        let info = deadline.map(|_| under_way.service.info.clone());
        let body = Held { body, held: Some((measure, under_way)) };
        Self { body: Some(DeadlineBody::new(body, deadline)), at, info }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let Some(body) = this.body.as_pin_mut() else { return Poll::Ready(None) };
        Poll::Ready(match (ready!(body.poll_frame(cx)), &*this.at, &*this.info) {
            // The provider's own verdict came in trailers: this one is ours, and knows neither node nor service.
            (Some(Err(status)), Some(attempt), Some(info))
                if status.code() == Code::DeadlineExceeded =>
            {
                Some(Err(attempt.deadline_passed(info)))
            }
            (Some(Err(status)), Some(attempt), _) if status.source().is_none() => {
                Some(Err(attempt.broke(status)))
            }
            (Some(Ok(frame)), Some(attempt), _) if frame.is_trailers() => {
                Some(judge(frame, attempt))
            }
            (frame, ..) => frame,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// Makes an error of trailers that are one, which then keeps where the call was: tonic's own would know the status only.
///
/// To a caller that reads on after an error tonic tells this one twice, as it does with each that is not in trailers.
fn judge(trailers: Frame<Bytes>, attempt: &Attempt) -> Result<Frame<Bytes>, Status> {
    let failed = trailers
        .trailers_ref()
        .filter(|it| it.get(Status::GRPC_STATUS).is_some_and(|code| code != "0"))
        .and_then(Status::from_header_map);
    match failed {
        Some(status) if status.code() != Code::Ok => Err(attempt.broke(status)),
        _ => Ok(trailers),
    }
}

impl fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("body", &self.body).finish_non_exhaustive()
    }
}

pin_project! {
    /// A body whose call is under way until its end, or until it is dropped.
    struct Held {
        #[pin]
        body: aegis_transport::ResponseBody,
        // The provider has it in hand, and a pool that closes waits for it.
        held: Option<(Measure, UnderWay)>,
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
        let mut frame = ready!(this.body.poll_frame(cx));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            // It means nothing here, and would mean something where a handler passes the status on.
            take_refusal(trailers);
        }
        if frame.as_ref().is_none_or(|it| it.as_ref().map_or(true, Frame::is_trailers)) {
            *this.held = None;
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
