use std::fmt;
use std::time::Duration;

use aegis_topology::{ServiceEntry, SyncState};

use super::{Candidate, Explanation, Verdict};

/// How many candidates a one-line summary spells out.
const SPELLED_OUT: usize = 3;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, attempts, moved, retries, over_budget, ejections, .. } = self;
        if self.candidates.is_empty() {
            write!(f, "{}: {}", self.service, self.summary())?;
        } else {
            let (eligible, all) = (self.eligible(), self.candidates.len());
            write!(f, "{}: {eligible} of {all} providers are called", self.service)?;
        }
        write!(f, " ({calls} calls, {attempts} attempts, {moved} moved, {retries} retried")?;
        write!(f, ", {over_budget} over budget")?;
        if 0 < *ejections {
            write!(f, ", {ejections} ejections")?;
        }
        write!(f, ")")?;
        if self.panic {
            write!(f, "; all that are connected are ejected, so they are called (panic mode)")?;
        }
        for candidate in &self.candidates {
            write!(f, "\n  {candidate} ({})", Numbers(candidate))?;
        }
        Ok(())
    }
}

/// What a candidate has done so far; what is as it is with most is left out.
struct Numbers<'a>(&'a Candidate);

impl fmt::Display for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Candidate { picks, in_flight, weight, ejections, latency, connections, .. } = self.0;
        write!(f, "{picks} picks")?;
        if 0 < *in_flight {
            write!(f, ", {in_flight} in flight")?;
        }
        if let Some(latency) = latency {
            write!(f, ", {:.1} ms", latency.as_secs_f64() * 1_000.0)?;
        }
        if *weight != ServiceEntry::DEFAULT_WEIGHT {
            write!(f, ", weight {weight}")?;
        }
        if 0 < *ejections {
            write!(f, ", ejected {}", Times(*ejections))?;
        }
        let troubles = connections.to_string();
        if !troubles.is_empty() {
            write!(f, "; connection {troubles}")?;
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
            Self::Ejected { reason, returns_in: Duration::ZERO } => {
                write!(f, "ejected, {reason}; it is being asked whether it is healthy")
            }
            Self::Ejected { reason, returns_in } => {
                write!(f, "ejected, {reason}; it is asked again in {returns_in:.1?}")
            }
            Self::Stalled => write!(f, "stalled, it does not answer PINGs"),
            Self::Connecting { failures: 0, .. } | Self::Connecting { error: None, .. } => {
                write!(f, "connecting")
            }
            Self::Connecting { failures, error: Some(error) } => {
                write!(f, "connecting again, {error} (failed {})", Times((*failures).into()))
            }
            Self::Backoff { failures, retry_in, error } => {
                write!(
                    f,
                    "not connected, {error} (failed {}, next attempt in {retry_in:.1?})",
                    Times((*failures).into())
                )
            }
            Self::Draining => write!(f, "draining"),
            Self::Unwatched => write!(f, "not dialled, no channel asks for the service"),
            Self::Closed => write!(f, "the pool is closed"),
        }
    }
}

/// How often something happened.
pub(super) struct Times(pub(super) u64);

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 1 { f.write_str("once") } else { write!(f, "{} times", self.0) }
    }
}

