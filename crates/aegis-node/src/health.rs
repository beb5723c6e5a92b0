use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// The health of a node, as its owner sees it and as `grpc.health.v1` tells it.
///
/// A node serves (`SERVING`) from the end of [`start`](crate::Node::start) until its drain begins,
/// unless it was [set](Self::set) unhealthy.
/// The names are `""` for the node, and the gRPC name of each handler.
#[derive(Debug, Clone)]
pub struct Health {
    reporter: HealthReporter,
    names: Arc<[&'static str]>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    report: HealthReport,
    listening: bool,
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
        Self { reporter, names, state: Arc::new(Mutex::new(State { report, listening: false })) }
    }

    /// Says how the node is; health checks and watchers hear of it at once.
    ///
    /// # Cancel safety
    /// If dropped, some names may not have been told yet; the next call tells them.
    pub async fn set(&self, status: HealthStatus, message: impl Into<String>) {
        let report = HealthReport { status, message: message.into(), since: SystemTime::now() };
        self.change(|state| state.report = report).await;
    }

    /// What was said last.
    pub fn report(&self) -> HealthReport {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).report.clone()
    }

    /// The server has begun to listen, or begins to drain.
    pub(crate) async fn set_listening(&self, listening: bool) {
        self.change(|state| state.listening = listening).await;
    }

    async fn change(&self, change: impl FnOnce(&mut State)) {
        let serving = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut state);
            state.listening && state.report.status != HealthStatus::Unhealthy
        };
        let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
        for name in self.names.iter() {
            self.reporter.set_service_status(*name, status).await;
        }
    }
}
