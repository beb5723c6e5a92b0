//! Leaves others their turn between handlers that keep a thread.
//!
//! A worker of tokio looks at sockets when it has nothing else to run, or after 61 tasks. Where handlers compute or block
//! for long, dozens of them may wait in its queue, and each connection's PINGs, new calls and ends wait for them all.
//! So a call that took long steps back until its worker has looked, and those that would run there meanwhile do so too.
//! They are no more than there are threads, and an idle worker may take them from there; the others wait outside of the
//! queues, first come, first served. Then nothing waits for longer than one handler takes, and no thread for work.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::yield_now;

/// A poll that takes so long holds others up noticeably.
const LONG: Duration = Duration::from_micros(500);
/// How often a call that took long steps back. A worker that has run out of tasks looks at sockets and wakes first those
/// that stepped back, some of them even before the tasks of these sockets; when they have stepped back again, all have run.
const STEPS: u8 = 2;

/// The places for calls of one server that run: one for each worker of the runtime.
///
/// As many calls as there are threads can be polled at once, so nobody waits for a place but while others run, or are about
/// to. All are there before each worker has run a call: one that finds only calls that wait never would run any. A thread
/// more, as `block_in_place` brings it, is a place more.
#[derive(Debug)]
pub(crate) struct Places {
    id: u64,
    /// The threads that have run a call.
    threads: AtomicUsize,
    free: Semaphore,
}

thread_local! {
    /// The server whose call ran here last.
    static LAST: Cell<u64> = const { Cell::new(0) };
    /// How many calls have stepped back from this thread.
    static RESTING: Arc<AtomicUsize> = Arc::default();
    /// The servers that know this thread.
    static KNOWN: RefCell<Vec<u64>> = const { RefCell::new(Vec::new()) };
}

impl Default for Places {
    fn default() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { id, threads: AtomicUsize::new(0), free: Semaphore::new(0) }
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
            if known.contains(&self.id) {
                return;
            }
            known.push(self.id);
            let workers = Handle::try_current().map_or(1, |it| it.metrics().num_workers());
            match self.threads.fetch_add(1, Ordering::Relaxed) {
                0 => self.free.add_permits(workers),
                others if workers <= others => self.free.add_permits(1),
                _ => {}
            }
        });
    }
}

/// A thread from which a call has stepped back, for as long as it does; it may end on another.
struct Rest(Arc<AtomicUsize>);

impl Rest {
    fn here() -> Self {
        let calls = RESTING.with(Arc::clone);
        calls.fetch_add(1, Ordering::Relaxed);
        Self(calls)
    }

    fn is_here() -> bool {
        RESTING.with(|calls| 0 < calls.load(Ordering::Relaxed))
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs a call in its task, in turns with others.
pub(crate) async fn run(places: Arc<Places>, call: impl Future<Output = ()>) {
    let mut call = pin!(call);
    loop {
        let place = places.take().await;
        for _ in 0..2 * STEPS {
            if !Rest::is_here() {
                break;
            }
            // An idle worker may take it from here.
            yield_now().await;
        }
        let began = Instant::now();
        let done = poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_ready())).await;
        let long = LONG <= began.elapsed();
        if long {
            let _rest = Rest::here();
            drop(place);
            for _ in 0..STEPS {
                yield_now().await;
            }
        } else {
            drop(place);
        }
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

    #[tokio::test(flavor = "multi_thread", worker_threads = 3)]
    async fn each_worker_has_a_place_before_it_has_run_a_call_and_each_further_thread_gets_one() {
        let places = Arc::<Places>::default();
        let first = Arc::clone(&places);
        tokio::spawn(async move { first.know_thread() }).await.unwrap();
        assert_eq!(places.free.available_permits(), 3);
        for expected in [3, 3, 4, 5] {
            let (places, runtime) = (Arc::clone(&places), Handle::current());
            std::thread::spawn(move || {
                let _in = runtime.enter();
                places.know_thread();
                assert_eq!(places.free.available_permits(), expected);
                places.know_thread();
                assert_eq!(places.free.available_permits(), expected);
            })
            .join()
            .unwrap();
        }
    }

    #[tokio::test]
    async fn quick_calls_do_not_wait() {
        assert_eq!(order(Duration::ZERO).await, ["first", "second", "third", "socket"]);
    }
}
