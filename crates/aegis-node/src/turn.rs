//! Leaves others their turn between handlers that keep a thread.
//!
//! A worker of tokio looks at sockets when it has nothing else to run, or after 61 tasks. Where handlers compute or block
//! for long, dozens of them may wait in its queue, and each connection's PINGs, new calls and ends wait for them all.
//! So a call that took long keeps its place until the worker has looked, and those that come to run meanwhile wait for
//! one outside of its queue, first come, first served: then nothing waits for longer than one handler takes.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::yield_now;

/// A poll that takes so long holds others up noticeably.
const LONG: Duration = Duration::from_micros(500);
/// How often a call that took long steps back. A worker that has run out of tasks looks at sockets and wakes first those
/// that stepped back, some of them even before the tasks of these sockets; when they have stepped back again, all have run.
const STEPS: u8 = 2;

/// The places for calls of one server that run: one for each thread that has ever run one.
///
/// As many calls as there are threads can be polled at once, so nobody waits for a place but while another call keeps its
/// own after it has run. A thread more, as `block_in_place` brings it, is a place more.
#[derive(Debug)]
pub(crate) struct Places {
    id: u64,
    free: Semaphore,
}

thread_local! {
    /// The server whose call ran here last.
    static LAST: Cell<u64> = const { Cell::new(0) };
    /// The servers that have a place for this thread.
    static KNOWN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

impl Default for Places {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed), free: Semaphore::new(0) }
    }
}

impl Places {
    /// Waits for a place.
    async fn take(&self) -> Option<SemaphorePermit<'_>> {
        if LAST.get() != self.id {
            self.know_thread();
        }
        // It is never closed.
        self.free.acquire().await.ok()
    }

    fn know_thread(&self) {
        LAST.set(self.id);
        KNOWN.with_borrow_mut(|known| {
            if !known.contains(&self.id) {
                known.push(self.id);
                self.free.add_permits(1);
            }
        });
    }
}

/// Runs a call in its task, in turns with others.
pub(crate) async fn run(places: Arc<Places>, call: impl Future<Output = ()>) {
    let mut call = pin!(call);
    loop {
        let place = places.take().await;
        let began = Instant::now();
        let done = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready())).await;
        let long = LONG <= began.elapsed();
        if long {
            for _ in 0..STEPS {
                yield_now().await;
            }
        }
        drop(place);
        if done {
            return;
        }
        // What woke the call while it stepped back is not told again.
        if !long {
            woken().await;
        }
    }
}

/// Waits until the task is woken.
async fn woken() {
    let mut waited = false;
    poll_fn(|_| {
        if waited {
            return Poll::Ready(());
        }
        waited = true;
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

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
        yield_now().await;
        let places = Arc::<Places>::default();
        for name in ["first", "second", "third"] {
            let told = Arc::clone(&ran);
            tasks.spawn(run(Arc::clone(&places), async move {
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
