use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// The health of a node, as its owner sees it and as `grpc.health.v1` tells it.
///
/// A node serves (`SERVING`) from the end of [`start`](crate::Node::start) until its drain begins,
/// unless it was [set](Self::set) unhealthy.
/// The names are `""` for the node, and the gRPC name of each handler.
/// A clone is the same health.
///
/// ```
/// use aegis_node::HealthStatus;
/// use aegis_testing::TestMesh;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mesh = TestMesh::in_memory();
/// let morpheus = mesh.serve("morpheus-1", |node| node).await;
/// morpheus.node().health().set(HealthStatus::Unhealthy, "the database is gone").await;
///
/// // Another node asks for it by hand; programs that are no nodes ask grpc.health.v1.
/// let peers = mesh.node("vicky-1").peers();
/// let id = peers.add(&morpheus.local_addr().into()).await?;
/// let health = peers.health(&id).await?;
/// assert_eq!((health.status, health.message.as_str()), (HealthStatus::Unhealthy, "the database is gone"));
/// # Ok(())
/// # }
/// ```
///
/// Callers go on calling an unhealthy node: whether it takes calls is what its record says.
#[derive(Debug, Clone)]
pub struct Health {
    reporter: HealthReporter,
    names: Arc<[&'static str]>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    report: HealthReport,
    phase: Phase,
    /// Grows with each change.
    revision: u64,
}

impl State {
    fn serving(&self) -> bool {
        self.phase == Phase::Serving && self.report.status != HealthStatus::Unhealthy
    }
}

/// Where a node stands between its start and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It does not listen yet.
    Starting,
    /// It takes calls.
    Serving,
    /// It has begun to leave.
    Draining,
}

/// What a node says about its health.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct HealthReport {
    /// Whether the node can do its work.
    pub status: HealthStatus,
    /// A word on it for people.
    pub message: String,
    /// When it was last set.
    pub since: SystemTime,
}

/// Whether a node can do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HealthStatus {
    /// It can.
    Healthy,
    /// It cannot; health checks are answered `NOT_SERVING`.
    Unhealthy,
    /// Nobody has said.
    Unknown,
}

impl HealthStatus {
    /// The word that a mesh's nodes exchange: `healthy`, `unhealthy` or `unknown`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
        }
    }
}

impl Health {
    pub(crate) fn new(
        reporter: HealthReporter,
        names: impl IntoIterator<Item = &'static str>,
    ) -> Self {
        let report = HealthReport {
            status: HealthStatus::Unknown,
            message: String::new(),
            since: SystemTime::now(),
        };
        let names = names.into_iter().chain([""]).collect();
        Self {
            reporter,
            names,
            state: Arc::new(Mutex::new(State { report, phase: Phase::Starting, revision: 0 })),
        }
    }

    /// Says how the node is (until then [`Unknown`](HealthStatus::Unknown), which counts as serving); health checks and
    /// watchers hear of it at once.
    ///
    /// # Cancel safety
    /// If dropped, some names may not have been told yet; the next call tells them.
    pub async fn set(&self, status: HealthStatus, message: impl Into<String>) {
        let report = HealthReport { status, message: message.into(), since: SystemTime::now() };
        self.change(|state| state.report = report);
        self.tell().await;
    }

    /// What was said last, or that nothing was said, since the node was built.
    pub fn report(&self) -> HealthReport {
        self.state().report.clone()
    }

    /// Notes where the server stands; [`tell`](Self::tell) tells it on.
    pub(crate) fn enter(&self, phase: Phase) {
        self.change(|state| state.phase = phase);
    }

    /// Where the server stands, and how its owner says it is.
    pub(crate) fn now(&self) -> (Phase, HealthStatus) {
        let state = self.state();
        (state.phase, state.report.status)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        state.revision += 1;
    }

    /// Tells health checks and watchers what was noted last.
    pub(crate) async fn tell(&self) {
        // Whoever told an old state while it changed tells the new one too, so that the last word is never old.
        let mut told = None;
        loop {
            let (revision, serving) = {
                let state = self.state();
                (state.revision, state.serving())
            };
            if told == Some(revision) {
                return;
            }
            let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
            for name in self.names.iter() {
                self.reporter.set_service_status(*name, status).await;
            }
            told = Some(revision);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tonic::Request;
    use tonic_health::pb::HealthCheckRequest;
    use tonic_health::pb::health_server::Health as _;
    use tonic_health::server::HealthService;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_last_word_is_never_an_old_one() {
        for _ in 0..200 {
            let reporter = HealthReporter::new();
            let service = HealthService::from_health_reporter(reporter.clone());
            let health = Health::new(reporter, ["pkg.A", "pkg.B"]);
            health.enter(Phase::Serving);
            health.tell().await;
            let mut changes = tokio::task::JoinSet::new();
            for status in [HealthStatus::Healthy, HealthStatus::Unhealthy, HealthStatus::Unknown] {
                let health = health.clone();
                changes.spawn(async move { health.set(status, "").await });
            }
            changes.join_all().await;
            let request = HealthCheckRequest { service: "pkg.B".to_owned() };
            let told = service.check(Request::new(request)).await.unwrap().into_inner().status();
            let healthy = health.report().status != HealthStatus::Unhealthy;
            assert_eq!(told.as_str_name() == "SERVING", healthy);
        }
    }
}
