use std::fmt::Display;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Waits until a condition holds, and returns what it found.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// use std::time::Duration;
///
/// let mut looks = 0;
/// let third = aegis_testing::eventually(Duration::from_secs(1), || {
///     looks += 1;
///     if looks < 3 { Err(format!("looked {looks} times only")) } else { Ok(looks) }
/// })
/// .await;
/// assert_eq!(third, 3);
/// # });
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// The condition is looked at at once, then every 5 ms on tokio's clock, and once more at the end.
///
/// # Cancel safety
/// Dropping the future stops looking.
///
/// # Panics
/// With the last reason, when the condition does not hold within `limit`; outside a tokio runtime with its timer.
#[expect(clippy::panic, reason = "this is an assertion")]
pub async fn eventually<T, E: Display>(
    limit: Duration,
    mut condition: impl FnMut() -> Result<T, E>,
) -> T {
    let end = Instant::now() + limit;
    loop {
        match condition() {
            Ok(found) => return found,
            Err(reason) if end <= Instant::now() => panic!("not within {limit:?}: {reason}"),
            Err(_) => sleep(LOOK).await,
        }
    }
}
