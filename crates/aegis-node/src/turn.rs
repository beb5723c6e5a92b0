//! Leaves others their turn between handlers that keep a thread.
//!
//! A worker of tokio looks at sockets when it has nothing else to run, or after 61 tasks. Where handlers compute or block
//! for long, dozens of them may wait in its queue, and each connection's PINGs, new calls and ends wait for them all.
//! So a handler that comes to run after one that took long steps back until the worker has looked: then nothing waits
//! for longer than one handler takes.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// A poll that takes so long holds others up noticeably.
///
/// Below, the worker's 61 tasks end soon, and order counts for more: calls that step back lose their place to others. With
/// 0.5 ms here and handlers that burn 2 ms, 64 in flight, p99 was 2.8 times that of plain tonic.
const LONG: Duration = Duration::from_millis(20);
/// How often a call steps back. A worker that has run out of tasks looks at sockets and wakes first those that stepped
/// back, some of them even before the tasks of these sockets; when they have stepped back again, all have run.
const STEPS: u8 = 2;

thread_local! {
    /// How many polls on this thread took long.
    static LONG_POLLS: Cell<u64> = const { Cell::new(0) };
    /// After how many of these others have had their turn.
    static TURN_GIVEN: Cell<u64> = const { Cell::new(0) };
}

/// Where a call is in stepping back.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    steps: u8,
    /// The number of long polls when it began to.
    since: u64,
}

impl Turn {
    /// Polls a future that may take long; pending, too, while it is the others' turn.
    pub(crate) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        // Wakes the task when the worker has nothing else to do, or has looked at its sockets.
        if self.is_others() && pin!(tokio::task::yield_now()).poll(cx).is_pending() {
            return Poll::Pending;
        }
        let began = Instant::now();
        let polled = poll(cx);
        if LONG <= began.elapsed() {
            LONG_POLLS.set(LONG_POLLS.get() + 1);
        }
        polled
    }

    /// Whether the call has to step back once more.
    fn is_others(&mut self) -> bool {
        let long_polls = LONG_POLLS.get();
        if self.steps == 0 && long_polls == TURN_GIVEN.get() {
            return false;
        }
        // Another one was first, or it is another thread by now.
        if self.steps == 0 || self.since != long_polls {
            (self.steps, self.since) = (STEPS, long_polls);
            return true;
        }
        self.steps -= 1;
        if self.steps == 0 {
            TURN_GIVEN.set(long_polls);
        }
        0 < self.steps
    }
}

/// Runs a call in its task, in turns with others.
pub(crate) async fn run(call: impl Future<Output = ()>) {
    let mut call = pin!(call);
    let mut turn = Turn::default();
    poll_fn(|cx| turn.poll(cx, |cx| call.as_mut().poll(cx))).await;
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinSet;

    use super::*;

    /// What runs in which order, where a socket has something to read when the first of three calls begins.
    async fn order(takes: Duration) -> Vec<&'static str> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        let ran = Arc::<Mutex<Vec<_>>>::default();
        let mut tasks = JoinSet::new();
        let told = Arc::clone(&ran);
        tasks.spawn(async move {
            far.read_u8().await.unwrap();
            told.lock().unwrap().push("socket");
        });
        tokio::task::yield_now().await;
        for name in ["first", "second", "third"] {
            let told = Arc::clone(&ran);
            tasks.spawn(run(async move {
                std::thread::sleep(takes);
                told.lock().unwrap().push(name);
            }));
        }
        near.write_all(b"x").await.unwrap();
        tasks.join_all().await;
        ran.lock().unwrap().clone()
    }

    #[tokio::test]
    async fn sockets_have_their_turn_after_a_call_that_took_long_and_before_the_next() {
        assert_eq!(order(LONG).await, ["first", "socket", "second", "third"]);
    }

    #[tokio::test]
    async fn quick_calls_do_not_wait() {
        assert_eq!(order(Duration::ZERO).await, ["first", "second", "third", "socket"]);
    }
}
