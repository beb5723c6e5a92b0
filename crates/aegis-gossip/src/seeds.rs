use std::sync::{Arc, Mutex, PoisonError};

use aegis_core::{Address, Chain};
use aegis_topology::{SyncFailure, SyncState};
use aegis_transport::{DialError, Link};

use crate::SyncError;
use crate::clock::now;
use crate::core::Core;

/// How much longer each wait for a seed is: a quarter of the time that it has been down, as processes start together
/// in any order and the last one should not be waited for much longer than it takes.
pub(crate) const RETRY_GROWTH: f64 = 1.25;

/// Connects to whoever listens at an address.
pub(crate) async fn dial(core: &Core, address: &Address) -> Result<Link, SyncError> {
    let link = core.connections.dial_seed(address).await.map_err(|error| match error {
        DialError::OwnNode { address } => SyncError::OwnNode { address },
        error => SyncError::Unreachable { address: address.clone(), source: Arc::new(error) },
    })?;
    // A node that was in backoff stays so until its keeper has taken the connection over, and a call would fail at once.
    let mut changes = link.changes();
    let taken_over = async {
        while !link.is_connected() {
            changes.changed().await;
        }
    };
    // If it is not, the call says why.
    drop(tokio::time::timeout(core.settings.call_timeout, taken_over).await);
    Ok(link)
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
    failures: Vec<SyncFailure>,
}

impl Seeds {
    pub(crate) fn expect(&self, seeds: &[Address]) {
        self.lock().open = seeds.to_vec();
    }

    /// Notes that a seed failed; says so in the log the first time.
    pub(crate) fn failed(&self, core: &Core, address: &Address, error: &SyncError) {
        let mut state = self.lock();
        let reason = Chain::new(error).to_string();
        let known = state.failures.iter().any(|failure| failure.address == *address);
        if !known {
            tracing::info!(%address, error = %reason, "cannot reach a seed yet, trying on");
        }
        state.failures.retain(|failure| failure.address != *address);
        state.failures.push(SyncFailure::new(address.clone(), reason, now()));
        core.set_sync_state(SyncState::Failing(state.failures.as_slice().into()));
    }

    pub(crate) fn succeeded(&self, core: &Core, address: &Address) {
        self.lock().failures.retain(|failure| failure.address != *address);
        core.set_sync_state(SyncState::Complete);
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
