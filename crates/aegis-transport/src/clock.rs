use std::time::Duration;

use tokio::time::Instant;

/// Far enough to be never, near enough for every clock.
pub(crate) const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// So long after a moment; a wait above ten years is ten years, since the clock's own sum would panic.
pub(crate) fn later(moment: Instant, wait: Duration) -> Instant {
    moment + wait.min(LONGEST)
}
