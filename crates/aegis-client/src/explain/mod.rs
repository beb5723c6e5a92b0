mod connection_counts;
mod display;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aegis_core::{Address, Chain, NodeId, ServiceInfo, ServiceVersion};
use aegis_topology::{NodeState, ServiceEntry, Snapshot, SyncState};
use aegis_transport::LinkStatus;

pub use connection_counts::ConnectionCounts;

use crate::outlier::Standing;
use crate::service::{Counts, Service};
use crate::view::Provider;

/// What a pool knows about a service: each candidate, and why it is or is not called.
///
/// `Display` prints a line for the service and one for each candidate. It is a picture of one moment.
///
/// ```
/// use std::time::Duration;
///
/// use aegis_core::ServiceInfo;
/// use aegis_topology::Snapshot;
/// # use aegis_proto::identity::v2::identity_service_server::{IdentityService, IdentityServiceServer};
/// # struct Identity;
/// # impl IdentityService for Identity {}
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mesh = aegis_testing::TestMesh::in_memory();
/// # let v2 = ServiceInfo::from_static("identity", "v2");
/// # let _morpheus = mesh.serve("morpheus-1", |node| node.service(v2, IdentityServiceServer::new(Identity))).await;
/// # let node = mesh.node("vicky-1");
/// let pool = node.pool();
/// pool.directory().wait_for(Snapshot::is_synced, Duration::from_secs(5)).await?;
/// // The mesh has the service in another version only.
/// let explanation = pool.explain(&ServiceInfo::from_static("identity", "v1"));
/// assert!(explanation.candidates.is_empty());
/// assert_eq!(explanation.other_versions[0].as_str(), "v2");
/// println!("{explanation}");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The service asked about.
    pub service: ServiceInfo,
    /// How far the directory's first sync is; before it is complete, absence means nothing.
    pub sync: SyncState,
    /// How many nodes the directory holds that have not left.
    pub nodes: usize,
    /// The other versions of the service that active nodes advertise, in order.
    pub other_versions: Vec<ServiceVersion>,
    /// The nodes that advertise the service, by node id.
    pub candidates: Vec<Candidate>,
    /// Calls begun on the service's channels.
    pub calls: u64,
    /// Requests given to a provider, the repeated ones included.
    pub attempts: u64,
    /// Requests that were never processed and went to a provider once more.
    pub moved: u64,
    /// Requests of idempotent calls that a provider may have processed and that were sent once more.
    pub retries: u64,
    /// Calls that left a provider because it had not begun to answer within their `try_timeout`.
    pub try_timeouts: u64,
    /// Calls that left a provider because its connection had stalled.
    pub stalls_left: u64,
    /// Failures with which a provider said when, or whether, the call may be sent again.
    pub pushbacks: u64,
    /// Repeats that the budget did not allow.
    pub over_budget: u64,
    /// How often a provider was [ejected](crate::OutlierDetection).
    pub ejections: u64,
    /// All providers that could be called are ejected, and are called for want of others (*panic mode*).
    pub panic: bool,
    /// How often the pool looked at the providers anew, because the directory or a connection changed. Calls, and
    /// streams that become free, do not add to it.
    pub looks: u64,
}

/// A node that advertises the service.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Candidate {
    /// Its id.
    pub node_id: NodeId,
    /// Where it is dialled.
    pub addresses: Vec<Address>,
    /// Whether it is called, and if not, why.
    pub verdict: Verdict,
    /// Requests that were given to it on this pool's channels of the service.
    pub picks: u64,
    /// Those of them that are under way.
    pub in_flight: usize,
    /// Its weight, as it advertises it: for [weighted](crate::Balancer::weighted) balancing.
    pub weight: u32,
    /// How often it was [ejected](crate::OutlierDetection).
    pub ejections: u64,
    /// How long it takes until the head of its answers comes, on average: Peak-EWMA over 10 s, so the slow ones count most
    /// and old ones fade; `None` before the first. A failure counts as ten times as slow as the average.
    pub latency: Option<Duration>,
    /// What has happened on the connections to it.
    pub connections: ConnectionCounts,
}

/// Whether a candidate is called.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Verdict {
    /// It is connected and takes its turn.
    Eligible {
        /// Open connections that take new requests.
        connections: usize,
        /// Requests under way.
        in_flight: usize,
        /// Requests it can take at once.
        slots: usize,
    },
    /// It is connected, but each stream it allows is in use: skipped while another provider has one.
    Full {
        /// Requests under way.
        in_flight: usize,
        /// Requests it can take at once.
        slots: usize,
    },
    /// It is connected, but has not answered a PING in time: skipped while another provider exists.
    Stalled,
    /// It is connected, but failed too often and gets no call for a while.
    Ejected {
        /// What it did.
        reason: String,
        /// How long until it is asked whether it is healthy, from the moment of the explanation; 0 while it is asked.
        returns_in: Duration,
    },
    /// It is being dialled; `failures` attempts in a row failed before.
    Connecting {
        /// Failed attempts in a row.
        failures: u32,
        /// Why the last one failed; `None` before the first has.
        error: Option<String>,
    },
    /// The last attempt failed; the next one waits.
    Backoff {
        /// Failed attempts in a row.
        failures: u32,
        /// How long until the next attempt, from the moment of the explanation.
        retry_in: Duration,
        /// Why the last one failed.
        error: String,
    },
    /// Its record says that it is shutting down.
    Draining,
    /// No channel of the pool asks for the service, so its providers are not dialled.
    Unwatched,
    /// The pool is closed.
    Closed,
}

