//! Callers that never rest, to see whether a change under them costs a call.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

/// How long a caller rests when its call has failed.
const PAUSE: Duration = Duration::from_millis(5);

/// Callers, each of which makes one call after the other; dropped, they end at once.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    callers: JoinSet<()>,
    tally: Arc<Mutex<Tally>>,
}

impl Load {
    /// Starts `callers` of `call`, which returns who answered, or why nobody did.
    pub fn start<F>(callers: usize, call: impl Fn() -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = Result<String, String>> + Send,
    {
        let (stop, stopped) = watch::channel(false);
        let tally = Arc::<Mutex<Tally>>::default();
        let mut set = JoinSet::new();
        for _ in 0..callers {
            let (call, stopped, tally) = (call.clone(), stopped.clone(), Arc::clone(&tally));
            set.spawn(async move {
                while !*stopped.borrow() {
                    let answer = call().await;
                    let failed = answer.is_err();
                    tally.lock().unwrap_or_else(PoisonError::into_inner).add(answer);
                    if failed {
                        // Without providers a call fails at once, and such a loop would keep the others from running.
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            });
        }
        Self { stop, callers: set, tally }
    }

    /// What came of the calls since the last look.
    pub fn take(&self) -> Tally {
        std::mem::take(&mut self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets each caller end its call, and returns what came of the last ones.
    pub async fn stop(mut self) -> Tally {
        self.stop.send_replace(true);
        while self.callers.join_next().await.is_some() {}
        self.take()
    }
}

/// What came of some calls.
#[derive(Debug, Default, Clone)]
#[non_exhaustive]
pub struct Tally {
    /// How many each provider answered.
    pub by_provider: BTreeMap<String, u64>,
    /// How many failed.
    pub failed: u64,
    /// Why the first of them did.
    pub first_failure: Option<String>,
}

impl Tally {
    /// How many were answered.
    pub fn answered(&self) -> u64 {
        self.by_provider.values().sum()
    }

    /// How many were made.
    pub fn calls(&self) -> u64 {
        self.answered() + self.failed
    }

    fn add(&mut self, answer: Result<String, String>) {
        match answer {
            Ok(provider) => *self.by_provider.entry(provider).or_default() += 1,
            Err(error) => {
                self.failed += 1;
                self.first_failure.get_or_insert(error);
            }
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        for (provider, calls) in other.by_provider {
            *self.by_provider.entry(provider).or_default() += calls;
        }
        self.failed += other.failed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }
}
