use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use tonic::Code;

use crate::view::Provider;

/// In this many seconds a measurement loses all but a third of its weight (the default of Finagle and linkerd).
const DECAY: f64 = 10.0;
/// And with each faster reply it loses at least so much of it.
const PER_REPLY: f64 = 1.0 / 16.0;
/// For so many milliseconds a provider that has just come gets less than its share (Envoy's slow start).
const SLOW_START: u64 = 10_000;
/// The part of its share that it begins with, in thousandths.
const FIRST_PART: u64 = 100;
/// A failure counts as a reply that took so many times as long as usual, within the two bounds below, in seconds.
const FAILURE: f64 = 10.0;
const SHORTEST_FAILURE: f64 = 0.01;
const LONGEST_FAILURE: f64 = 5.0;

/// What a provider has to do for us, and how fast it was: *Peak-EWMA*, after Finagle's `p2c` and linkerd's `balance`.
///
/// The latency is an exponentially weighted moving average that jumps up to a slower reply at once, and comes down with
/// time and with each faster one. While nothing is measured it fades, so that a provider that was slow is tried again.
/// Written by many threads without a lock: of two measurements at one moment, one may be lost.
///
/// Finagle's comes down with time alone. Then one stall of our own process, which all calls under way measure, makes all
/// providers look alike for seconds: in the least-loaded balancer's test of it, one of 50 ms beside two of 1 ms then gets 3 % of the calls.
#[derive(Debug)]
pub(crate) struct Load {
    /// What stamps count from.
    epoch: Instant,
    /// Requests ever given to it, and those of them that are over: two counts, each changed once by a request, tell three things.
    begun: AtomicU64,
    ended: AtomicU64,
    /// Seconds; 0 is not measured.
    latency: Cell,
    /// When it was measured last.
    measured: Cell,
    /// When the provider came, in milliseconds; 0 is from the start.
    came: AtomicU64,
}

impl Load {
    pub(crate) fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            latency: Cell::default(),
            measured: Cell::default(),
            came: AtomicU64::new(0),
        }
    }

    /// Requests under way.
    pub(crate) fn in_flight(&self) -> usize {
        // In this order: one that ends in between counts as under way, not as less than nothing.
        let ended = self.ended.load(Ordering::Acquire);
        usize::try_from(self.begun().saturating_sub(ended)).unwrap_or(usize::MAX)
    }

    /// Requests that were ever given to it.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// The average latency as of now, in seconds; `None` before the first reply.
    pub(crate) fn latency(&self, now: Instant) -> Option<f64> {
        let latency = self.latency.get();
        (0.0 < latency).then(|| latency * self.weight(now))
    }

    /// The part of its share that it is to get, in thousandths: 100 to 1,000.
    pub(crate) fn per_mille(&self, now: Instant) -> u32 {
        let part = match self.came.load(Ordering::Relaxed) {
            0 => 1_000,
            came => {
                let age = self.milliseconds(now).saturating_sub(came);
                (age.saturating_mul(1_000) / SLOW_START).clamp(FIRST_PART, 1_000)
            }
        };
        u32::try_from(part).unwrap_or(1_000)
    }

    /// Forgets what was measured: another process may answer now, or the same in another state.
    pub(crate) fn reset(&self) {
        self.latency.set(0.0);
    }

    /// The same, and begins a slow start.
    pub(crate) fn start_slowly(&self, now: Instant) {
        self.reset();
        self.came.store(self.milliseconds(now), Ordering::Relaxed);
    }

    /// Whether an attempt that was begun then says anything of what there is now.
    pub(crate) fn is_current(&self, began: Instant) -> bool {
        match self.came.load(Ordering::Relaxed) {
            0 => true,
            came => came <= self.milliseconds(began),
        }
    }

    pub(crate) fn begin(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.ended.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn observe(&self, outcome: Outcome, took: Duration, now: Instant) {
        let before = self.latency.get();
        // Nothing is quicker than the clock can tell; 0 would be no measurement.
        let took = took.as_secs_f64().max(1e-9);
        let charged = match outcome {
            Outcome::Unsent => return,
            Outcome::Failed | Outcome::Lost | Outcome::Refused if before == 0.0 => {
                took.max(LONGEST_FAILURE)
            }
            Outcome::Failed | Outcome::Lost | Outcome::Refused => {
                took.max((before * FAILURE).clamp(SHORTEST_FAILURE, LONGEST_FAILURE))
            }
            Outcome::GivenUp if took <= before => return,
            Outcome::Answered | Outcome::GivenUp => took,
        };
        let latency = if before <= charged {
            charged
        } else {
            let weight = self.weight_beside_another(now);
            before * weight + charged * (1.0 - weight)
        };
        self.latency.set(latency);
        self.measured.set(self.stamp(now));
    }

    /// What the last measurement weighs as of now.
    fn weight(&self, now: Instant) -> f64 {
        (-self.age(now) / DECAY).exp()
    }

    /// The same beside a measurement of now.
    fn weight_beside_another(&self, now: Instant) -> f64 {
        // Up to this age time alone takes less, so nothing has to be computed: calls mostly come so often.
        if self.age(now) < DECAY * PER_REPLY {
            1.0 - PER_REPLY
        } else {
            self.weight(now).min(1.0 - PER_REPLY)
        }
    }

    /// How old the last measurement is, in seconds.
    fn age(&self, now: Instant) -> f64 {
        (self.stamp(now) - self.measured.get()).max(0.0)
    }

    /// From 1 on.
    fn milliseconds(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.epoch).as_millis();
        u64::try_from(age).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn stamp(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.epoch).as_secs_f64()
    }
}

/// An `f64` that threads share. Relaxed: it orders nothing.
#[derive(Debug, Default)]
struct Cell(AtomicU64);

