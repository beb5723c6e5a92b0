use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aegis_core::{Address, NodeId};
use aegis_topology::{Directory, Snapshot, SyncFailure, SyncState};
use aegis_transport::{DialError, Link};
use tokio::time::Instant;

use crate::SyncError;
use crate::core::Core;

/// How much longer each wait for a seed is: a quarter of the time that it has been down, as processes start together
/// in any order and the last one should not be waited for much longer than it takes.
pub(crate) const RETRY_GROWTH: f64 = 1.25;

/// For how long a node may be alone before the log says so: processes start together in any order.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the log says it again.
const REPEAT: Duration = Duration::from_secs(60);

/// Connects to whoever listens at an address.
pub(crate) async fn dial(core: &Core, address: &Address) -> Result<Link, SyncError> {
    core.connections.dial_seed(address).await.map_err(|error| match error {
        DialError::OwnNode { address } => SyncError::OwnNode { address },
        error => SyncError::Unreachable { address: address.clone(), source: Arc::new(error) },
    })
}

/// Says in the log that no seed answers, until the directory has been compared with somebody else's.
pub(crate) async fn warn_while_alone(directory: Directory, seeds: Vec<Address>) {
    let mut wait = PATIENCE;
    while let Err(late) = directory.wait_for(Snapshot::is_synced, wait).await {
        let error = match late.last.sync_state() {
            SyncState::Failing(failures) => failures.last().map(|it| &*it.reason),
            _ => None,
        };
        let error = error.unwrap_or("there is no answer yet");
        tracing::warn!(?seeds, %error, "not in the mesh: no seed can be reached; trying on");
        wait = REPEAT;
    }
}

/// What became of the seeds so far.
#[derive(Debug, Default)]
pub(crate) struct Seeds {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Those that may still bring the first sync.
    open: Vec<Address>,
    /// Those that answered once.
    answered: HashSet<Address>,
    /// The last failure of those that failed last.
    failures: Vec<SyncFailure>,
    /// When the log last said of a seed that a certificate is in the way.
    warned_at: HashMap<Address, Instant>,
}

impl Seeds {
    pub(crate) fn expect(&self, seeds: &[Address]) {
        self.lock().open = seeds.to_vec();
    }

    /// Notes that a seed failed; says so in the log the first time, and time and again if waiting will not mend it.
    pub(crate) fn failed(&self, core: &Core, address: &Address, error: &SyncError) {
        let mut state = self.lock();
        let reason = error.reason();
        let known = state.failures.iter().any(|failure| failure.address == *address);
        if error.is_about_certificates() {
            if state.warned_at.get(address).is_none_or(|at| REPEAT <= at.elapsed()) {
                state.warned_at.insert(address.clone(), Instant::now());
                tracing::warn!(%address, error = %reason, "a certificate is in the way to a seed; waiting does not mend it");
            }
        } else if known {
            // The log has it already.
        } else if state.answered.contains(address) {
            tracing::info!(%address, error = %reason, "lost the seed; trying on");
        } else {
            tracing::info!(%address, error = %reason, "cannot reach a seed yet; trying on");
        }
        state.failures.retain(|failure| failure.address != *address);
        state.failures.push(SyncFailure::new(address.clone(), reason, core.now()));
        core.set_sync_state(SyncState::Failing(state.failures.as_slice().into()));
    }

    /// Notes that `node` answered at a seed's address, and that the directory was compared with its own.
    pub(crate) fn succeeded(&self, core: &Core, address: &Address, node: &NodeId) {
        let mut state = self.lock();
        state.failures.retain(|failure| failure.address != *address);
        state.answered.insert(address.clone());
        drop(state);
        core.joined(node);
    }

    /// A seed that is this node itself brings nothing; if there is no other, there is nobody to compare with.
    #[cfg(feature = "server")]
    pub(crate) fn is_own(&self, core: &Core, address: &Address) {
        let mut state = self.lock();
        state.open.retain(|open| open != address);
        if state.open.is_empty() {
            core.set_sync_state(SyncState::Complete);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
