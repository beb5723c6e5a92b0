//! The calls of one connection: taken as they arrive, run in place or in tasks.

use std::future::{Future, poll_fn};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::http2::call::{self, Call};
use crate::http2::connection::Shared;
use crate::in_place::{Budget, Pace, Stopwatch, Took};
use crate::turn;

/// Streams taken before the connection looks at what else there is to do.
const TAKEN_IN_A_ROW: usize = 64;

/// Streams that have arrived and are not yet run.
///
/// All that the socket has is taken before the first is run: by then the bodies of small calls are here too.
#[derive(Default)]
pub(crate) struct Arrived(Vec<(Request<RecvStream>, SendResponse<Bytes>)>);

impl Arrived {
    /// Drives the connection; ready once streams have arrived, or with `false` once there will be no more.
    pub(crate) fn poll<IO>(
        &mut self,
        connection: &mut Connection<IO, Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<bool, h2::Error>>
    where
        IO: AsyncRead + AsyncWrite + Unpin,
    {
        while !self.is_full() {
            match connection.poll_accept(cx) {
                Poll::Ready(Some(Ok(stream))) => self.0.push(stream),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(false)),
                Poll::Pending if self.0.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(true))
    }

    pub(crate) fn is_full(&self) -> bool {
        TAKEN_IN_A_ROW <= self.0.len()
    }
}

/// Calls that go on in place at the connection's next turn; dropping it ends them.
///
/// Those that were polled once and have not ended are polled once more before they get tasks: what a handler waits for is
/// most often the message of its request, which comes through this connection's task. Clients that write a request's head
/// and its message apart, as hyper does, would else have a task for each of their calls. And those whose turn has not come
/// while the budget lasted, where a task would cost more than it saves.
#[derive(Default)]
pub(crate) struct Begun {
    calls: Vec<Kept>,
    /// One of them has not had its turn.
    left: bool,
    /// The connection's task has let others run since; it is their turn when something wakes it.
    slept: bool,
}

impl Begun {
    /// Ready when it is their turn; pending once before, which lets the task go to sleep.
    pub(crate) fn poll_turn(&mut self) -> Poll<()> {
        if !self.calls.is_empty() && mem::replace(&mut self.slept, true) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Whether others should run before more is taken: once each time that the budget did not last for all.
    pub(crate) fn steps_back(&mut self) -> bool {
        let left = mem::take(&mut self.left);
        self.slept |= left;
        left
    }

    fn push(&mut self, kept: Kept) {
        self.calls.push(kept);
        self.slept = false;
    }

    /// Keeps a call that has not had its turn: what woke it, or brought it, is not told again.
    fn leave(&mut self, kept: Kept) {
        self.push(kept);
        self.left = true;
    }
}

/// A call of a service that may be run in place.
struct Kept {
    call: Call,
    pace: Arc<Pace>,
    /// What its first poll took, if it had one.
    before: Option<Took>,
}

/// The calls that have tasks; dropping it ends them.
#[derive(Default)]
pub(crate) struct Calls(JoinSet<()>);

impl Calls {
    /// Runs what has begun and what has arrived: in place what is likely to be over at once, in a task each what is not.
    ///
    /// `cx` is that of the connection's task: what wakes a call that has begun wakes the connection.
    pub(crate) fn begin(
        &mut self,
        begun: &mut Begun,
        arrived: &mut Arrived,
        shared: &Arc<Shared>,
        cx: &mut Context<'_>,
    ) {
        let mut budget = Budget::new(Stopwatch::start());
        for kept in mem::take(&mut begun.calls) {
            self.go_on(kept, begun, &mut budget, shared, cx);
        }
        // A call's time runs from here, also while it waits for its turn.
        let now = Instant::now();
        for (request, respond) in arrived.0.drain(..) {
            shared.counters.calls.add(1);
            let (handler, pace) = match shared.routes.find(&request) {
                Ok(route) => (Ok(route.handler.clone()), Some(Arc::clone(&route.pace))),
                Err(refusal) => (Err(refusal), None),
            };
            let call = call::serve(request, respond, handler, Arc::clone(shared), now);
            if let Some(pace) = pace {
                let kept = Kept { call, pace, before: None };
                self.go_on(kept, begun, &mut budget, shared, cx);
                continue;
            }
            // A refusal runs no handler.
            let rest = if budget.lasts() { poll_once(call, cx) } else { Some(call) };
            budget.spend();
            if let Some(call) = rest {
                self.spawn(shared, call);
            }
        }
        // A flood of streams that are reset at once must not pile up finished tasks.
        while let Some(joined) = self.0.try_join_next() {
            tell_panic(&joined);
        }
    }

    /// Polls a call in place, keeps it for the next turn, or gives it a task.
    fn go_on(
        &mut self,
        kept: Kept,
        begun: &mut Begun,
        budget: &mut Budget,
        shared: &Arc<Shared>,
        cx: &mut Context<'_>,
    ) {
        let Kept { call, pace, before } = kept;
        if !pace.is_short(budget.now()) {
            if before.is_none() && pace.samples() {
                self.spawn(shared, measured(call, pace));
            } else {
                self.spawn(shared, call);
            }
        } else if budget.lasts() {
            let rest = poll_once(call, cx);
            let took = budget.spend();
            match (rest, before) {
                (Some(call), None) => begun.push(Kept { call, pace, before: Some(took) }),
                (rest, before) => {
                    pace.note(before.map_or(took, |before| before.and(took)), budget.now());
                    if let Some(call) = rest {
                        self.spawn(shared, call);
                    }
                }
            }
        } else if pace.is_trivial() {
            begun.leave(Kept { call, pace, before });
        } else {
            self.spawn(shared, call);
        }
    }

    fn spawn(&mut self, shared: &Shared, call: impl Future<Output = ()> + Send + 'static) {
        shared.counters.tasks.add(1);
        self.0.spawn(turn::run(Arc::clone(&shared.places), call));
    }

    /// Waits for a task to end; never ready without one.
    pub(crate) async fn ended(&mut self) {
        match self.0.join_next().await {
            Some(joined) => tell_panic(&joined),
            None => std::future::pending().await,
        }
    }
}

/// Polls a call; what has not ended is given back.
///
/// Neither a poll nor a drop that panics harms the connection.
fn poll_once(mut call: Call, cx: &mut Context<'_>) -> Option<Call> {
    let polled = catch_unwind(AssertUnwindSafe(move || match call.as_mut().poll(cx) {
        Poll::Ready(()) => None,
        Poll::Pending => Some(call),
    }));
    polled.unwrap_or_else(|_| {
        tracing::error!("a handler panicked when it was dropped");
        None
    })
}

/// A call whose first polls are noted: as many as it would have in place.
async fn measured(mut call: Call, pace: Arc<Pace>) {
    let mut before = None;
    let mut unmeasured = Some(pace);
    poll_fn(move |cx| {
        let Some(pace) = &unmeasured else { return call.as_mut().poll(cx) };
        let mut watch = Stopwatch::start();
        let polled = call.as_mut().poll(cx);
        let took = watch.lap();
        match before {
            None if polled.is_pending() => before = Some(took),
            _ => {
                pace.note(before.map_or(took, |before: Took| before.and(took)), watch.now());
                unmeasured = None;
            }
        }
        polled
    })
    .await;
}

/// A handler may panic where [`call`] cannot catch it: when it is dropped.
fn tell_panic(joined: &Result<(), JoinError>) {
    if let Err(error) = joined
        && error.is_panic()
    {
        tracing::error!(%error, "a handler panicked");
    }
}
