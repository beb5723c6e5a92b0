//! One call: the handler runs, its answer is written, and whatever ends the call first ends both.

use std::any::Any;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use aegis_transport::timeout;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use http_body::{Body as _, Frame};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::body::Body;

use crate::connection::Shared;
use crate::dispatch::REFUSED_HEADER;
use crate::message::{LengthCheck, Limited};
use crate::request_body::RequestBody;
use crate::trim::{too_long, trim};

/// Data up to this size is queued with the head of the answer, so that one wake-up and one write carry a small answer.
const QUEUED_WITH_HEAD: usize = 1024;

/// Serves one request to its end.
///
/// Dropping the future resets the stream.
pub(crate) async fn serve(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    shared: &Shared,
) {
    let deadline = match timeout::parse(request.headers()) {
        Ok(timeout) => timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        Err(error) => {
            let answer = Status::invalid_argument(error.to_string()).into_http();
            return write(answer, respond, shared, &mut End::new(None, &shared.terminate)).await;
        }
    };
    let call = run(request, respond, shared, deadline);
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
    shared: &Shared,
    deadline: Option<Instant>,
) {
    let mut end = End::new(deadline, &shared.terminate);
    let response = match shared.routes.find(&request) {
        Err(refusal) => refusal.into_response(),
        // Nobody waits for what a handler would do now.
        Ok(_) if deadline.is_some_and(|deadline| deadline <= Instant::now()) => late().into_http(),
        Ok(handler) => {
            let mut request = request.map(|stream| {
                Body::new(Limited::new(RequestBody::new(stream), shared.message_bytes))
            });
            shared.describe(request.extensions_mut());
            let mut handler = handler.clone();
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

/// What ends a call from outside: its deadline, or the server's last word.
struct End {
    deadline: Option<Pin<Box<Sleep>>>,
    terminate: CancellationToken,
    /// Made at the first wait: most calls never wait.
    terminated: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
}

impl End {
    fn new(deadline: Option<Instant>, terminate: &CancellationToken) -> Self {
        let deadline = deadline.map(|deadline| Box::pin(tokio::time::sleep_until(deadline)));
        Self { deadline, terminate: terminate.clone(), terminated: None }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if let Some(deadline) = &mut self.deadline
            && deadline.as_mut().poll(cx).is_ready()
        {
            return Poll::Ready(late());
        }
        let terminate = &self.terminate;
        let terminated =
            self.terminated.get_or_insert_with(|| Box::pin(terminate.clone().cancelled_owned()));
        terminated.as_mut().poll(cx).map(|()| {
            Status::unavailable(
                "this node is closing the connection: the time for calls to end has passed",
            )
        })
    }
}

fn late() -> Status {
    Status::deadline_exceeded("the caller's deadline passed while the call was served")
}

/// A panic of a handler or of its body ends its call, not the connection.
fn caught<T>(poll: impl FnOnce() -> Poll<T>) -> Poll<Result<T, Status>> {
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

/// Why writing stopped early: the stream is gone, and with it everyone who could be told.
struct Gone;

impl From<h2::Error> for Gone {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

async fn write(
    response: Response<Body>,
    respond: SendResponse<Bytes>,
    shared: &Shared,
    end: &mut End,
) {
    // Nobody is left to hear of a stream that broke while its answer was written.
    drop(try_write(response, respond, shared, end).await);
}

async fn try_write(
    response: Response<Body>,
    mut respond: SendResponse<Bytes>,
    shared: &Shared,
    end: &mut End,
) -> Result<(), Gone> {
    let (mut head, body) = match too_long(response.headers(), shared.header_bytes) {
        Some(status) => status.into_http(),
        None => response,
    }
    .into_parts();
    trim(&mut head.headers, shared.header_bytes);
    let head = Response::from_parts(head, ());
    if body.is_end_stream() {
        respond.send_response(head, true)?;
        return Ok(());
    }
    let mut body = pin!(body);
    let mut poll_once = |cx: &mut Context<'_>| caught(|| body.as_mut().poll_frame(cx));
    // What is ready now goes out with the head: for a unary call that is all of it.
    let first = poll_fn(|cx| Poll::Ready(poll_once(cx))).await;
    let small = matches!(&first, Poll::Ready(Ok(Some(Ok(frame)))) if frame.data_ref().is_some_and(|data| data.len() <= QUEUED_WITH_HEAD));
    let second = if small { poll_fn(|cx| Poll::Ready(poll_once(cx))).await } else { Poll::Pending };

    let stream = respond.send_response(head, false)?;
    let mut writer = Writer {
        stream,
        check: LengthCheck::new(shared.message_bytes),
        header_bytes: shared.header_bytes,
    };
    for polled in [first, second] {
        if let Poll::Ready(polled) = polled
            && writer.step(polled, end, small).await?
        {
            return Ok(());
        }
    }
    loop {
        let next = poll_fn(|cx| {
            if writer.stream.poll_reset(cx).is_ready() {
                return Poll::Ready(Err(Gone));
            }
            if let Poll::Ready(polled) = caught(|| body.as_mut().poll_frame(cx)) {
                return Poll::Ready(Ok(polled));
            }
            end.poll(cx).map(|status| Ok(Err(status)))
        });
        let polled = next.await?;
        if writer.step(polled, end, false).await? {
            return Ok(());
        }
    }
}

/// One poll of a body: a frame, its end, its error, or the status that ends the call from outside.
type Polled = Result<Option<Result<Frame<Bytes>, Status>>, Status>;

struct Writer {
    stream: SendStream<Bytes>,
    check: LengthCheck,
    header_bytes: usize,
}

impl Writer {
    /// Writes what a poll brought; true at the end of the answer.
    async fn step(&mut self, polled: Polled, end: &mut End, queue: bool) -> Result<bool, Gone> {
        let frame = match polled {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(status))) | Err(status) => return self.finish(&status),
            Ok(None) => {
                self.stream.send_data(Bytes::new(), true)?;
                return Ok(true);
            }
        };
        let frame = match frame.into_data() {
            Ok(data) => {
                if let Err(length) = self.check.pass(&data) {
                    let status = self.check.too_long(length);
                    return self.finish(&status);
                }
                if queue && data.len() <= QUEUED_WITH_HEAD {
                    self.stream.send_data(data, false)?;
                    return Ok(false);
                }
                return match self.send(data, end).await? {
                    Some(status) => self.finish(&status),
                    None => Ok(false),
                };
            }
            Err(frame) => frame,
        };
        if let Ok(mut trailers) = frame.into_trailers() {
            trim(&mut trailers, self.header_bytes);
            self.stream.send_trailers(trailers)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// Sends data as fast as the caller takes it; a status where the call ended first.
    async fn send(&mut self, mut data: Bytes, end: &mut End) -> Result<Option<Status>, Gone> {
        while !data.is_empty() {
            self.stream.reserve_capacity(data.len());
            let mut room = self.stream.capacity();
            if room == 0 {
                let granted = poll_fn(|cx| {
                    if self.stream.poll_reset(cx).is_ready() {
                        return Poll::Ready(Err(Gone));
                    }
                    match self.stream.poll_capacity(cx) {
                        Poll::Ready(Some(Ok(room))) => return Poll::Ready(Ok(Ok(room))),
                        Poll::Ready(_) => return Poll::Ready(Err(Gone)),
                        Poll::Pending => {}
                    }
                    end.poll(cx).map(|status| Ok(Err(status)))
                });
                match granted.await? {
                    Ok(granted) => room = granted,
                    Err(status) => return Ok(Some(status)),
                }
            }
            let piece = data.split_to(room.min(data.len()));
            self.stream.send_data(piece, false)?;
        }
        Ok(None)
    }

    /// Ends the answer with a status in its trailers.
    fn finish(&mut self, status: &Status) -> Result<bool, Gone> {
        let mut trailers = http::HeaderMap::new();
        if status.add_header(&mut trailers).is_err() {
            self.stream.send_reset(Reason::INTERNAL_ERROR);
            return Ok(true);
        }
        trim(&mut trailers, self.header_bytes);
        self.stream.send_trailers(trailers)?;
        Ok(true)
    }
}
