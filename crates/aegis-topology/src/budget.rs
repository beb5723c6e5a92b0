use std::time::Duration;

use crate::Timestamp;

/// A token bucket: so many per second, and so many at once after a pause.
#[derive(Clone, Debug)]
pub struct Budget {
    per_second: u32,
    burst: u32,
    /// Thousandths of a token.
    tokens: u64,
    refilled_at: Option<Timestamp>,
}

impl Budget {
    /// A full bucket of `burst` tokens, into which `per_second` come back each second.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use aegis_topology::{Budget, Timestamp};
    ///
    /// let now = Timestamp::from_millis(1_000);
    /// let mut budget = Budget::new(2, 1);
    /// assert!(budget.take(now) && !budget.take(now));
    /// assert!(budget.take(now.saturating_add(Duration::from_millis(500))));
    /// ```
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self { per_second, burst, tokens: u64::from(burst) * 1_000, refilled_at: None }
    }

    /// Takes one token; says whether there was one. A clock that goes back fills nothing.
    pub fn take(&mut self, now: Timestamp) -> bool {
        let since = self.refilled_at.map_or(Duration::ZERO, |last| now.since(last));
        let elapsed = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        let refill = elapsed.saturating_mul(u64::from(self.per_second));
        self.tokens = self.tokens.saturating_add(refill).min(u64::from(self.burst) * 1_000);
        self.refilled_at = Some(now);
        match self.tokens.checked_sub(1_000) {
            Some(rest) => {
                self.tokens = rest;
                true
            }
            None => false,
        }
    }

    /// Gives a token back that was not needed.
    pub fn give_back(&mut self) {
        self.tokens = self.tokens.saturating_add(1_000).min(u64::from(self.burst) * 1_000);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_allows_a_burst_and_then_its_rate() {
        let mut budget = Budget::new(200, 3);
        let mut taken =
            |millis| (0..10).filter(|_| budget.take(Timestamp::from_millis(millis))).count();
        // The second step is a clock that was set back.
        for (at, count) in [(0, 3), (10, 2), (5, 0), (10, 1), (10_000, 3)] {
            assert_eq!(taken(at), count, "at {at} ms");
        }
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_and_is_never_more_than_a_burst() {
        let mut budget = Budget::new(1, 2);
        let now = Timestamp::from_millis(0);
        budget.give_back();
        assert_eq!([(); 3].map(|()| budget.take(now)), [true, true, false]);
        budget.give_back();
        assert_eq!([(); 2].map(|()| budget.take(now)), [true, false]);
    }
}
