use std::sync::Arc;
use std::time::Duration;

use aegis_core::{Address, Chain};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::exchange::{Synced, exchange};
use crate::member::Shared;
use crate::own::Own;
use crate::peers::Chosen;
use crate::seeds::{RETRY_GROWTH, dial};
use crate::settings::jittered;
use crate::{SyncError, conflict};

/// How often the own record is looked at.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// Syncs that run at once: one with a slow peer does not hold the others up.
const SYNCS: usize = 4;

/// Syncs through a seed, for ever: soon again while it does not answer, rarely while it does.
///
/// Also a seed that answered long ago may come back empty after a restart, and may be the only way to those that joined it.
pub(crate) async fn join(shared: Arc<Shared>, address: Address) {
    let core = &shared.core;
    let settings = &core.settings;
    let mut wait = settings.seed_retry;
    let mut last = None;
    let mut is_other = false;
    loop {
        // A handshake for each look would be too much for a seed of a thousand nodes.
        let connected = last.take().and_then(|id| shared.peers.connected(&id));
        let synced = match connected {
            Some(link) => exchange(core, &link, None).await,
            None => sync_at(&shared, &address).await,
        };
        match synced {
            Ok(synced) => {
                tracing::debug!(%address, node = %synced.node_id, news = synced.news, "synced with a seed");
                shared.seeds.succeeded(core, &address, &synced.node_id);
                last = Some(synced.node_id);
                wait = settings.seed_retry;
                sleep(jittered(settings.seed_every)).await;
            }
            Err(SyncError::OwnNode { .. }) if !is_other => {
                shared.seeds.is_own(core, &address);
                // The address may belong to somebody else one day.
                sleep(jittered(settings.seed_retry_limit)).await;
            }
            Err(error) => {
                let error = match error {
                    // Another process that gave way answers as if it were us.
                    SyncError::OwnNode { address } => SyncError::Duplicate { address },
                    error => error,
                };
                is_other |= matches!(error, SyncError::Duplicate { .. });
                shared.seeds.failed(core, &address, &error);
                sleep(jittered(wait)).await;
                wait = wait.mul_f64(RETRY_GROWTH).min(settings.seed_retry_limit);
            }
        }
    }
}

/// Compares the directory with that of whoever listens at an address, and introduces this node there.
pub(crate) async fn sync_at(shared: &Shared, address: &Address) -> Result<Synced, SyncError> {
    let link = match dial(&shared.core, address).await {
        Err(SyncError::OwnNode { address }) if conflict::is_other(shared, &address).await => {
            return Err(SyncError::Duplicate { address });
        }
        dialled => dialled?,
    };
    shared.peers.adopt(&link);
    let own = shared.own.get().filter(|own| own.advertises()).map(Own::key);
    exchange(&shared.core, &link, own).await
}

/// Tells a few peers at once about what changed, whoever told us.
///
/// Each by itself: a slow one delays neither the others nor what changes next.
pub(crate) async fn push(shared: Arc<Shared>) {
    let core = &shared.core;
    let mut changed = core.changed();
    changed.mark_changed();
    let mut running = JoinSet::new();
    while changed.changed().await.is_ok() {
        sleep(core.settings.push_delay).await;
        changed.mark_unchanged();
        while running.try_join_next().is_some() {}
        let snapshot = core.directory().snapshot();
        for peer in shared.peers.choose_many(&snapshot, core.settings.push_peers) {
            // It hears of this later, when it has done with what it was told already.
            if !peer.is_busy() {
                let shared = Arc::clone(&shared);
                running.spawn(async move { sync_with(&shared, &peer).await });
            }
        }
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

async fn sync_with(shared: &Shared, peer: &Chosen) {
    match exchange(&shared.core, &peer.link, None).await {
        Ok(synced) => {
            if synced.equal || 0 < synced.news {
                peer.succeeded();
            } else {
                peer.was_fruitless();
            }
            shared.core.joined(peer.link.node_id());
        }
        Err(error) => {
            tracing::debug!(node = %peer.link.node_id(), error = %Chain::new(&error), "no sync");
            peer.failed();
        }
    }
}

/// Signs the own record again in time.
pub(crate) async fn renew(shared: Arc<Shared>) {
    let mut trouble = Trouble::default();
    loop {
        sleep(RENEW_EVERY).await;
        let Some(own) = shared.own.get() else { continue };
        match own.renew(&shared.core) {
            Ok(()) if trouble.ends() => tracing::info!("the own record can be signed again"),
            Err(error) if trouble.begins() => {
                let error = Chain::new(&error);
                tracing::warn!(%error, "cannot sign the own record again; it ends with its lease");
            }
            _ => {}
        }
    }
}

/// Something that fails time and again, of which the log has to say only when it begins and when it ends.
#[derive(Debug, Default)]
struct Trouble(bool);

impl Trouble {
    /// Notes a failure; says whether it is the first.
    fn begins(&mut self) -> bool {
        !std::mem::replace(&mut self.0, true)
    }

    /// Notes a success; says whether it is the first after a failure.
    fn ends(&mut self) -> bool {
        std::mem::take(&mut self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_is_news_when_it_begins_and_when_it_ends() {
        let mut trouble = Trouble::default();
        assert!(!trouble.ends());
        assert_eq!([(); 3].map(|()| trouble.begins()), [true, false, false]);
        assert_eq!([(); 2].map(|()| trouble.ends()), [true, false]);
        assert!(trouble.begins());
    }
}
