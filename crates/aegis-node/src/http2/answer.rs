//! The answer to a call, from its head to its trailers, as fast as the caller takes it.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::Response;
use http_body::{Body as _, Frame};
use tokio::task::coop::poll_proceed;
use tonic::Status;
use tonic::body::Body;

use crate::end::End;
use crate::http2::call::caught;
use crate::http2::connection::Shared;
use crate::message::LengthCheck;
use crate::trim::{too_long, trim};

/// Data up to this size is queued with the head of the answer, so that one wake-up and one write carry a small answer.
const QUEUED_WITH_HEAD: usize = 1024;

/// So much more than a caller that reads along has room for is left to HTTP/2, which goes on with it by itself: with
/// messages of 1 MiB, a task that is woken for each piece takes 1.5 times as long. A caller that stops reading is sent the
/// end of its answer after that much only, which is why none is left for one that has not made room: but where its window
/// is above the 400 KiB that h2 takes at once, the socket makes it.
const AHEAD: usize = 1 << 20;
/// Who makes room within so long reads along.
const PROMPT: Duration = Duration::from_millis(50);

/// Why writing stopped early: the stream is gone, and with it everyone who could be told.
struct Gone;

impl From<h2::Error> for Gone {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

/// Sends what is ready of an answer, which of a unary call is all of it; gives back what is not.
pub(crate) fn begin(
    response: Response<Body>,
    respond: &mut SendResponse<Bytes>,
    shared: &Shared,
    cx: &mut Context<'_>,
) -> Option<Rest> {
    // Nobody is left to hear of a stream that broke while its answer was written.
    try_begin(response, respond, shared, cx).unwrap_or(None)
}

fn try_begin(
    response: Response<Body>,
    respond: &mut SendResponse<Bytes>,
    shared: &Shared,
    cx: &mut Context<'_>,
) -> Result<Option<Rest>, Gone> {
    let header_bytes = shared.longest_head();
    let (mut head, mut body) = match too_long(response.headers(), header_bytes) {
        Some(status) => status.into_http(),
        None => response,
    }
    .into_parts();
    trim(&mut head.headers, header_bytes);
    let head = Response::from_parts(head, ());
    if body.is_end_stream() {
        respond.send_response(head, true)?;
        return Ok(None);
    }
    let mut poll = || caught(|| Pin::new(&mut body).poll_frame(cx));
    let first = poll();
    let is_small = |data: &Bytes| data.len() <= QUEUED_WITH_HEAD;
    let small = matches!(&first, Poll::Ready(Ok(Some(Ok(frame)))) if frame.data_ref().is_some_and(is_small));
    let second = if small { poll() } else { Poll::Pending };

    let stream = respond.send_response(head, false)?;
    let check = LengthCheck::new(shared.message_bytes);
    let mut writer = Writer { stream, check, header_bytes, reads_along: false };
    let mut waiting = None;
    for polled in [first, second] {
        let Poll::Ready(polled) = polled else { continue };
        match writer.take(polled)? {
            Step::Ended => return Ok(None),
            Step::Next => {}
            Step::Send(data) if small && is_small(&data) => writer.stream.send_data(data, false)?,
            Step::Send(data) => waiting = Some(data),
        }
    }
    Ok(Some(Rest { body, writer, held: waiting, next: None }))
}

/// What is left of an answer once its first part is sent.
pub(crate) struct Rest {
    body: Body,
    writer: Writer,
    /// What waits for the caller to take it.
    held: Option<Bytes>,
    /// What comes after that, if it is there already: one message is made while another is on its way.
    next: Option<Polled>,
}

impl Rest {
    /// Writes the answer to its end, or as far as somebody takes it.
    pub(crate) async fn write(mut self, end: &mut End<'_>) {
        // As in `begin`.
        drop(self.try_write(end).await);
    }

