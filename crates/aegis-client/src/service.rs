use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aegis_core::{NodeId, ServiceInfo};
use aegis_topology::Snapshot;
use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::balance::RoundRobin;
use crate::budget::Budget;
use crate::shared::Shared;
use crate::view::{Missed, Picked, Provider, View};

/// What all channels of one service share.
pub(crate) struct Service {
    pub(crate) pool: Arc<Shared>,
    pub(crate) info: ServiceInfo,
    /// `name/version`, as each request carries it.
    pub(crate) header: HeaderValue,
    pub(crate) view: ArcSwap<View>,
    /// Sent after each new view.
    pub(crate) views: watch::Sender<()>,
    pub(crate) balance: RoundRobin,
    pub(crate) budget: Budget,
    pub(crate) counts: Counts,
}

/// Always-on counters, read through [`Explanation`](crate::Explanation).
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) calls: AtomicU64,
    pub(crate) attempts: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) try_timeouts: AtomicU64,
    pub(crate) stalls_left: AtomicU64,
    pub(crate) pushbacks: AtomicU64,
    pub(crate) moved: AtomicU64,
    pub(crate) over_budget: AtomicU64,
    pub(crate) looks: AtomicU64,
}

impl Counts {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

impl Service {
    #[expect(clippy::expect_used, reason = "names and versions are ASCII by their grammar")]
    pub(crate) fn new(pool: Arc<Shared>, info: ServiceInfo) -> Arc<Self> {
        let header = HeaderValue::from_str(&info.to_string()).expect("a name is a header value");
        Arc::new(Self {
            pool,
            info,
            header,
            view: ArcSwap::default(),
            views: watch::Sender::new(()),
            balance: RoundRobin::default(),
            budget: Budget::new(Instant::now()),
            counts: Counts::default(),
        })
    }

    /// Makes the view anew. Links of providers that stay are kept, those of providers that went are given up.
    ///
    /// One at a time: the pool calls it under the lock of its services.
    pub(crate) fn look(&self, snapshot: &Snapshot) {
        self.counts.looks.fetch_add(1, Ordering::Relaxed);
        let old = self.view.load();
        let known: HashMap<&NodeId, &Arc<Provider>> =
            old.providers.iter().map(|it| (it.node_id(), it)).collect();
        let providers = snapshot.providers(&self.info).iter().map(|node| {
            let Some(provider) = known.get(node.node_id()) else {
                return Provider::new(&self.pool.connections, node);
            };
            provider.heed(node);
            Arc::clone(provider)
        });
        let new = View::new(providers.collect(), snapshot.is_synced());
        // Most changes concern other services.
        if !new.is_same(&old) {
            self.publish(new);
        }
    }

    /// Picks a provider that is not among `tried`.
    pub(crate) fn pick(&self, tried: &[NodeId]) -> Result<Picked, Missed> {
        self.view.load().pick(&self.balance, tried)
    }

    pub(crate) fn publish(&self, view: View) {
        self.view.store(Arc::new(view));
        self.views.send_replace(());
    }

    /// Whether the budget lets a request that a peer has seen go out again; a refusal is counted unless it was before.
    pub(crate) fn may_repeat(&self, count: bool) -> bool {
        let calls = self.counts.calls.load(Ordering::Relaxed);
        let may = self.budget.withdraw(calls, Instant::now());
        if !may && count {
            Counts::add(&self.counts.over_budget);
        }
        may
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("info", &self.info).finish_non_exhaustive()
    }
}
