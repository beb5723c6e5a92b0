//! The answer to a call, from its head to its trailers, as fast as the caller takes it.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, SendStream};
use http::Response;
use http_body::{Body as _, Frame};
use tokio::task::coop::poll_proceed;
use tonic::Status;
use tonic::body::Body;

use crate::call::caught;
use crate::connection::Shared;
use crate::end::End;
use crate::message::LengthCheck;
use crate::trim::{too_long, trim};

/// Data up to this size is queued with the head of the answer, so that one wake-up and one write carry a small answer.
const QUEUED_WITH_HEAD: usize = 1024;

/// Why writing stopped early: the stream is gone, and with it everyone who could be told.
struct Gone;

impl From<h2::Error> for Gone {
    fn from(_: h2::Error) -> Self {
        Self
    }
}

/// Writes an answer to its end, or as far as somebody takes it.
pub(crate) async fn write(
    response: Response<Body>,
    respond: SendResponse<Bytes>,
    shared: &Shared,
    end: &mut End<'_>,
) {
    // Nobody is left to hear of a stream that broke while its answer was written.
    drop(try_write(response, respond, shared, end).await);
}

async fn try_write(
    response: Response<Body>,
    mut respond: SendResponse<Bytes>,
    shared: &Shared,
    end: &mut End<'_>,
) -> Result<(), Gone> {
    let header_bytes = shared.longest_head();
    let (mut head, body) = match too_long(response.headers(), header_bytes) {
        Some(status) => status.into_http(),
        None => response,
    }
    .into_parts();
    trim(&mut head.headers, header_bytes);
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
    let mut writer = Writer { stream, check: LengthCheck::new(shared.message_bytes), header_bytes };
    for polled in [first, second] {
        if let Poll::Ready(polled) = polled
            && writer.step(polled, end, small).await?
        {
            return Ok(());
        }
    }
    let mut yielded = false;
    loop {
        let next = poll_fn(|cx| {
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
            if let Poll::Ready(polled) = caught(|| body.as_mut().poll_frame(cx)) {
                coop.made_progress();
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
    async fn step(&mut self, polled: Polled, end: &mut End<'_>, queue: bool) -> Result<bool, Gone> {
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
    async fn send(&mut self, mut data: Bytes, end: &mut End<'_>) -> Result<Option<Status>, Gone> {
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
