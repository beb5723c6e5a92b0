use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aegis_core::{Address, NodeId, ServiceInfo, ServiceVersion};
use aegis_topology::{NodeState, ServiceEntry, Snapshot, SyncState};
use aegis_transport::LinkStatus;

use crate::error::chain;
use crate::service::{Counts, Service};

/// How many candidates a one-line summary spells out.
const SPELLED_OUT: usize = 3;

/// What a pool knows about a service: each candidate, and why it is or is not called.
///
/// `Display` prints a line for the service and one for each candidate.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// The service asked about.
    pub service: ServiceInfo,
    /// How far the directory's first sync is; before it is complete, absence means nothing.
    pub sync: SyncState,
    /// How many nodes the directory holds that have not left.
    pub nodes: usize,
    /// The other versions of the service that active nodes advertise.
    pub other_versions: Vec<ServiceVersion>,
    /// The nodes that advertise the service, by node id.
    pub candidates: Vec<Candidate>,
    /// Calls begun on the service's channels.
    pub calls: u64,
    /// Requests that were never processed and went to a provider once more.
    pub moved: u64,
    /// Requests that a provider refused and that the budget did not let move again.
    pub over_budget: u64,
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
    /// It is being dialled; `failures` attempts in a row failed before.
    Connecting {
        /// Failed attempts in a row.
        failures: u32,
    },
    /// The last attempt failed; the next one waits.
    Backoff {
        /// Failed attempts in a row.
        failures: u32,
        /// How long until the next attempt.
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
        Summary(self)
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
            (NodeState::Active, Some(provider)) => provider.link.status().into(),
            (NodeState::Active, None) => Verdict::Unwatched,
            _ => Verdict::Draining,
        };
        candidates.push(Candidate {
            node_id: node.node_id().clone(),
            addresses: node.addresses().to_vec(),
            verdict,
            picks: provider.map_or(0, |provider| provider.picks.load(Ordering::Relaxed)),
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
        moved: count(|counts| &counts.moved),
        over_budget: count(|counts| &counts.over_budget),
    }
}

impl From<LinkStatus> for Verdict {
    fn from(status: LinkStatus) -> Self {
        match status {
            LinkStatus::Connecting { failures, .. } => Self::Connecting { failures },
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
                error: chain(&*error),
            },
            _ => Self::Closed,
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, moved, over_budget, .. } = self;
        if self.candidates.is_empty() {
            write!(f, "{}: {}", self.service, self.summary())?;
        } else {
            let (eligible, all) = (self.eligible(), self.candidates.len());
            write!(f, "{}: {eligible} of {all} providers are called", self.service)?;
        }
        write!(f, " ({calls} calls, {moved} moved, {over_budget} over budget)")?;
        for candidate in &self.candidates {
            write!(f, "\n  {candidate} ({} picks)", candidate.picks)?;
        }
        Ok(())
    }
}

impl fmt::Display for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.node_id)?;
        for (index, address) in self.addresses.iter().enumerate() {
            write!(f, "{}{address}", if index == 0 { " at " } else { ", " })?;
        }
        write!(f, ": {}", self.verdict)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eligible { connections, in_flight, slots } => write!(
                f,
                "called, {in_flight} of {slots} streams in use on {connections} connection{}",
                if *connections == 1 { "" } else { "s" }
            ),
            Self::Full { in_flight, slots } => {
                write!(f, "full, {in_flight} of {slots} streams in use")
            }
            Self::Stalled => write!(f, "stalled, it does not answer PINGs"),
            Self::Connecting { failures: 0 } => write!(f, "connecting"),
            Self::Connecting { failures } => write!(f, "connecting after {failures} failures"),
            Self::Backoff { failures, retry_in, error } => {
                write!(
                    f,
                    "not connected, {error} (failed {failures} times, next attempt in {retry_in:.1?})"
                )
            }
            Self::Draining => write!(f, "draining"),
            Self::Unwatched => write!(f, "not dialled, no channel asks for the service"),
            Self::Closed => write!(f, "the pool is closed"),
        }
    }
}