impl Cell {
    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }
}

/// What an attempt says about its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It answered, whatever it said.
    Answered,
    /// It is at fault: `UNAVAILABLE`, `INTERNAL`, `UNKNOWN`, `DATA_LOSS`, `DEADLINE_EXCEEDED`, a try that took too long, a
    /// stream that broke.
    Failed,
    /// The same, with the connection: all calls on it tell of one failure.
    Lost,
    /// Nobody waits for it any longer; nothing is known but that it took at least so long.
    GivenUp,
    /// It did not process the request, which may be in order, but must not attract more of them.
    Refused,
    /// It knows nothing of the request.
    Unsent,
}

impl Outcome {
    /// What an answer with this status says: a handler's verdict on the request is none on the provider.
    pub(crate) fn of(code: Code) -> Self {
        match code {
            Code::DataLoss
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::Unavailable
            | Code::Unknown => Self::Failed,
            _ => Self::Answered,
        }
    }
}

/// An attempt at a provider, measured until its outcome is known, and in flight until this is dropped.
///
/// Dropping it without an outcome says that the caller gave up.
#[derive(Debug)]
#[must_use = "the attempt is in flight only while this lives"]
pub(crate) struct Measure {
    provider: Arc<Provider>,
    began: Instant,
    finished: bool,
}

impl Measure {
    pub(crate) fn begin(provider: Arc<Provider>, now: Instant) -> Self {
        provider.profile.load.begin();
        Self { provider, began: now, finished: false }
    }

    /// Says how the attempt ended; only the first outcome counts.
    pub(crate) fn finish(&mut self, outcome: Outcome, now: Instant) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let load = &self.provider.profile.load;
        // What was begun before the provider was ejected says nothing of how it is since it returned.
        if load.is_current(self.began) {
            load.observe(outcome, now.saturating_duration_since(self.began), now);
            self.provider.count(outcome, self.began, now);
        }
    }
}

impl Drop for Measure {
    fn drop(&mut self) {
        if !self.finished {
            self.finish(Outcome::GivenUp, Instant::now());
        }
        self.provider.profile.load.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A load, and its latency in milliseconds after so many seconds.
    fn measured(outcomes: &[(u64, Outcome, u32)]) -> (Instant, Load) {
        let epoch = Instant::now();
        let load = Load::new(epoch);
        for (at, outcome, took) in outcomes {
            load.observe(*outcome, MS * *took, epoch + Duration::from_secs(*at));
        }
        (epoch, load)
    }

    #[track_caller]
    fn check(outcomes: &[(u64, Outcome, u32)], at: u64, expected: f64) {
        let (epoch, load) = measured(outcomes);
        let latency = load.latency(epoch + Duration::from_secs(at)).unwrap_or_default() * 1_000.0;
        assert!((latency - expected).abs() < 0.01, "{latency} ms instead of {expected}");
    }

    #[test]
    fn a_slower_reply_counts_at_once_and_a_faster_one_with_time() {
        use Outcome::Answered;
        check(&[(0, Answered, 1)], 0, 1.0);
        check(&[(0, Answered, 1), (0, Answered, 50)], 0, 50.0);
        check(&[(0, Answered, 17), (0, Answered, 1)], 0, 16.0);
        // After one time constant the old average has 1/e of the weight.
        check(
            &[(0, Answered, 50), (10, Answered, 1)],
            10,
            50.0 / 1.0_f64.exp() + 1.0 - 1.0 / 1.0_f64.exp(),
        );
    }

    #[test]
    fn what_nobody_measures_fades() {
        check(&[(0, Outcome::Answered, 50)], 10, 50.0 / 1.0_f64.exp());
        check(&[(0, Outcome::Answered, 50)], 1_000, 0.0);
    }

    #[test]
    fn a_failure_is_never_a_fast_reply() {
        use Outcome::{Answered, Failed, Refused};
        check(&[(0, Failed, 0)], 0, 5_000.0);
        check(&[(0, Refused, 0)], 0, 5_000.0);
        check(&[(0, Answered, 20), (0, Failed, 0)], 0, 200.0);
        check(&[(0, Answered, 20), (0, Refused, 0)], 0, 200.0);
        check(&[(0, Answered, 20), (0, Failed, 0), (0, Failed, 0)], 0, 2_000.0);
        check(&[(0, Answered, 20), (0, Failed, 0), (0, Failed, 0), (0, Failed, 0)], 0, 5_000.0);
        check(&[(0, Answered, 20), (0, Failed, 7_000)], 0, 7_000.0);
    }

    #[test]
    fn a_call_that_was_given_up_is_slow_at_most() {
        use Outcome::{Answered, GivenUp, Unsent};
        check(&[(0, Answered, 20), (5, GivenUp, 1)], 0, 20.0);
        check(&[(0, Answered, 20), (0, GivenUp, 70)], 0, 70.0);
        check(&[(0, Answered, 20), (0, Unsent, 70)], 0, 20.0);
    }

    #[test]
    fn a_provider_that_comes_late_gets_its_share_within_ten_seconds() {
        let (epoch, load) = measured(&[(0, Outcome::Answered, 20)]);
        let part = |at: u64| load.per_mille(epoch + Duration::from_secs(at));
        assert_eq!(part(0), 1_000, "who was there from the start has all of it");
        load.start_slowly(epoch + Duration::from_secs(100));
        let parts = [100, 101, 102, 105, 110, 999].map(part);
        assert_eq!(parts, [100, 100, 200, 500, 1_000, 1_000]);
        assert_eq!(load.latency(epoch + Duration::from_secs(100)), None);
        assert!(!load.is_current(epoch + Duration::from_secs(99)));
        assert!(load.is_current(epoch + Duration::from_secs(100)));
    }
}