/// The explanation in one line.
pub(super) struct Summary<'a>(pub(super) &'a Explanation);

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
        if (*nodes, sync) == (0, &SyncState::Complete) {
            return write!(
                f,
                "no node is known at all; are the seeds missing (join of a node, seeds of a pool)?"
            );
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
                    let (address, reason) = (failure.address.to_string(), &*failure.reason);
                    if reason.contains(&address) {
                        write!(f, "; {reason}")?;
                    } else {
                        write!(f, "; {address}: {reason}")?;
                    }
                }
                write!(f, ")")
            }
            _ => write!(f, " (no seed has answered yet)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use aegis_core::{NodeId, ServiceInfo, ServiceVersion};
    use aegis_topology::{SyncFailure, Timestamp};

    use super::*;
    use crate::explain::ConnectionCounts;

    fn explanation(sync: SyncState, versions: &[&str], verdicts: Vec<Verdict>) -> Explanation {
        let candidate = |(index, verdict)| Candidate {
            node_id: NodeId::new(format!("node-{index}")).unwrap(),
            addresses: vec!["127.0.0.1:1".parse().unwrap()],
            verdict,
            picks: 7,
            in_flight: 0,
            weight: 100,
            ejections: 0,
            latency: None,
            connections: ConnectionCounts::default(),
        };
        Explanation {
            service: ServiceInfo::from_static("identity", "v2"),
            sync,
            nodes: 2,
            other_versions: versions.iter().map(|it| ServiceVersion::new(it).unwrap()).collect(),
            candidates: verdicts.into_iter().enumerate().map(candidate).collect(),
            calls: 3,
            attempts: 6,
            moved: 2,
            retries: 1,
            try_timeouts: 0,
            stalls_left: 0,
            pushbacks: 0,
            over_budget: 1,
            ejections: 0,
            panic: false,
            looks: 0,
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
            "0 of 2 nodes advertise identity/v2; v1, v3 and v4 are (no seed has answered yet)",
        );
    }

    #[test]
    fn an_empty_mesh_asks_for_its_seeds() {
        let empty = |sync| Explanation { nodes: 0, ..explanation(sync, &[], vec![]) };
        check(
            &empty(SyncState::Complete),
            "no node is known at all; are the seeds missing (join of a node, seeds of a pool)?",
        );
        check(
            &empty(SyncState::Pending),
            "0 of 0 nodes advertise identity/v2 (no seed has answered yet)",
        );
    }

    #[test]
    fn a_dial_that_failed_before_says_why() {
        let error = Some("connection refused".to_owned());
        check(
            &explanation(
                SyncState::Complete,
                &[],
                vec![Verdict::Connecting { failures: 1, error }],
            ),
            "0 of 1 providers are connected: node-0 at 127.0.0.1:1: connecting again, connection refused (failed once)",
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
        let failure = SyncFailure::new(
            "127.0.0.1:9".parse().unwrap(),
            "cannot reach 127.0.0.1:9",
            Timestamp::default(),
        );
        check(
            &explanation(SyncState::Failing([failure].into()), &[], vec![]),
            "0 of 2 nodes advertise identity/v2 (no seed could be reached; cannot reach 127.0.0.1:9)",
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
                vec![eligible, Verdict::Connecting { failures: 0, error: None }]
            )
            .to_string(),
            "identity/v2: 1 of 2 providers are called (3 calls, 6 attempts, 2 moved, 1 retried, 1 over budget)\n  \
             node-0 at 127.0.0.1:1: called, 2 of 100 streams in use on 1 connection (7 picks)\n  \
             node-1 at 127.0.0.1:1: connecting (7 picks)"
        );
    }

    #[test]
    fn a_candidate_tells_how_it_did() {
        let ejected = Verdict::Ejected {
            reason: "5 calls failed in a row".to_owned(),
            returns_in: Duration::from_millis(1_500),
        };
        let mut explanation = explanation(SyncState::Complete, &[], vec![ejected]);
        explanation.ejections = 3;
        let [candidate] = explanation.candidates.as_mut_slice() else { panic!("one") };
        candidate.in_flight = 4;
        candidate.latency = Some(Duration::from_micros(1_250));
        candidate.weight = 50;
        candidate.ejections = 3;
        candidate.connections.established = 5;
        candidate.connections.dial_failures = 2;
        candidate.connections.lost = 1;
        assert_eq!(
            explanation.to_string(),
            "identity/v2: 0 of 1 providers are called (3 calls, 6 attempts, 2 moved, 1 retried, \
             1 over budget, 3 ejections)\n  \
             node-0 at 127.0.0.1:1: ejected, 5 calls failed in a row; it is asked again in 1.5s \
             (7 picks, 4 in flight, 1.2 ms, weight 50, ejected 3 times; connection \
             dialled in vain 2 times, lost once)"
        );
    }
}
