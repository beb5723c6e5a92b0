use std::sync::Arc;
use std::time::Duration;

use aegis_topology::SyncState;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::core::Core;
use crate::exchange::exchange;
use crate::inbox::chain;
use crate::member::Shared;
use crate::peers::Chosen;
use crate::settings::jittered;

/// The shortest time between two snapshots: an index of thousands of nodes is not rebuilt for each of them.
const PUBLISH_EVERY: Duration = Duration::from_millis(20);
/// How often the own record and those of others are looked at.
const HOUSE_EVERY: Duration = Duration::from_secs(5);
/// Syncs that run at once: one with a slow peer does not hold the others up.
const SYNCS: usize = 4;

/// Publishes what changed in the replica.
pub(crate) async fn publish(core: Arc<Core>) {
    let mut changed = core.changed();
    while changed.changed().await.is_ok() {
        core.publish();
        sleep(PUBLISH_EVERY).await;
    }
}

/// Tells a few peers at once about what changed, whoever told us.
pub(crate) async fn push(shared: Arc<Shared>) {
    let core = &shared.core;
    let mut changed = core.changed();
    while changed.changed().await.is_ok() {
        sleep(core.settings.push_delay).await;
        changed.mark_unchanged();
        let snapshot = core.directory().snapshot();
        let peers = shared.peers.choose_many(&snapshot, core.settings.push_peers);
        let mut pushes: FuturesUnordered<_> =
            peers.iter().map(|peer| sync_with(&shared, peer)).collect();
        while pushes.next().await.is_some() {}
    }
}

/// Compares the directory with a peer's, about once a second.
pub(crate) async fn sync(shared: Arc<Shared>) {
    let core = &shared.core;
    let mut running = JoinSet::new();
    loop {
        sleep(jittered(core.settings.sync_every)).await;
        while running.try_join_next().is_some() {}
        if running.len() < SYNCS {
            let shared = Arc::clone(&shared);
            running.spawn(async move {
                let snapshot = shared.core.directory().snapshot();
                if let Some(peer) = shared.peers.choose(&snapshot) {
                    sync_with(&shared, &peer).await;
                }
            });
        }
    }
}

async fn sync_with(shared: &Shared, peer: &Chosen<'_>) {
    match exchange(&shared.core, &peer.link, None).await {
        // A peer with which nothing gets equal is not asked every second.
        Ok(synced) if !synced.equal && synced.news == 0 => peer.failed(),
        Ok(_) => {
            peer.succeeded();
            shared.core.set_sync_state(SyncState::Complete);
        }
        Err(error) => {
            tracing::debug!(node = %peer.link.node_id(), error = %chain(&error), "no sync");
            peer.failed();
        }
    }
}

/// Forgets records that are over.
pub(crate) async fn expire(core: Arc<Core>) {
    loop {
        sleep(HOUSE_EVERY).await;
        core.expire(crate::clock::now());
    }
}

/// Signs the own record again in time.
pub(crate) async fn renew(shared: Arc<Shared>) {
    loop {
        sleep(HOUSE_EVERY).await;
        if let Some(Err(error)) = shared.own.get().map(|own| own.renew(&shared.core)) {
            let error = chain(&error);
            tracing::warn!(%error, "cannot sign the own record again; it ends with its lease");
        }
    }
}
