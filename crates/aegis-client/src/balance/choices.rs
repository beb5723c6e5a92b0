use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aegis_core::NodeId;
use aegis_topology::NodeEntry;

use crate::profile::Profile;

/// The providers that a call may go to, for a [`Balance`](super::Balance) to choose from: connected, answering PINGs, not ejected, and
/// not among those that the call has been to.
///
/// There is at least one, in the order of their ids. Where none had to be left out, they are the same in the same order
/// from call to call until the directory or a connection changes.
pub struct Choices<'a> {
    length: usize,
    at: &'a dyn Fn(usize) -> Option<&'a Profile>,
    heaviest: u32,
    now: tokio::time::Instant,
}

impl<'a> Choices<'a> {
    pub(crate) fn new(
        length: usize,
        at: &'a dyn Fn(usize) -> Option<&'a Profile>,
        heaviest: u32,
        now: tokio::time::Instant,
    ) -> Self {
        Self { length, at, heaviest, now }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is none; a balancer is never asked then.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The one at an index; `None` from [`len`](Self::len) on.
    pub fn get(&self, index: usize) -> Option<Choice<'a>> {
        (self.at)(index).map(|profile| Choice { profile, now: self.now })
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Choice<'a>> {
        (0..self.length).filter_map(|index| self.get(index))
    }

    /// The moment of the choice; that of a paused clock in a test with tokio's.
    pub fn now(&self) -> Instant {
        self.now.into_std()
    }

    /// The largest weight among them.
    pub(crate) fn heaviest(&self) -> u32 {
        self.heaviest
    }
}

impl fmt::Debug for Choices<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A provider that a call may go to.
#[derive(Clone, Copy)]
pub struct Choice<'a> {
    profile: &'a Profile,
    now: tokio::time::Instant,
}

impl<'a> Choice<'a> {
    /// Its id.
    pub fn node_id(&self) -> &'a NodeId {
        &self.profile.node_id
    }

    /// Its entry in the directory, such as for its zone. Takes a lock that is never held for long.
    pub fn entry(&self) -> Arc<NodeEntry> {
        self.profile.entry()
    }

    /// Its weight for the service, as it advertises it: 1 to 10,000.
    pub fn weight(&self) -> u32 {
        self.profile.weight()
    }

    /// Calls of this service that this pool has under way there, streams included.
    pub fn in_flight(&self) -> usize {
        self.profile.load.in_flight()
    }

    /// How long its answers' heads take, on average: [`Candidate::latency`](crate::Candidate::latency). `None` before the first.
    pub fn latency(&self) -> Option<Duration> {
        self.seconds().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
    }

    /// The part of its share that it should get: 0.1 when it has just come, 1 from 10 s later on.
    ///
    /// Who is connected within the first second of a service is there from the start, and has 1.
    pub fn slow_start(&self) -> f64 {
        f64::from(self.per_mille()) / 1_000.0
    }

    /// The same in thousandths.
    pub(crate) fn per_mille(&self) -> u32 {
        self.profile.load.per_mille(self.now)
    }

    /// The latency, unrounded.
    pub(crate) fn seconds(&self) -> Option<f64> {
        self.profile.load.latency(self.now)
    }
}

impl fmt::Debug for Choice<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Choice")
            .field("node_id", self.node_id())
            .field("weight", &self.weight())
            .field("in_flight", &self.in_flight())
            .field("latency", &self.latency())
            .finish_non_exhaustive()
    }
}
