use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The span over which repeats and calls are compared.
const WINDOW: Duration = Duration::from_secs(10);
/// Repeats that a window allows however few its calls: 3 per second.
const FLOOR: u64 = 30;
/// One repeat more for so many calls: 10 %.
const CALLS_PER_REPEAT: u64 = 10;

/// Bounds how often requests are sent again after a peer saw and refused them: 10 % of the calls and 3 per second.
///
/// Touched only when something is to be repeated, so a call that goes well pays nothing.
#[derive(Debug)]
pub(crate) struct Budget {
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    begin: Instant,
    /// The number of calls made before it.
    calls_before: u64,
    repeats: u64,
}

impl Budget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { window: Mutex::new(Window { begin: now, calls_before: 0, repeats: 0 }) }
    }

    /// Whether one more repeat is allowed; `calls` is the number of calls made so far.
    pub(crate) fn withdraw(&self, calls: u64, now: Instant) -> bool {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if WINDOW <= now.saturating_duration_since(window.begin) {
            *window = Window { begin: now, calls_before: calls, repeats: 0 };
        }
        let allowed = FLOOR + calls.saturating_sub(window.calls_before) / CALLS_PER_REPEAT;
        let granted = window.repeats < allowed;
        window.repeats += u64::from(granted);
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(budget: &Budget, calls: u64, now: Instant) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(calls, now)).count()
    }

    #[test]
    fn an_idle_service_may_repeat_three_times_a_second() {
        let start = Instant::now();
        let budget = Budget::new(start);
        assert_eq!(drain(&budget, 0, start), 30);
        assert_eq!(drain(&budget, 0, start + WINDOW / 2), 0);
        assert_eq!(drain(&budget, 0, start + WINDOW), 30);
        assert_eq!(drain(&budget, 0, start + WINDOW * 100), 30);
    }

    #[test]
    fn a_tenth_of_the_calls_may_be_repeated() {
        let start = Instant::now();
        let budget = Budget::new(start);
        assert_eq!(drain(&budget, 1_000, start), 130);
        assert_eq!(drain(&budget, 1_009, start), 0);
        assert_eq!(drain(&budget, 1_010, start), 1);
        assert_eq!(drain(&budget, 1_000_000, start + WINDOW), 30, "earlier calls pay for nothing");
    }
}
