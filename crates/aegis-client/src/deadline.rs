//! Deadlines that a call takes over from the call it is made for.
//!
//! A handler that has 100 ms left gains nothing from an answer after 3 s. A node runs its handlers inside [`scope`],
//! and every call made there through a [`ServiceChannel`](crate::ServiceChannel) ends by the earlier of its own
//! deadline and the handler's. A task spawned in a handler leaves the scope; so does a call marked with
//! [`RequestExt::without_inherited_deadline`](crate::RequestExt::without_inherited_deadline).

use std::future::Future;
use std::time::Instant;

tokio::task_local! {
    static INHERITED: Instant;
}

/// Runs a future whose calls must end by `deadline`.
///
/// A scope inside another never has more time than the outer one. The future itself is not ended.
///
/// ```
/// use std::time::{Duration, Instant};
///
/// use aegis_client::deadline::{inherited, scope};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let soon = Instant::now() + Duration::from_secs(1);
/// scope(soon, async move {
///     // A call made here ends by then, and so does one in a longer scope within.
///     assert_eq!(inherited(), Some(soon));
///     scope(soon + Duration::from_secs(9), async move { assert_eq!(inherited(), Some(soon)) }).await;
/// })
/// .await;
/// # }
/// ```
///
/// # Cancel safety
/// Exactly that of `future`.
pub fn scope<F: Future>(deadline: Instant, future: F) -> impl Future<Output = F::Output> + use<F> {
    let deadline = inherited().map_or(deadline, |outer| outer.min(deadline));
    INHERITED.scope(deadline, future)
}

/// The deadline of the [`scope`] this is called in; `None` outside, and in a task that was spawned inside.
pub fn inherited() -> Option<Instant> {
    INHERITED.try_with(|deadline| *deadline).ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_earlier_of_nested_deadlines_counts() {
        let (sooner, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        assert_eq!(inherited(), None);
        scope(sooner, async move {
            assert_eq!(inherited(), Some(sooner));
            scope(later, async move { assert_eq!(inherited(), Some(sooner)) }).await;
        })
        .await;
        scope(later, async move {
            scope(sooner, async move { assert_eq!(inherited(), Some(sooner)) }).await;
            assert_eq!(inherited(), Some(later));
        })
        .await;
    }

    #[tokio::test]
    async fn a_spawned_task_inherits_nothing() {
        let spawned =
            scope(Instant::now(), async { tokio::spawn(async { inherited() }).await.unwrap() });
        assert_eq!(spawned.await, None);
    }
}