impl Verdict {
    /// Whether new requests go there.
    pub fn is_eligible(&self) -> bool {
        matches!(self, Self::Eligible { .. })
    }
}

impl Explanation {
    /// One line that says why nobody is called, or how many are.
    pub fn summary(&self) -> impl fmt::Display {
        display::Summary(self)
    }

    /// The candidate with this id.
    pub fn candidate(&self, node_id: &NodeId) -> Option<&Candidate> {
        self.candidates.iter().find(|it| it.node_id == *node_id)
    }

    /// What stands in the way of one node.
    pub(crate) fn verdict_on(&self, node_id: &NodeId) -> String {
        match self.candidate(node_id) {
            Some(candidate) => candidate.verdict.to_string(),
            None => "it does not advertise the service any more".to_owned(),
        }
    }

    fn eligible(&self) -> usize {
        self.candidates.iter().filter(|it| it.verdict.is_eligible()).count()
    }
}

/// Explains a service from the directory and, where a channel of it exists, from its links.
pub(crate) fn explain(
    info: &ServiceInfo,
    snapshot: &Snapshot,
    service: Option<&Service>,
    closed: bool,
) -> Explanation {
    let mut other_versions = BTreeSet::new();
    let mut candidates = Vec::new();
    let view = service.map(|it| it.view.load());
    let panic = view.as_ref().is_some_and(|view| view.panic);
    for node in snapshot.nodes_by_service(info.name()) {
        let others = node.services().iter().map(ServiceEntry::info);
        let others = others.filter(|it| it.name() == info.name() && *it != info);
        if node.state() == NodeState::Active {
            other_versions.extend(others.map(|it| it.version().clone()));
        }
        if node.service(info).is_none() {
            continue;
        }
        let provider = view.as_ref().and_then(|view| {
            view.providers.iter().find(|provider| provider.node_id() == node.node_id())
        });
        let verdict = match (node.state(), provider) {
            _ if closed => Verdict::Closed,
            (NodeState::Active, Some(provider)) => verdict(provider, panic),
            // It came with the newest snapshot: the follower is about to look at it.
            (NodeState::Active, None) if service.is_some() => {
                Verdict::Connecting { failures: 0, error: None }
            }
            (NodeState::Active, None) => Verdict::Unwatched,
            _ => Verdict::Draining,
        };
        candidates.push(Candidate {
            node_id: node.node_id().clone(),
            addresses: node.addresses().to_vec(),
            verdict,
            picks: provider.map_or(0, |provider| provider.profile.load.begun()),
            in_flight: provider.map_or(0, |provider| provider.profile.load.in_flight()),
            weight: node.service(info).map_or(0, ServiceEntry::weight),
            ejections: provider.map_or(0, |provider| provider.record.ejections()),
            latency: provider
                .and_then(|provider| provider.profile.load.latency(tokio::time::Instant::now()))
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            connections: provider
                .map(|provider| ConnectionCounts::of(&provider.link))
                .unwrap_or_default(),
        });
    }
    let count = |counter: fn(&Counts) -> &AtomicU64| {
        service.map_or(0, |service| counter(&service.counts).load(Ordering::Relaxed))
    };
    Explanation {
        service: info.clone(),
        sync: snapshot.sync_state().clone(),
        nodes: snapshot.nodes().len(),
        other_versions: other_versions.into_iter().collect(),
        candidates,
        calls: count(|counts| &counts.calls),
        attempts: count(|counts| &counts.attempts),
        moved: count(|counts| &counts.moved),
        retries: count(|counts| &counts.retries),
        try_timeouts: count(|counts| &counts.try_timeouts),
        stalls_left: count(|counts| &counts.stalls_left),
        pushbacks: count(|counts| &counts.pushbacks),
        over_budget: count(|counts| &counts.over_budget),
        ejections: count(|counts| &counts.ejections),
        panic,
        looks: count(|counts| &counts.looks),
    }
}

/// Whether a provider is called.
fn verdict(provider: &Provider, panic: bool) -> Verdict {
    match (provider.link.status().into(), provider.record.standing()) {
        (verdict @ (Verdict::Eligible { .. } | Verdict::Full { .. }), Standing::In) => verdict,
        (verdict @ (Verdict::Eligible { .. } | Verdict::Full { .. }), _) if panic => verdict,
        (Verdict::Eligible { .. } | Verdict::Full { .. }, Standing::Out { until, why }) => {
            let returns_in = until.saturating_duration_since(tokio::time::Instant::now());
            Verdict::Ejected { reason: why.to_string(), returns_in }
        }
        (Verdict::Eligible { .. } | Verdict::Full { .. }, Standing::Probed { why }) => {
            Verdict::Ejected { reason: why.to_string(), returns_in: Duration::ZERO }
        }
        (verdict, _) => verdict,
    }
}

impl From<LinkStatus> for Verdict {
    fn from(status: LinkStatus) -> Self {
        match status {
            LinkStatus::Connecting { failures, error, .. } => Self::Connecting {
                failures,
                error: error.map(|error| Chain::new(&*error).to_string()),
            },
            LinkStatus::Connected { stalled: true, .. } => Self::Stalled,
            LinkStatus::Connected { in_flight, slots, .. } if slots <= in_flight => {
                Self::Full { in_flight, slots }
            }
            LinkStatus::Connected { connections, in_flight, slots, .. } => {
                Self::Eligible { connections, in_flight, slots }
            }
            LinkStatus::Backoff { failures, retry_at, error, .. } => Self::Backoff {
                failures,
                retry_in: retry_at.saturating_duration_since(Instant::now()),
                error: Chain::new(&*error).to_string(),
            },
            _ => Self::Closed,
        }
    }
}
