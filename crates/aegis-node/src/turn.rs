//! Leaves others their turn between handlers that keep a thread.
//!
//! A worker of tokio looks at sockets when it has nothing else to run, or after 61 tasks. Where handlers compute or block
//! for long, dozens of them may wait in its queue, and each connection's PINGs, new calls and ends wait for them all.
//! So a call that took long steps back until its worker has looked, and those that would run there meanwhile do so too.
//! They are no more than there are threads, and an idle worker may take them from there; the others wait outside of the
//! queues, first come, first served. Then nothing waits for longer than one handler takes, and no thread for work.
//!
//! While calls are short, a few for each thread are in the queues. A connection that they wake waits behind them and writes
//! the answers of all: with 200 us and 256 calls under way half as many writes, and wake-ups of the peer, as with one each.

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
/// Calls for each worker that may be in its queue while they are short.
const NEAR: usize = 4;
/// So many polls in a row that did not take long show that calls are short; one that did shows that they are not.
const SHORT_IN_A_ROW: usize = 8;
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
    /// For those that run, or wait for a place next.
    near: Semaphore,
    /// Polls in a row that did not take long, as far as they matter.
    short: AtomicUsize,
}

/// A call's place, and what it has while it waits for that.
struct Place<'a> {
    _near: Option<SemaphorePermit<'a>>,
    /// Short calls do without where there is no room.
    _place: Option<SemaphorePermit<'a>>,
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
        let (free, near) = (Semaphore::new(0), Semaphore::new(0));
        Self { id, threads: AtomicUsize::new(0), free, near, short: AtomicUsize::new(0) }
    }
}

impl Places {
    /// Waits for a place.
    async fn take(&self) -> Place<'_> {
        if LAST.get() != self.id {
            self.know_thread();
        }
        // Neither is ever closed.
        let near = self.near.acquire().await.ok();
        // Asked when the call would run: one that ran before it may have taken long. Where one has, none goes on without a
        // place; elsewhere a short one has it while there is room, so that those that wait for one on a single thread stay few.
        let place = if self.are_short() && !Rest::is_here() {
            self.free.try_acquire().ok()
        } else {
            self.free.acquire().await.ok()
        };
        Place { _near: near, _place: place }
    }

    fn are_short(&self) -> bool {
        SHORT_IN_A_ROW <= self.short.load(Ordering::Relaxed)
    }

    /// Notes whether a poll took long.
    fn note(&self, long: bool) {
        if long {
            self.short.store(0, Ordering::Relaxed);
        } else if !self.are_short() {
            self.short.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn add(&self, places: usize) {
        self.free.add_permits(places);
        self.near.add_permits(places * NEAR);
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
                0 => self.add(workers),
                others if workers <= others => self.add(1),
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
        places.note(long);
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

    use futures_util::FutureExt as _;
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

    /// How many calls can be polled, or about to be, at once on the one worker there is.
    fn at_once(places: &Places) -> usize {
        let mut taken = Vec::new();
        while let Some(place) = places.take().now_or_never() {
            taken.push(place);
        }
        taken.len()
    }

    #[tokio::test]
    async fn several_calls_have_places_while_all_are_short() {
        let places = Places::default();
        assert_eq!(at_once(&places), 1, "nothing is known of them");
        for _ in 0..2 {
            for _ in 1..SHORT_IN_A_ROW {
                places.note(false);
            }
            assert_eq!(at_once(&places), 1);
            places.note(false);
            assert_eq!(at_once(&places), NEAR);
            places.note(true);
        }
    }

    #[tokio::test]
    async fn a_call_that_waited_behind_one_that_took_long_needs_a_place() {
        let places = Places::default();
        (0..SHORT_IN_A_ROW).for_each(|_| places.note(false));
        let mut running: Vec<_> =
            (0..NEAR).map(|_| places.take().now_or_never().unwrap()).collect();
        let mut waiting = [pin!(places.take()), pin!(places.take())];
        assert!(waiting.iter_mut().all(|it| it.as_mut().now_or_never().is_none()));
        places.note(true);
        running.clear();
        let [first, second] = &mut waiting;
        let _place = first.as_mut().now_or_never().unwrap();
        assert!(second.as_mut().now_or_never().is_none());
    }

    #[tokio::test]
    async fn quick_calls_do_not_wait() {
        assert_eq!(order(Duration::ZERO).await, ["first", "second", "third", "socket"]);
    }
}
