use std::sync::{Arc, Mutex, PoisonError};

use aegis_core::Address;
use aegis_topology::{SyncFailure, SyncState};
use aegis_transport::DialError;

use crate::SyncError;
use crate::clock::now;
use crate::core::Core;
use crate::exchange::{Synced, exchange};
use crate::inbox::chain;
use crate::member::Shared;
use crate::settings::jittered;

/// How much longer each wait for a seed is: a quarter of the time that it has been down, as processes start together
/// in any order and the last one should not be waited for much longer than it takes.
pub(crate) const RETRY_GROWTH: f64 = 1.25;

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
        let reason = chain(error);
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
    fn is_own(&self, core: &Core, address: &Address) {
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

/// Syncs through a seed, for ever: soon again while it does not answer, rarely while it does.
///
/// Also a seed that answered long ago may come back empty after a restart, and may be the only way to those that joined it.
pub(crate) async fn follow(shared: Arc<Shared>, address: Address) {
    let core = &shared.core;
    let settings = &core.settings;
    let mut wait = settings.seed_retry;
    loop {
        match sync(&shared, &address).await {
            Ok(synced) => {
                tracing::debug!(%address, node = %synced.node_id, news = synced.news, "synced with a seed");
                shared.seeds.succeeded(core, &address);
                wait = settings.seed_retry;
                tokio::time::sleep(jittered(settings.seed_every)).await;
            }
            Err(SyncError::OwnNode { .. }) => {
                shared.seeds.is_own(core, &address);
                // The address may belong to somebody else one day.
                tokio::time::sleep(jittered(settings.seed_retry_limit)).await;
            }
            Err(error) => {
                shared.seeds.failed(core, &address, &error);
                tokio::time::sleep(jittered(wait)).await;
                wait = wait.mul_f64(RETRY_GROWTH).min(settings.seed_retry_limit);
            }
        }
    }
}

/// Compares the directory with that of whoever listens at an address.
pub(crate) async fn sync(shared: &Shared, address: &Address) -> Result<Synced, SyncError> {
    let core = &shared.core;
    let link = core.connections.dial_seed(address).await.map_err(|error| match error {
        DialError::OwnNode { address } => SyncError::OwnNode { address },
        error => SyncError::Unreachable { address: address.clone(), source: Arc::new(error) },
    })?;
    shared.peers.adopt(&link);
    let own = shared.own.get().filter(|own| own.advertises()).map(super::own::Own::key);
    exchange(core, &link, own).await
}
