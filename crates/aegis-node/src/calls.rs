//! The calls of one connection: taken as they arrive, run in place or in tasks.

use std::future::{Future, poll_fn};
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Connection, SendResponse};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::call;
use crate::connection::Shared;
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

/// Calls that were polled in place once and have not ended; dropping it ends them.
///
/// They are polled there once more, at the connection's next turn, before they get tasks: what a handler waits for is most
/// often the message of its request, which comes through this connection's task. Clients that write a request's head and
/// its message apart, as hyper does, would else have a task for each of their calls.
#[derive(Default)]
pub(crate) struct Begun {
    calls: Vec<(Call, Arc<Pace>, Took)>,
    /// The connection's task has gone to sleep since; it is their turn when something wakes it.
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

    fn push(&mut self, call: Call, pace: Arc<Pace>, took: Took) {
        self.calls.push((call, pace, took));
        self.slept = false;
    }
}

/// The calls that have tasks; dropping it ends them.
#[derive(Default)]
pub(crate) struct Calls(JoinSet<()>);

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

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
        for (call, pace, before) in begun.calls.drain(..) {
            let rest = if budget.lasts() && pace.is_short(budget.now()) {
                let rest = poll_once(call, cx);
                pace.note(before.and(budget.spend()), budget.now());
                rest
            } else {
                Some(call)
            };
            if let Some(call) = rest {
                self.0.spawn(turn::run(Arc::clone(&shared.places), call));
            }
        }
        // A call's time runs from here, also while it waits for its turn.
        let now = Instant::now();
        for (request, respond) in arrived.0.drain(..) {
            shared.counters.calls.add(1);
            let (handler, pace) = match shared.routes.find(&request) {
                Ok(route) => (Ok(route.handler.clone()), Some(Arc::clone(&route.pace))),
                Err(refusal) => (Err(refusal), None),
            };
            let call = Box::pin(call::serve(request, respond, handler, Arc::clone(shared), now));
            // A refusal runs no handler.
            if budget.lasts() && pace.as_ref().is_none_or(|pace| pace.is_short(budget.now())) {
                let rest = poll_once(call, cx);
                let took = budget.spend();
                match (rest, pace) {
                    (None, None) => {}
                    (None, Some(pace)) => pace.note(took, budget.now()),
                    (Some(call), Some(pace)) => begun.push(call, pace, took),
                    (Some(call), None) => {
                        self.0.spawn(turn::run(Arc::clone(&shared.places), call));
                    }
                }
            } else {
                match pace.filter(|pace| pace.samples()) {
                    Some(pace) => {
                        self.0.spawn(turn::run(Arc::clone(&shared.places), measured(call, pace)))
                    }
                    None => self.0.spawn(turn::run(Arc::clone(&shared.places), call)),
                };
            }
        }
        // A flood of streams that are reset at once must not pile up finished tasks.
        while let Some(joined) = self.0.try_join_next() {
            tell_panic(&joined);
        }
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
