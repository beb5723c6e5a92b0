//! Which provider a call goes to.

mod balancer;
mod choices;
mod least_loaded;
mod round_robin;
mod weighted;

pub(crate) use balancer::Balancers;
pub use balancer::{Balancer, UnknownBalancer};
pub use choices::{Choice, Choices};
use least_loaded::LeastLoaded;
pub(crate) use round_robin::{RoundRobin, Turn};
use weighted::Weighted;

use crate::apart::Apart;

/// A rule of your own by which a call's provider is chosen; [`Balancer::custom`] takes it.
///
/// It only chooses: that the provider is connected, is alive and has a stream is seen to around it.
///
/// ```
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// use aegis_client::{Balance, Balancer, Choices};
///
/// /// Keeps calls in a zone while it has a provider, and takes turns there.
/// struct SameZone {
///     zone: &'static str,
///     turn: AtomicUsize,
/// }
///
/// impl Balance for SameZone {
///     fn pick(&self, choices: &Choices<'_>) -> usize {
///         let near = |index: &usize| {
///             choices.get(*index).is_some_and(|choice| choice.entry().zone() == self.zone)
///         };
///         let near: Vec<_> = (0..choices.len()).filter(near).collect();
///         let turn = self.turn.fetch_add(1, Ordering::Relaxed);
///         near.get(turn % near.len().max(1)).copied().unwrap_or(turn)
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tls = aegis_testing::TestCa::new().options("vicky-1", "gateway");
/// let pool = aegis_client::ServicePool::builder()
///     .tls(tls)
///     .seeds(["10.0.0.7:9443"])
///     .balance(Balancer::custom(|_service| SameZone { zone: "berlin-1", turn: AtomicUsize::new(0) }))
///     .build()?;
/// # Ok(())
/// # }
/// ```
pub trait Balance: Send + Sync + 'static {
    /// Chooses one of the providers by its index, which is taken modulo their number.
    ///
    /// Called for each attempt at a call, by many threads at once, in their way: it must not block. Where the one it chose
    /// turns out to have no stream left, it is asked again, a few times, without that one.
    fn pick(&self, choices: &Choices<'_>) -> usize;
}

/// The rule of one service, with its state.
pub(crate) enum Balancing {
    /// Apart from the others: it needs to know nothing of the providers, and a call that goes on takes no second turn.
    RoundRobin(Apart<RoundRobin>),
    Other(Box<dyn Balance>),
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use aegis_core::{NodeId, ServiceInfo};
    use aegis_topology::{Description, Label, NodeEntry, ServiceEntry};
    use tokio::time::Instant;

    use super::*;
    use crate::load::Outcome;
    use crate::profile::Profile;

    pub(super) const MS: Duration = Duration::from_millis(1);
    const IDENTITY: ServiceInfo = ServiceInfo::from_static("identity", "v1");

    /// Providers without connections, on a clock that stands still until it is told.
    pub(super) struct Bench {
        start: Instant,
        now: Instant,
        profiles: Vec<Profile>,
    }

    impl Bench {
        pub(super) fn new(ids: &[&str]) -> Self {
            Self::with(ids.iter().map(|id| ((*id).to_owned(), 100)))
        }

        pub(super) fn weighted(weights: &[u32]) -> Self {
            let id = |index| format!("node-{index:02}");
            Self::with(weights.iter().enumerate().map(|(index, weight)| (id(index), *weight)))
        }

        fn with(providers: impl Iterator<Item = (String, u32)>) -> Self {
            let start = Instant::now();
            let profile = |(id, weight): (String, u32)| {
                let service = ServiceEntry::new(IDENTITY).with_weight(weight);
                let description = Description::new(Label::default(), [], [service]).unwrap();
                let entry = NodeEntry::fixed(NodeId::new(id).unwrap(), description);
                Profile::new(&Arc::new(entry), &IDENTITY, start)
            };
            Self { start, now: start, profiles: providers.map(profile).collect() }
        }

        /// Sets the clock.
        pub(super) fn at(&mut self, since_start: Duration) {
            self.now = self.start + since_start;
        }

        pub(super) fn pick(&self, balance: &dyn Balance) -> usize {
            let heaviest = self.profiles.iter().map(Profile::weight).max().unwrap_or(1);
            let at = |index: usize| self.profiles.get(index);
            balance.pick(&Choices::new(self.profiles.len(), &at, heaviest, self.now))
        }

        /// How often each is picked in so many picks, of which nothing comes.
        pub(super) fn shares(&self, balance: &dyn Balance, picks: usize) -> Vec<usize> {
            let mut shares = vec![0; self.profiles.len()];
            for _ in 0..picks {
                shares[self.pick(balance)] += 1;
            }
            shares
        }

        pub(super) fn observe(&self, index: usize, outcome: Outcome, took: Duration) {
            self.profiles[index].load.observe(outcome, took, self.now);
        }

        pub(super) fn begin(&self, index: usize) {
            self.profiles[index].load.begin();
        }

        pub(super) fn end(&self, index: usize) {
            self.profiles[index].load.end();
        }

        pub(super) fn end_all(&self) {
            for profile in &self.profiles {
                for _ in 0..profile.load.in_flight() {
                    profile.load.end();
                }
            }
        }

        pub(super) fn in_flight(&self) -> Vec<usize> {
            self.profiles.iter().map(|it| it.load.in_flight()).collect()
        }

        pub(super) fn start_slowly(&self, index: usize) {
            self.profiles[index].load.start_slowly(self.now);
        }

        pub(super) fn weigh(&self, index: usize, weight: u32) {
            self.profiles[index].weigh(weight);
        }
    }
}
