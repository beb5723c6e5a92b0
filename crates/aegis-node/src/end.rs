use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFuture;
use tonic::Status;

use crate::http2::connection::Shared;

/// What ends a call from outside: its deadline, or the server's last word.
pub(crate) struct End<'a> {
    deadline: Option<Instant>,
    // Made at the first wait, as is the next: most calls never wait.
    timer: Option<Pin<Box<Sleep>>>,
    // Its token is borrowed, since a clone takes a lock that all calls share.
    shared: &'a Shared,
    terminated: Option<Pin<Box<WaitForCancellationFuture<'a>>>>,
}

impl<'a> End<'a> {
    pub(crate) fn new(deadline: Option<Instant>, shared: &'a Shared) -> Self {
        Self { deadline, timer: None, shared, terminated: None }
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Status> {
        if let Some(deadline) = self.deadline {
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
            if timer.as_mut().poll(cx).is_ready() {
                return Poll::Ready(late());
            }
        }
        let shared = self.shared;
        let terminated =
            self.terminated.get_or_insert_with(|| Box::pin(shared.terminate.cancelled()));
        terminated.as_mut().poll(cx).map(|()| {
            shared.counters.terminated.add(1);
            Status::unavailable(
                "this node is closing the connection: the time for calls to end has passed",
            )
        })
    }
}

pub(crate) fn late() -> Status {
    Status::deadline_exceeded("the caller's deadline passed while the call was served")
}
