use std::time::Duration;

use tokio::time::Instant;

/// So long from now, or a moment that never comes: settings may be as long as `Duration::MAX`.
pub(crate) fn after(delay: Duration) -> Instant {
    later(Instant::now(), delay)
}

/// So long after a moment, at most a lifetime.
pub(crate) fn later(moment: Instant, delay: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(60 * 60 * 24 * 365 * 30);
    moment.checked_add(delay.min(NEVER)).unwrap_or(moment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_delay_is_only_far_away() {
        assert!(Instant::now() + Duration::from_secs(1 << 20) < after(Duration::MAX));
    }
}