    async fn try_write(&mut self, end: &mut End<'_>) -> Result<(), Gone> {
        let Self { body, writer, held, next } = self;
        loop {
            if let Some(data) = held.take()
                && let Some(status) = writer.send(data, body, next, end).await?
            {
                return writer.finish(&status);
            }
            let mut yielded = false;
            let poll = poll_fn(|cx| {
                // A body that is always ready must neither keep others from running nor its own end from being seen.
                let Poll::Ready(coop) = poll_proceed(cx) else {
                    yielded = true;
                    return Poll::Pending;
                };
                if std::mem::take(&mut yielded)
                    && let Poll::Ready(status) = end.poll(cx)
                {
                    return Poll::Ready(Ok(Err(status)));
                }
                if writer.stream.poll_reset(cx).is_ready() {
                    return Poll::Ready(Err(Gone));
                }
                if let Poll::Ready(polled) = caught(|| Pin::new(&mut *body).poll_frame(cx)) {
                    coop.made_progress();
                    return Poll::Ready(Ok(polled));
                }
                end.poll(cx).map(|status| Ok(Err(status)))
            });
            let polled = match next.take() {
                Some(polled) => polled,
                None => poll.await?,
            };
            match writer.take(polled)? {
                Step::Ended => return Ok(()),
                Step::Next => {}
                Step::Send(data) => *held = Some(data),
            }
        }
    }
}

/// One poll of a body: a frame, its end, its error, or the status that ends the call from outside.
type Polled = Result<Option<Result<Frame<Bytes>, Status>>, Status>;

struct Writer {
    stream: SendStream<Bytes>,
    check: LengthCheck,
    header_bytes: usize,
    /// Whether the caller made room at once when it was last waited for.
    reads_along: bool,
}

/// What is to be done after a poll of a body.
enum Step {
    Ended,
    Next,
    Send(Bytes),
}

impl Writer {
    /// Takes what a poll brought; sends what needs no window.
    fn take(&mut self, polled: Polled) -> Result<Step, Gone> {
        let frame = match polled {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(status))) | Err(status) => {
                self.finish(&status)?;
                return Ok(Step::Ended);
            }
            Ok(None) => {
                self.stream.send_data(Bytes::new(), true)?;
                return Ok(Step::Ended);
            }
        };
        let frame = match frame.into_data() {
            Ok(data) => {
                if let Err(length) = self.check.pass(&data) {
                    let status = self.check.too_long(length);
                    self.finish(&status)?;
                    return Ok(Step::Ended);
                }
                return Ok(Step::Send(data));
            }
            Err(frame) => frame,
        };
        let Ok(mut trailers) = frame.into_trailers() else { return Ok(Step::Next) };
        trim(&mut trailers, self.header_bytes);
        self.stream.send_trailers(trailers)?;
        Ok(Step::Ended)
    }

    /// Sends data as fast as the caller takes it; a status where the call ended first.
    async fn send(
        &mut self,
        mut data: Bytes,
        body: &mut Body,
        next: &mut Option<Polled>,
        end: &mut End<'_>,
    ) -> Result<Option<Status>, Gone> {
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
                    if next.is_none()
                        && let Poll::Ready(polled) = caught(|| Pin::new(&mut *body).poll_frame(cx))
                    {
                        *next = Some(polled);
                    }
                    end.poll(cx).map(|status| Ok(Err(status)))
                });
                let since = Instant::now();
                match granted.await? {
                    Ok(granted) => room = granted,
                    Err(status) => return Ok(Some(status)),
                }
                self.reads_along = since.elapsed() < PROMPT;
            }
            let ahead = if self.reads_along { AHEAD } else { 0 };
            let piece = data.split_to(room.saturating_add(ahead).min(data.len()));
            self.stream.send_data(piece, false)?;
        }
        Ok(None)
    }

    /// Ends the answer with a status in its trailers.
    fn finish(&mut self, status: &Status) -> Result<(), Gone> {
        let mut trailers = http::HeaderMap::new();
        if status.add_header(&mut trailers).is_err() {
            self.stream.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        trim(&mut trailers, self.header_bytes);
        self.stream.send_trailers(trailers)?;
        Ok(())
    }
}
