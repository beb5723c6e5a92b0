use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aegis_core::{NodeId, ServiceInfo};
use aegis_topology::Snapshot;
use aegis_transport::LinkStatus;
use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::apart::Apart;
use crate::balance::Balancing;
use crate::budget::Budget;
use crate::outlier::{Member, OutlierDetection, review};
use crate::shared::Shared;
use crate::view::{Chosen, Missed, Picked, Provider, View};

/// Providers that are connected within this time after the first are there from the start: none starts slowly.
const TOGETHER: Duration = Duration::from_secs(1);

/// What all channels of one service share.
pub(crate) struct Service {
    pub(crate) pool: Arc<Shared>,
    pub(crate) info: ServiceInfo,
    /// `name/version`, as each request carries it.
    pub(crate) header: HeaderValue,
    pub(crate) view: ArcSwap<View>,
    /// Sent after each new view.
    pub(crate) views: watch::Sender<()>,
    pub(crate) balance: Balancing,
    pub(crate) budget: Budget,
    times: Mutex<Times>,
    pub(crate) counts: Apart<Counts>,
}

/// Of interest to whoever looks, who is one at a time.
#[derive(Clone, Copy, Debug)]
struct Times {
    /// When the providers that are ready, if any are, began to be more than none.
    first_ready: Option<Instant>,
    /// When the interval of the success rates began.
    interval: Instant,
}

/// What a look leaves to do.
#[derive(Debug, Default)]
pub(crate) struct ToDo {
    /// Providers that are to be asked whether they live.
    pub(crate) probes: Vec<Arc<Provider>>,
    /// When to look again, if nothing happens.
    pub(crate) due: Option<Instant>,
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
    pub(crate) ejections: AtomicU64,
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
        let balance = pool.options.balancers.start(&info);
        let now = Instant::now();
        Arc::new(Self {
            pool,
            info,
            balance,
            times: Mutex::new(Times { first_ready: None, interval: now }),
            header,
            view: ArcSwap::default(),
            views: watch::Sender::new(()),
            budget: Budget::new(now),
            counts: Apart::default(),
        })
    }

    /// Makes the view anew. Links of providers that stay are kept, those of providers that went are given up.
    ///
    /// One at a time: the pool calls it under the lock of its services.
    pub(crate) fn look(&self, snapshot: &Snapshot) -> ToDo {
        let now = Instant::now();
        let old = self.view.load();
        let known: HashMap<&NodeId, &Arc<Provider>> =
            old.providers.iter().map(|it| (it.node_id(), it)).collect();
        let providers = snapshot.providers(&self.info).iter().map(|node| {
            let Some(provider) = known.get(node.node_id()) else {
                let Shared { connections, outliers, .. } = &*self.pool;
                return Provider::new(connections, node, &self.info, outliers);
            };
            provider.heed(node, &self.info);
            Arc::clone(provider)
        });
        let providers: Vec<_> = providers
            .map(|provider| {
                let status = provider.link.status();
                (provider, status)
            })
            .collect();
        let to_do = match &self.pool.outliers.detection {
            Some(detection) => self.judge(&providers, detection, now),
            None => ToDo::default(),
        };
        let new = View::new(providers, snapshot.is_synced());
        // Most changes concern other services.
        if !new.is_same(&old) {
            self.start_slowly(&old, &new, now);
            self.publish(new);
        }
        to_do
    }

    /// Ejects providers that fail, and finds those whose time is over.
    fn judge(
        &self,
        providers: &[(Arc<Provider>, LinkStatus)],
        detection: &OutlierDetection,
        now: Instant,
    ) -> ToDo {
        let mut times = self.times();
        let rates = detection.interval <= now.saturating_duration_since(times.interval);
        if rates {
            times.interval = now;
        }
        let next_rates = times.interval + detection.interval;
        drop(times);
        let members: Vec<_> = providers
            .iter()
            .map(|(provider, status)| Member {
                record: &provider.record,
                connected: matches!(status, LinkStatus::Connected { .. }),
            })
            .collect();
        let decisions = review(&members, detection, rates, now);
        for (index, why, until) in &decisions.ejected {
            let Some((provider, _)) = providers.get(*index) else { continue };
            self.counts.ejections.fetch_add(1, Ordering::Relaxed);
            let (node, lasts) = (provider.node_id(), until.saturating_duration_since(now));
            tracing::warn!(service = %self.info, %node, reason = %why, ?lasts, "provider ejected");
        }
        let provider = |index: &usize| providers.get(*index).map(|(it, _)| Arc::clone(it));
        ToDo {
            probes: decisions.probes.iter().filter_map(provider).collect(),
            due: Some(decisions.due.map_or(next_rates, |due| due.min(next_rates))),
        }
    }

    /// Begins the slow start of those that have joined others, which are at work.
    fn start_slowly(&self, old: &View, new: &View, now: Instant) {
        let mut times = self.times();
        if new.ready.is_empty() {
            times.first_ready = None;
            return;
        }
        let together = *times.first_ready.get_or_insert(now) + TOGETHER;
        drop(times);
        let known: HashSet<_> = old.connected().map(Arc::as_ptr).collect();
        for provider in new.connected().filter(|it| !known.contains(&Arc::as_ptr(it))) {
            if now < together {
                provider.profile.load.reset();
            } else {
                provider.profile.load.start_slowly(now);
            }
        }
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Picks a provider that is not among `tried`.
    pub(crate) fn pick(&self, tried: &[NodeId]) -> Result<Picked, Missed> {
        self.pick_in(&self.view.load(), tried).map(Chosen::keep)
    }

    /// The same, in a view that the caller has at hand.
    pub(crate) fn pick_in<'a>(
        &self,
        view: &'a View,
        tried: &[NodeId],
    ) -> Result<Chosen<'a>, Missed> {
        view.pick(&self.balance, self.pool.outliers.suspicion(), tried)
    }

    pub(crate) fn publish(&self, view: View) {
        if let Balancing::RoundRobin(rule) = &self.balance {
            // Before anybody draws a turn: a pick allocates nothing.
            rule.prepare(view.ready.len());
        }
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