struct Summary<'a>(&'a Explanation);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Explanation { service, sync, nodes, other_versions, candidates, .. } = self.0;
        if !candidates.is_empty() {
            write!(f, "{} of {} providers are connected", self.0.eligible(), candidates.len())?;
            let others: Vec<_> = candidates.iter().filter(|it| !it.verdict.is_eligible()).collect();
            for (index, other) in others.iter().take(SPELLED_OUT).enumerate() {
                write!(f, "{}{other}", if index == 0 { ": " } else { "; " })?;
            }
            if let more @ 1.. = others.len().saturating_sub(SPELLED_OUT) {
                write!(f, "; and {more} more")?;
            }
            return Ok(());
        }
        write!(f, "0 of {nodes} nodes advertise {service}")?;
        match other_versions.as_slice() {
            [] => {}
            [version] => write!(f, "; {version} is")?,
            [versions @ .., last] => {
                write!(f, "; ")?;
                for (index, version) in versions.iter().enumerate() {
                    write!(f, "{}{version}", if index == 0 { "" } else { ", " })?;
                }
                write!(f, " and {last} are")?;
            }
        }
        match sync {
            SyncState::Complete => Ok(()),
            SyncState::Failing(failures) => {
                write!(f, " (no seed could be reached")?;
                for failure in failures.iter().take(SPELLED_OUT) {
                    write!(f, "; {}: {}", failure.address, failure.reason)?;
                }
                write!(f, ")")
            }
            _ => write!(f, " (the directory was not synced yet)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use aegis_topology::{SyncFailure, Timestamp};

    use super::*;

    fn explanation(sync: SyncState, versions: &[&str], verdicts: Vec<Verdict>) -> Explanation {
        let candidate = |(index, verdict)| Candidate {
            node_id: NodeId::new(format!("node-{index}")).unwrap(),
            addresses: vec!["127.0.0.1:1".parse().unwrap()],
            verdict,
            picks: 7,
        };
        Explanation {
            service: ServiceInfo::from_static("identity", "v2"),
            sync,
            nodes: 2,
            other_versions: versions.iter().map(|it| ServiceVersion::new(it).unwrap()).collect(),
            candidates: verdicts.into_iter().enumerate().map(candidate).collect(),
            calls: 3,
            moved: 2,
            over_budget: 1,
        }
    }

    #[track_caller]
    fn check(explanation: &Explanation, summary: &str) {
        assert_eq!(explanation.summary().to_string(), summary);
    }

    #[test]
    fn an_unknown_service_is_told_by_what_there_is() {
        check(&explanation(SyncState::Complete, &[], vec![]), "0 of 2 nodes advertise identity/v2");
        check(
            &explanation(SyncState::Complete, &["v1"], vec![]),
            "0 of 2 nodes advertise identity/v2; v1 is",
        );
        check(
            &explanation(SyncState::Pending, &["v1", "v3", "v4"], vec![]),
            "0 of 2 nodes advertise identity/v2; v1, v3 and v4 are (the directory was not synced yet)",
        );
    }

    #[test]
    fn a_failed_sync_names_the_seeds() {
        let failure = SyncFailure::new(
            "127.0.0.1:9".parse().unwrap(),
            "connection refused",
            Timestamp::default(),
        );
        check(
            &explanation(SyncState::Failing([failure].into()), &[], vec![]),
            "0 of 2 nodes advertise identity/v2 (no seed could be reached; 127.0.0.1:9: connection refused)",
        );
    }

    #[test]
    fn unreachable_providers_are_told_with_their_reasons() {
        let backoff = Verdict::Backoff {
            failures: 2,
            retry_in: Duration::from_millis(1_600),
            error: "connection refused".to_owned(),
        };
        check(
            &explanation(SyncState::Complete, &[], vec![backoff, Verdict::Draining]),
            "0 of 2 providers are connected: node-0 at 127.0.0.1:1: not connected, connection refused (failed 2 times, next attempt in 1.6s); node-1 at 127.0.0.1:1: draining",
        );
        check(
            &explanation(SyncState::Complete, &[], vec![Verdict::Stalled; 5]),
            "0 of 5 providers are connected: node-0 at 127.0.0.1:1: stalled, it does not answer PINGs; node-1 at 127.0.0.1:1: stalled, it does not answer PINGs; node-2 at 127.0.0.1:1: stalled, it does not answer PINGs; and 2 more",
        );
    }

    #[test]
    fn the_whole_has_a_line_for_each_candidate() {
        let eligible = Verdict::Eligible { connections: 1, in_flight: 2, slots: 100 };
        assert_eq!(
            explanation(
                SyncState::Complete,
                &[],
                vec![eligible, Verdict::Connecting { failures: 0 }]
            )
            .to_string(),
            "identity/v2: 1 of 2 providers are called (3 calls, 2 moved, 1 over budget)\n  \
             node-0 at 127.0.0.1:1: called, 2 of 100 streams in use on 1 connection (7 picks)\n  \
             node-1 at 127.0.0.1:1: connecting (7 picks)"
        );
    }
}
