//! Ends a call, and the stream of its body, when its time is over: with `DEADLINE_EXCEEDED`, never with `CANCELLED`.
//!
//! For the client's side: [`enforce`] up to the head of the response, [`DeadlineBody`] from there on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::{Code, Status};

use crate::clock::later;

/// The moment at which a call has to be over.
///
/// Runs on tokio's clock, so that a test with paused time moves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Deadline(Instant);

impl Deadline {
    /// So long from now; anything above ten years is ten years.
    pub fn after(timeout: Duration) -> Self {
        Self(later(Instant::now(), timeout))
    }

    /// What is left; zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether it has passed.
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// Waits for it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime with its timer.
    pub async fn passed(self) {
        sleep_until(self.0).await;
    }

    /// What a call ends with when it has passed.
    pub fn status() -> Status {
        Status::deadline_exceeded(TEXT)
    }
}

impl From<std::time::Instant> for Deadline {
    fn from(at: std::time::Instant) -> Self {
        Self(at.into())
    }
}

impl From<Deadline> for std::time::Instant {
    fn from(deadline: Deadline) -> Self {
        deadline.0.into()
    }
}

const TEXT: &str = "the deadline of the call has passed";

/// Runs a future until the deadline, then drops it and says [`Deadline::status`]; `None` is no deadline.
///
/// An outcome that comes with the deadline already passed is still that outcome, except a bare `CANCELLED`:
/// that is how a peer's own clock, a little ahead of ours, shows.
///
/// ```
/// use std::time::Duration;
///
/// use aegis_transport::deadline::{Deadline, enforce};
/// use tonic::{Code, Status};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let deadline = Deadline::after(Duration::from_millis(5));
/// let never = std::future::pending::<Result<(), Status>>();
/// assert_eq!(enforce(Some(deadline), never).await.unwrap_err().code(), Code::DeadlineExceeded);
/// # }
/// ```
///
/// # Errors
///
/// That of `future`, or `DEADLINE_EXCEEDED`.
///
/// # Cancel safety
///
/// Exactly that of `future`.
///
/// # Panics
///
/// With a deadline, outside a tokio runtime with its timer.
pub async fn enforce<T>(
    deadline: Option<Deadline>,
    future: impl Future<Output = Result<T, Status>>,
) -> Result<T, Status> {
    let Some(deadline) = deadline else {
        return future.await;
    };
    match tokio::time::timeout_at(deadline.0, future).await {
        Ok(Err(status)) if status.code() == Code::Cancelled && deadline.has_passed() => {
            Err(Deadline::status())
        }
        Ok(outcome) => outcome,
        Err(_) => Err(Deadline::status()),
    }
}

pin_project! {
    /// A body that ends with the error `DEADLINE_EXCEEDED` at its deadline, for the client's side.
    ///
    /// What it wraps is dropped then, which resets the stream.
    pub struct DeadlineBody<B> {
        #[pin]
        body: Option<B>,
        #[pin]
        timer: Option<Sleep>,
        text: Option<Arc<str>>,
    }
}

impl<B> DeadlineBody<B> {
    /// Wraps a body; without a deadline it changes nothing and costs no timer.
    pub fn new(body: B, deadline: Option<Deadline>) -> Self {
        let timer = deadline.map(|deadline| sleep_until(deadline.0));
        Self { body: Some(body), timer, text: None }
    }

    /// The message of the status, instead of one that names neither node nor method.
    #[must_use]
    pub fn with_message(mut self, text: impl Into<Arc<str>>) -> Self {
        self.text = Some(text.into());
        self
    }
}

impl<B> std::fmt::Debug for DeadlineBody<B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let deadline = self.timer.as_ref().map(Sleep::deadline);
        f.debug_struct("DeadlineBody").field("deadline", &deadline).finish_non_exhaustive()
    }
}

impl<B> Body for DeadlineBody<B>
where
    B: Body<Error = Status>,
{
    type Data = B::Data;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let mut this = self.project();
        let Some(body) = this.body.as_mut().as_pin_mut() else {
            return Poll::Ready(None);
        };
        // First the timer: a stream that never pauses has to end too.
        let passed = match this.timer.as_mut().as_pin_mut() {
            Some(timer) => timer.poll(cx).is_ready(),
            None => false,
        };
        if !passed {
            return Poll::Ready(ready!(body.poll_frame(cx)));
        }
        // What has arrived in time counts, as long as it is the end.
        let end = match body.poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => Some(Ok(frame)),
            Poll::Ready(None) => None,
            Poll::Ready(Some(Err(error))) if error.code() != Code::Cancelled => Some(Err(error)),
            _ => {
                let text = this.text.as_deref().unwrap_or(TEXT);
                Some(Err(Status::deadline_exceeded(text)))
            }
        };
        this.body.set(None);
        Poll::Ready(end)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}
