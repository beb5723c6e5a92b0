//! One call: the handler runs, its answer is written, and whatever ends the call first ends both.

use std::any::Any;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use aegis_client::take_refusal;
use aegis_transport::timeout;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

use crate::dispatch::Refusal;
use crate::end::{End, late};
use crate::handler::{Handler, HandlerFuture};
use crate::http2::answer;
use crate::http2::connection::Shared;
use crate::http2::request_body::RequestBody;
use crate::message::Limited;

/// One call until its end. Dropping it resets the stream.
pub(crate) type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Makes the call of a request that has arrived at that moment.
///
/// The service is copied here, on the connection's task; its handler runs later. What the future holds is kept small, since
/// it is allocated for each call.
pub(crate) fn serve(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    handler: Result<Handler, Refusal>,
    shared: Arc<Shared>,
    arrived: Instant,
) -> Call {
    let deadline = match timeout::parse(request.headers()) {
        Ok(timeout) => timeout.and_then(|timeout| arrived.checked_add(timeout)),
        Err(error) => {
            let answer = Status::invalid_argument(error.to_string()).into_http();
            return Box::pin(run(Answering::known(answer), respond, shared, None));
        }
    };
    let answering = match handler {
        Err(refusal) => Answering::known(refusal.into_response()),
        Ok(handler) => {
            let mut request = request.map(|stream| {
                Body::new(Limited::new(
                    RequestBody::new(stream, shared.stream_window),
                    shared.message_bytes,
                ))
            });
            shared.describe(request.extensions_mut());
            Answering::by(handler, request)
        }
    };
    let call = run(answering, respond, shared, deadline);
    match deadline {
        // Calls that the handler or its stream makes end with the call they are made for.
        Some(deadline) => Box::pin(aegis_client::deadline::scope(deadline.into_std(), call)),
        None => Box::pin(call),
    }
}

async fn run(
    mut answering: Answering,
    mut respond: SendResponse<Bytes>,
    shared: Arc<Shared>,
    deadline: Option<Instant>,
) {
    let shared = &*shared;
    let mut end = End::new(deadline, shared);
    let rest = poll_fn(|cx| {
        let response = match answering.poll(cx, deadline) {
            Poll::Ready(response) => response,
            Poll::Pending => match end.poll(cx) {
                Poll::Ready(status) => status.into_http(),
                // The caller is gone, and the handler is dropped with this future.
                Poll::Pending => return respond.poll_reset(cx).map(|_| None),
            },
        };
        Poll::Ready(answer::begin(response, &mut respond, shared, cx))
    });
    if let Some(rest) = rest.await {
        // Of its own, since most calls have none.
        Box::pin(rest.write(&mut end)).await;
    }
}

/// Where an answer comes from.
enum Answering {
    Handler {
        answer: HandlerFuture,
        began: bool,
    },
    /// It needs none; `None` once it is taken.
    Known(Option<Box<Response<Body>>>),
}

impl Answering {
    fn known(response: Response<Body>) -> Self {
        Self::Known(Some(Box::new(response)))
    }

    fn by(mut handler: Handler, request: Request<Body>) -> Self {
        // It copies a service of the user's, which may panic.
        match caught(|| Poll::Ready(tower_service::Service::call(&mut handler, request))) {
            Poll::Ready(Ok(answer)) => Self::Handler { answer, began: false },
            Poll::Ready(Err(status)) => Self::known(status.into_http()),
            Poll::Pending => Self::Known(None),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<Response<Body>> {
        let (answer, began) = match self {
            Self::Handler { answer, began } => (answer, began),
            Self::Known(response) => {
                return match response.take() {
                    Some(response) => Poll::Ready(*response),
                    None => Poll::Pending,
                };
            }
        };
        // Nobody waits for what a handler would do now.
        if !*began && deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Poll::Ready(late().into_http());
        }
        *began = true;
        let polled = caught(|| Pin::new(answer).poll(cx));
        polled.map(|answer| answer.map_or_else(Status::into_http, handled))
    }
}

/// A handler that passes on the status of a call of its own must not pass on that *that* call was never processed:
/// its caller would take it for its own, and make the call again.
fn handled(answer: Result<Response<Body>, Infallible>) -> Response<Body> {
    let Ok(mut response) = answer;
    take_refusal(response.headers_mut());
    response
}

/// A panic of a handler or of its body ends its call, not the connection.
pub(crate) fn caught<T>(poll: impl FnOnce() -> Poll<T>) -> Poll<Result<T, Status>> {
    match catch_unwind(AssertUnwindSafe(poll)) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => {
            tracing::error!(panic = panic_text(panic.as_ref()), "a handler panicked");
            Poll::Ready(Err(Status::internal("the handler panicked")))
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}
