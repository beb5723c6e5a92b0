//! Which calls are answered on their connection's own task, where an answer costs neither a task nor a wake-up.
//!
//! A handler that answers at once and in microseconds is best run there. One that computes would hold up everything else
//! on the connection, so how a service behaved so far decides, and whatever has not answered after two polls, at two turns
//! of the connection, gets a task of its own. All figures are of the two together.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Polls of this mean length are worth running in place; a task and its wake-ups cost about as much.
// Code that is not optimized takes several times as long for the same.
const SHORT: Duration = Duration::from_micros(if cfg!(debug_assertions) { 200 } else { 15 });
/// Below this mean a task costs more than the call: where the budget does not last for it, it waits for the connection's
/// next turn.
const TRIVIAL: Duration = Duration::from_micros(if cfg!(debug_assertions) { 200 } else { 8 });
/// A call whose polls compute for so long holds a connection up noticeably: one is enough to bar the service.
const LONG: Duration = Duration::from_micros(500);
/// So does one that blocks for so long. A shorter one may have waited for its turn on a busy machine.
const BLOCKED: Duration = Duration::from_millis(20);
/// What one poll may weigh in the mean.
const HEAVIEST: Duration = SHORT.saturating_mul(13);
/// How long calls may be run in place before what they answered is written and the socket is read again.
///
/// About eight trivial calls. With much more, a caller waits while all that it sent is answered, and then the server while
/// the caller takes that up, turn by turn: at 200 us and 16 or 64 calls under way a third of two processors lay idle.
const BUDGET: Duration = Duration::from_micros(if cfg!(debug_assertions) { 200 } else { 30 });
const FIRST_BAR: Duration = Duration::from_secs(1);
const LONGEST_BAR: Duration = Duration::from_secs(60);
/// Of the calls in tasks one in so many is measured.
const SAMPLE: u64 = 8;
/// A service begins with this mean: it has to show that it is quick, by calls in tasks of their own.
const UNKNOWN: Duration = HEAVIEST;

/// How long the first two polls of one service's calls take.
///
/// Connections share it and change it without order: each of its numbers is an estimate.
#[derive(Debug)]
pub(crate) struct Pace {
    since: Instant,
    mean_nanos: AtomicU64,
    /// Microseconds of `since`, as is the next.
    barred_until: AtomicU64,
    bar: AtomicU64,
    calls: AtomicU64,
}

impl Pace {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            mean_nanos: AtomicU64::new(nanos(UNKNOWN)),
            barred_until: AtomicU64::new(0),
            bar: AtomicU64::new(0),
            calls: AtomicU64::new(0),
        }
    }

    /// Whether a call may be run in place now.
    pub(crate) fn is_short(&self, now: Instant) -> bool {
        self.mean_nanos.load(Ordering::Relaxed) < nanos(SHORT)
            && self.barred_until.load(Ordering::Relaxed) <= self.micros(now)
    }

    /// Whether a task is more than such a call is worth.
    pub(crate) fn is_trivial(&self) -> bool {
        self.mean_nanos.load(Ordering::Relaxed) < nanos(TRIVIAL)
    }

    /// Notes the polls of a call, wherever they ran.
    pub(crate) fn note(&self, took: Took, now: Instant) {
        let mean = self.mean_nanos.load(Ordering::Relaxed);
        let next = mean - mean / 8 + nanos(took.wall.min(HEAVIEST)) / 8;
        self.mean_nanos.store(next, Ordering::Relaxed);
        if LONG <= took.computed || BLOCKED <= took.wall {
            self.bar(self.micros(now));
        }
    }

    /// Whether a call that gets a task should be measured: a sample is enough there.
    pub(crate) fn samples(&self) -> bool {
        self.calls.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE)
    }

    /// Bars the service, twice as long where it was barred not long before.
    fn bar(&self, now: u64) {
        let (until, last) =
            (self.barred_until.load(Ordering::Relaxed), self.bar.load(Ordering::Relaxed));
        let bar = if now < until {
            last
        } else if now < until.saturating_add(last) {
            last.saturating_mul(2).min(micros(LONGEST_BAR))
        } else {
            micros(FIRST_BAR)
        };
        self.bar.store(bar, Ordering::Relaxed);
        self.barred_until.store(now.saturating_add(bar), Ordering::Relaxed);
    }

    fn micros(&self, now: Instant) -> u64 {
        micros(now.saturating_duration_since(self.since))
    }
}

/// How long a poll took, or two.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Took {
    pub(crate) wall: Duration,
    /// Of it, about so much on a processor.
    pub(crate) computed: Duration,
}

impl Took {
    /// The two together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self { wall: self.wall + other.wall, computed: self.computed + other.computed }
    }
}

/// Tells computing from waiting for a processor.
///
/// The thread's own clock is a system call, so it is read at the start and then only for what was long.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    mark: Instant,
    thread: Option<Duration>,
    now: Instant,
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        let now = Instant::now();
        Self { mark: now, thread: thread_time(), now }
    }

    /// When it was started or asked last.
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// How long it is since it was started or asked last.
    pub(crate) fn lap(&mut self) -> Took {
        let now = Instant::now();
        let wall = now.saturating_duration_since(self.now);
        self.now = now;
        if wall < LONG {
            return Took { wall, computed: wall };
        }
        let thread = thread_time();
        let waited = match (self.thread, thread) {
            (Some(before), Some(after)) => now
                .saturating_duration_since(self.mark)
                .saturating_sub(after.saturating_sub(before)),
            _ => Duration::ZERO,
        };
        (self.mark, self.thread) = (now, thread);
        Took { wall, computed: wall.saturating_sub(waited) }
    }
}

