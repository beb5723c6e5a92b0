use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::OutlierDetection;

/// So many good answers in a row end the trial of a provider that has returned.
const TRIAL: u32 = 5;

/// What a pool has against a provider.
///
/// Calls only count, without a lock; the pool's task judges.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// Failures since the last good answer.
    in_a_row: AtomicU32,
    /// Of this interval.
    successes: AtomicU64,
    failures: AtomicU64,
    /// Good answers to go until it is trusted again.
    trial: AtomicU32,
    /// When a connection was lost, as far as that is counted.
    last_lost: Mutex<Option<Instant>>,
    relapsed: AtomicBool,
    /// About to be judged.
    suspect: AtomicBool,
    ejected: AtomicBool,
    verdict: Mutex<Verdict>,
}

#[derive(Debug, Default)]
struct Verdict {
    standing: Standing,
    /// Ejections that are not forgiven yet.
    in_row: u32,
    ejections: u64,
}

/// Whether a provider is in or out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Standing {
    #[default]
    In,
    Out {
        until: Instant,
        why: Why,
    },
    /// Its time is over, and it has been asked whether it lives.
    Probed {
        why: Why,
    },
}

/// Why a provider is out.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Why {
    Consecutive(u32),
    Probe(String),
    Relapse,
    SuccessRate { rate: f64, mean: f64 },
}

impl Record {
    // For calls.

    pub(crate) fn answered(&self) {
        self.successes.fetch_add(1, Ordering::Relaxed);
        if self.in_a_row.load(Ordering::Relaxed) != 0 {
            self.in_a_row.store(0, Ordering::Relaxed);
        }
        let trial = self.trial.load(Ordering::Relaxed);
        if trial != 0 {
            // Two answers at one moment may count as one: then the trial is a little longer.
            self.trial.store(trial - 1, Ordering::Relaxed);
        }
    }

    /// Whether it is time to judge.
    pub(crate) fn failed(&self, detection: &OutlierDetection) -> bool {
        self.failures.fetch_add(1, Ordering::Relaxed);
        let in_a_row = self.in_a_row.fetch_add(1, Ordering::Relaxed) + 1;
        let relapsed = self.trial.load(Ordering::Relaxed) != 0;
        if relapsed {
            self.relapsed.store(true, Ordering::Relaxed);
        }
        // Again after as many more, for whom there was no room the first time.
        let suspect = relapsed || in_a_row.checked_rem(detection.consecutive_failures) == Some(0);
        if suspect {
            self.suspect.store(true, Ordering::Relaxed);
        }
        suspect
    }

    /// Whether it is about to be judged, and passed by until then: the judge is a task that may have to wait.
    pub(crate) fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    /// Whether a lost connection is news: the other calls on it, which had begun before, tell of the same one.
    pub(crate) fn lost(&self, began: Instant, now: Instant) -> bool {
        let mut last = self.last_lost.lock().unwrap_or_else(PoisonError::into_inner);
        let news = last.is_none_or(|last| last < began);
        if news {
            *last = Some(now);
        }
        news
    }

    // For the judge.

    pub(crate) fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    pub(crate) fn standing(&self) -> Standing {
        self.verdict().standing.clone()
    }

    /// How often it was ejected.
    pub(crate) fn ejections(&self) -> u64 {
        self.verdict().ejections
    }

    /// What there is against it, success rates apart. It is no suspect any more.
    pub(super) fn charge(&self, detection: &OutlierDetection) -> Option<Why> {
        self.suspect.store(false, Ordering::Relaxed);
        if self.relapsed.load(Ordering::Relaxed) {
            return Some(Why::Relapse);
        }
        let in_a_row = self.in_a_row.load(Ordering::Relaxed);
        let limit = detection.consecutive_failures;
        (limit != 0 && limit <= in_a_row).then_some(Why::Consecutive(in_a_row))
    }

    /// Successes and failures of the interval that ends now.
    pub(super) fn take_counts(&self) -> (u64, u64) {
        (self.successes.swap(0, Ordering::Relaxed), self.failures.swap(0, Ordering::Relaxed))
    }

    /// Puts it out; says until when.
    pub(crate) fn eject(&self, why: Why, detection: &OutlierDetection, now: Instant) -> Instant {
        let mut verdict = self.verdict();
        let doublings = verdict.in_row.min(31);
        let lasts = detection.first_ejection.saturating_mul(1 << doublings);
        let until = now + lasts.min(detection.longest_ejection);
        verdict.in_row += 1;
        verdict.ejections += 1;
        verdict.standing = Standing::Out { until, why };
        self.ejected.store(true, Ordering::Relaxed);
        until
    }

    /// Ends its time, if that is over: it is to be asked now.
    pub(super) fn ask(&self, now: Instant) -> bool {
        let mut verdict = self.verdict();
        let Standing::Out { until, why } = &verdict.standing else { return false };
        if now < *until {
            return false;
        }
        verdict.standing = Standing::Probed { why: why.clone() };
        true
    }

    /// After a question that was not answered well: it stays out, for longer.
    pub(crate) fn stay_out(&self, error: String, detection: &OutlierDetection, now: Instant) {
        self.eject(Why::Probe(error), detection, now);
    }

    /// Takes it in again, on trial.
    pub(crate) fn restore(&self) {
        let mut verdict = self.verdict();
        verdict.standing = Standing::In;
        self.in_a_row.store(0, Ordering::Relaxed);
        self.take_counts();
        self.relapsed.store(false, Ordering::Relaxed);
        self.suspect.store(false, Ordering::Relaxed);
        self.trial.store(TRIAL, Ordering::Relaxed);
        self.ejected.store(false, Ordering::Relaxed);
    }

    /// Makes its next ejection shorter.
    pub(super) fn forgive(&self) {
        let mut verdict = self.verdict();
        verdict.in_row = verdict.in_row.saturating_sub(1);
    }

    fn verdict(&self) -> MutexGuard<'_, Verdict> {
        self.verdict.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Consecutive(failures) => write!(f, "{failures} calls failed in a row"),
            Self::Probe(error) => write!(f, "it did not say that it is healthy: {error}"),
            Self::Relapse => write!(f, "it returned and failed again"),
            Self::SuccessRate { rate, mean } => write!(
                f,
                "{:.1} % of its calls succeeded, {:.1} % on average",
                rate * 100.0,
                mean * 100.0
            ),
        }
    }
}
