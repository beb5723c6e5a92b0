//! Wakes a connection's task for h2, but for what that task does itself.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use futures_util::task::AtomicWaker;

thread_local! {
    /// The connection whose task runs calls on this thread.
    static RUNS_CALLS: Cell<usize> = const { Cell::new(0) };
}

/// What h2 wakes when there is something to write or to read on a connection.
///
/// h2 asks for the connection to be polled as soon as an answer is queued. Answers of calls that run in place are queued
/// by the connection's own task, which polls the connection next in any case. Were it woken for them, tokio would put it
/// into the queue once more, and wake an idle worker to take it from there: a system call, a needless poll, and a
/// connection that moves from one core to the other with each call.
#[derive(Debug)]
pub(crate) struct Nudge {
    shared: Arc<Shared>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Shared {
    task: AtomicWaker,
}

impl Nudge {
    pub(crate) fn new() -> Self {
        let shared = Arc::<Shared>::default();
        Self { waker: Waker::from(Arc::clone(&shared)), shared }
    }

    /// The context in which to poll the connection, for the task with this one.
    pub(crate) fn context(&self, cx: &Context<'_>) -> Context<'_> {
        self.shared.task.register(cx.waker());
        Context::from_waker(&self.waker)
    }

    /// Runs calls in place. The connection has to be polled afterwards, for what they have queued, before the task sleeps:
    /// in the same poll of it, or in the next if that is certain to come.
    pub(crate) fn running<T>(&self, calls: impl FnOnce() -> T) -> T {
        struct Ends(usize);
        impl Drop for Ends {
            fn drop(&mut self) {
                RUNS_CALLS.set(self.0);
            }
        }
        let _ends = Ends(RUNS_CALLS.replace(self.shared.id()));
        calls()
    }
}

impl Shared {
    fn id(self: &Arc<Self>) -> usize {
        Arc::as_ptr(self).addr()
    }
}

impl Wake for Shared {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if RUNS_CALLS.get() != self.id() {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A connection whose task was polled, what h2 wakes for it, and how often the task was woken.
    fn polled() -> (Nudge, Waker, Arc<Wakes>) {
        let (nudge, wakes) = (Nudge::new(), Arc::<Wakes>::default());
        let task = Waker::from(Arc::clone(&wakes));
        let h2 = nudge.context(&Context::from_waker(&task)).waker().clone();
        (nudge, h2, wakes)
    }

    #[track_caller]
    fn check(woken: &Wakes, expected: usize) {
        assert_eq!(woken.0.load(Ordering::SeqCst), expected);
    }

    #[test]
    fn what_the_task_does_itself_does_not_wake_it() {
        let (nudge, h2, woken) = polled();
        nudge.running(|| h2.wake_by_ref());
        check(&woken, 0);
        h2.wake();
        check(&woken, 1);
    }

    #[test]
    fn what_happens_elsewhere_meanwhile_wakes_it() {
        let (nudge, h2, woken) = polled();
        nudge.running(|| thread::scope(|scope| scope.spawn(|| h2.wake_by_ref()).join()).unwrap());
        check(&woken, 1);
    }

    #[test]
    fn calls_of_one_connection_wake_another() {
        let ((outer, its, times), (inner, other, other_times)) = (polled(), polled());
        outer.running(|| {
            other.wake_by_ref();
            check(&other_times, 1);
            inner.running(|| its.wake_by_ref());
            check(&times, 1);
            its.wake_by_ref();
            check(&times, 1);
        });
    }

    #[test]
    fn a_panic_ends_it() {
        let (nudge, h2, woken) = polled();
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            nudge.running(|| panic!("by intention"));
        }));
        assert!(panicked.is_err());
        h2.wake();
        check(&woken, 1);
    }
}
