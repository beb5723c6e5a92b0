//! One call: the handler runs, its answer is written, and whatever ends the call first ends both.

use std::any::Any;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use aegis_client::REFUSED_HEADER;
use aegis_transport::timeout;
use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

use crate::answer::write;
use crate::connection::Shared;
use crate::dispatch::Refusal;
use crate::end::{End, late};
use crate::handler::Handler;
use crate::message::Limited;
use crate::request_body::RequestBody;

/// Serves one request, which has arrived at that moment, to its end.
///
/// Dropping the future resets the stream.
pub(crate) async fn serve(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    handler: Result<Handler, Refusal>,
    shared: Arc<Shared>,
    arrived: Instant,
) {
    let shared = &*shared;
    let deadline = match timeout::parse(request.headers()) {
        Ok(timeout) => timeout.and_then(|timeout| arrived.checked_add(timeout)),
        Err(error) => {
            let answer = Status::invalid_argument(error.to_string()).into_http();
            return write(answer, respond, shared, &mut End::new(None, shared)).await;
        }
    };
    // Pinned here, since a future of this size is not moved for nothing.
    let call = pin!(run(request, respond, handler, shared, deadline));
    match deadline {
        // Calls that the handler or its stream makes end with the call they are made for.
        Some(deadline) => aegis_client::deadline::scope(deadline.into_std(), call).await,
        None => call.await,
    }
}

/// Runs the handler and writes its answer.
async fn run(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    handler: Result<Handler, Refusal>,
    shared: &Shared,
    deadline: Option<Instant>,
) {
    let mut end = End::new(deadline, shared);
    let response = match handler {
        Err(refusal) => refusal.into_response(),
        // Nobody waits for what a handler would do now.
        Ok(_) if deadline.is_some_and(|deadline| deadline <= Instant::now()) => late().into_http(),
        Ok(mut handler) => {
            let mut request = request.map(|stream| {
                Body::new(Limited::new(RequestBody::new(stream), shared.message_bytes))
            });
            shared.describe(request.extensions_mut());
            // Inside an async block, since `call` itself may panic.
            let answer = async move { tower_service::Service::call(&mut handler, request).await };
            let mut answer = pin!(answer);
            let ended = poll_fn(|cx| {
                if let Poll::Ready(answer) = caught(|| answer.as_mut().poll(cx)) {
                    return Poll::Ready(Some(answer.map_or_else(Status::into_http, handled)));
                }
                if let Poll::Ready(status) = end.poll(cx) {
                    return Poll::Ready(Some(status.into_http()));
                }
                respond.poll_reset(cx).map(|_| None)
            });
            match ended.await {
                Some(response) => response,
                // The caller is gone: the handler is dropped with this future.
                None => return,
            }
        }
    };
    write(response, respond, shared, &mut end).await;
}

/// A handler that passes on the status of a call of its own must not pass on that *that* call was never processed:
/// its caller would take it for its own, and make the call again.
fn handled(answer: Result<Response<Body>, Infallible>) -> Response<Body> {
    let Ok(mut response) = answer;
    response.headers_mut().remove(REFUSED_HEADER);
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