/// What this thread has computed so far; `None` where the system does not say.
#[cfg(unix)]
fn thread_time() -> Option<Duration> {
    rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime).try_into().ok()
}

#[cfg(not(unix))]
fn thread_time() -> Option<Duration> {
    None
}

/// What a connection may still run in place before it looks at its socket again.
#[derive(Debug)]
pub(crate) struct Budget {
    watch: Stopwatch,
    end: Instant,
}

impl Budget {
    pub(crate) fn new(watch: Stopwatch) -> Self {
        let end = watch.now() + BUDGET;
        Self { watch, end }
    }

    /// Whether it lasts for another call.
    pub(crate) fn lasts(&self) -> bool {
        self.watch.now() < self.end
    }

    pub(crate) fn now(&self) -> Instant {
        self.watch.now()
    }

    /// A call was run, and took so long.
    pub(crate) fn spend(&mut self) -> Took {
        self.watch.lap()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Duration = Duration::from_micros(5);

    fn computed(wall: Duration) -> Took {
        Took { wall, computed: wall }
    }

    fn waited(wall: Duration) -> Took {
        Took { wall, computed: QUICK }
    }

    /// A service that has shown itself quick, and when.
    fn quick() -> (Pace, Instant) {
        let now = Instant::now();
        let pace = Pace::new(now);
        for _ in 0..40 {
            pace.note(computed(QUICK), now);
        }
        assert!(pace.is_short(now));
        (pace, now)
    }

    #[test]
    fn a_service_has_to_show_that_it_is_quick() {
        let now = Instant::now();
        let pace = Pace::new(now);
        assert!(!pace.is_short(now));
        pace.note(computed(QUICK), now);
        assert!(!pace.is_short(now), "one call says little");
    }

    #[test]
    fn a_service_that_computes_gets_tasks() {
        let (pace, now) = quick();
        for _ in 0..40 {
            pace.note(computed(SHORT * 2), now);
        }
        assert!(!pace.is_short(now));
    }

    #[track_caller]
    fn check_barred(pace: &Pace, from: Instant, bar: Duration) {
        for _ in 0..40 {
            pace.note(computed(QUICK), from);
        }
        assert!(!pace.is_short(from + bar * 99 / 100));
        assert!(pace.is_short(from + bar));
    }

    #[test]
    fn one_slow_poll_bars_it_for_a_second_and_each_relapse_for_twice_as_long() {
        let (pace, mut now) = quick();
        for bar in [1, 2, 4, 8, 16, 32, 60, 60].map(Duration::from_secs) {
            pace.note(computed(LONG), now);
            check_barred(&pace, now, bar);
            now += bar;
        }
        // It behaved for as long as it was barred.
        now += LONGEST_BAR;
        pace.note(computed(LONG), now);
        check_barred(&pace, now, FIRST_BAR);
    }

    #[test]
    fn slow_polls_while_it_is_barred_keep_it_barred() {
        let (pace, now) = quick();
        let half = FIRST_BAR / 2;
        for polls in 0..10 {
            pace.note(computed(LONG), now + half * polls);
        }
        check_barred(&pace, now + half * 9, FIRST_BAR);
    }

    #[test]
    fn waiting_for_a_processor_does_not_bar_it_and_blocking_does() {
        let (pace, now) = quick();
        pace.note(waited(BLOCKED * 9 / 10), now);
        for _ in 0..40 {
            pace.note(computed(QUICK), now);
        }
        assert!(pace.is_short(now));
        pace.note(waited(BLOCKED), now);
        check_barred(&pace, now, FIRST_BAR);
    }

    #[test]
    fn blocking_often_gives_it_tasks() {
        let (pace, now) = quick();
        for _ in 0..40 {
            pace.note(waited(Duration::from_millis(1)), now);
        }
        assert!(!pace.is_short(now));
    }

    #[test]
    fn a_stopwatch_tells_computing_from_waiting() {
        let mut watch = Stopwatch::start();
        std::thread::sleep(LONG * 4);
        let slept = watch.lap();
        assert!(LONG * 4 <= slept.wall && slept.computed < LONG, "{slept:?}");
        while watch.now().elapsed() < LONG * 4 {
            std::hint::spin_loop();
        }
        let span = watch.lap();
        // Less than the wall, where the machine is busy.
        assert!(LONG * 4 <= span.wall && Duration::ZERO < span.computed, "{span:?}");
    }

    #[test]
    fn a_budget_ends_with_the_time_that_calls_took() {
        let mut budget = Budget::new(Stopwatch::start());
        assert!(budget.lasts());
        std::thread::sleep(BUDGET);
        assert!(BUDGET <= budget.spend().wall);
        assert!(!budget.lasts());
    }
}
