use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use aegis_core::ServiceInfo;
use aegis_gossip::Observer;
use aegis_tls::Tls;
use aegis_topology::{Directory, Watch};
use aegis_transport::{Changes, Connections};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::apart::Apart;
use crate::explain::explain;
use crate::limit::ResponseLimit;
use crate::options::PoolOptions;
use crate::outlier::{Outliers, probe};
use crate::service::{Counts, Service, ToDo};
use crate::view::{Provider, View};
use crate::{Error, Explanation};

/// How long closing connections without a call may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// Where a pool's directory comes from, and with it what the pool owns.
#[derive(Debug)]
pub(crate) enum Source {
    /// The node's, with what follows the mesh for it.
    Node(
        #[expect(dead_code, reason = "keeps the directory up to date")] Arc<dyn Any + Send + Sync>,
    ),
    /// Until the pool is closed.
    Observer(Mutex<Option<Observer>>),
    Fixed,
}

/// What pools, channels and calls hold.
pub(crate) struct Shared {
    directory: Directory,
    pub(crate) connections: Connections,
    tls: Tls,
    pub(crate) limit: ResponseLimit,
    pub(crate) options: PoolOptions,
    pub(crate) outliers: Arc<Outliers>,
    pub(crate) source: Source,
    runtime: Handle,
    /// The services somebody has a channel of. Its lock also keeps two looks apart.
    services: Mutex<HashMap<ServiceInfo, Weak<Service>>>,
    /// No new calls; those under way go on as if it were open.
    closed: AtomicBool,
    /// The last of them is over. Set under the lock of the services.
    over: AtomicBool,
    under_way: Apart<AtomicUsize>,
    idle: Notify,
    follower: OnceLock<JoinHandle<()>>,
}

impl Shared {
    pub(crate) fn start(
        directory: Directory,
        connections: Connections,
        tls: Tls,
        limit: ResponseLimit,
        options: PoolOptions,
        source: Source,
        runtime: Handle,
    ) -> Arc<Self> {
        let shared = Arc::new(Self {
            directory,
            connections,
            tls,
            limit,
            outliers: Arc::new(Outliers::new(options.detection.clone())),
            options,
            source,
            runtime,
            services: Mutex::default(),
            closed: AtomicBool::new(false),
            over: AtomicBool::new(false),
            under_way: Apart::default(),
            idle: Notify::new(),
            follower: OnceLock::new(),
        });
        let (directory, links) = (shared.directory.watch(), shared.connections.changes());
        let follow =
            follow(Arc::downgrade(&shared), Arc::clone(&shared.outliers), directory, links);
        // Only just made, so it is not set yet.
        drop(shared.follower.set(shared.runtime.spawn(follow)));
        shared
    }

    /// The service's state, made anew if nobody has a channel of it; its providers are linked before it is returned.
    pub(crate) fn service(self: &Arc<Self>, info: ServiceInfo) -> Arc<Service> {
        // Opening a link spawns its driver, and a channel may be made outside the runtime.
        let _runtime = self.runtime.enter();
        let mut services = self.services();
        if let Some(service) = services.get(&info).and_then(Weak::upgrade) {
            return service;
        }
        let service = Service::new(Arc::clone(self), info.clone());
        if !self.is_closed() {
            // What is to do comes up again with the next look; a new service has nothing yet.
            drop(service.look(&self.directory.snapshot()));
        }
        services.insert(info, Arc::downgrade(&service));
        service
    }

    pub(crate) fn directory(&self) -> Directory {
        self.directory.clone()
    }

    fn look(&self, cause: Cause) -> ToDo {
        let mut to_do = ToDo::default();
        let mut live = Vec::new();
        let mut services = self.services();
        if self.is_over() {
            return to_do;
        }
        let snapshot = self.directory.snapshot();
        // First, so that whoever is accused while they are judged is remembered.
        self.outliers.judge();
        services.retain(|_, service| match service.upgrade() {
            Some(service) => {
                if cause == Cause::Changes {
                    Counts::add(&service.counts.looks);
                }
                let ToDo { probes, due } = service.look(&snapshot);
                to_do.probes.extend(probes);
                to_do.due = to_do.due.into_iter().chain(due).min();
                live.push(service);
                true
            }
            None => false,
        });
        // `live` goes after the lock: were one the last of its pool, its end would want the lock.
        drop(services);
        to_do
    }

    fn live(&self) -> Vec<Arc<Service>> {
        self.services().values().filter_map(Weak::upgrade).collect()
    }

    fn services(&self) -> MutexGuard<'_, HashMap<ServiceInfo, Weak<Service>>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn explain(&self, info: &ServiceInfo) -> Explanation {
        let service = self.services().get(info).and_then(Weak::upgrade);
        explain(info, &self.directory.snapshot(), service.as_deref(), self.is_over())
    }

    pub(crate) fn no_providers(&self, info: &ServiceInfo) -> Error {
        Error::NoProviders { service: info.clone(), explanation: Box::new(self.explain(info)) }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Whether a call can be begun: the pool is open and there is a certificate to call with.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        self.check_under_way()
    }

    /// Whether a call that has begun can go on, also where the pool was closed since.
    pub(crate) fn check_under_way(&self) -> Result<(), Error> {
        // A node that has shut down has closed the connections of its pools.
        if self.connections.is_closed() {
            return Err(Error::Closed);
        }
        self.tls.check_usable().map_err(|error| Error::NoTlsConfig { source: error.into() })
    }

    /// Gives the demand for connections up, for good.
    fn end(&self) {
        {
            let _no_look = self.services();
            self.over.store(true, Ordering::SeqCst);
        }
        for service in self.live() {
            service.publish(View::default());
        }
    }

    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        // Whoever waits for providers without a call waits in vain.
        for service in self.live() {
            service.views.send_replace(());
        }
        loop {
            let idle = self.idle.notified();
            if self.under_way.load(Ordering::SeqCst) == 0 {
                break;
            }
            idle.await;
        }
        self.end();
        match &self.source {
            Source::Node(_) => return,
            Source::Observer(observer) => {
                // It holds a stream open for as long as it lives.
                drop(observer.lock().unwrap_or_else(PoisonError::into_inner).take());
            }
            Source::Fixed => {}
        }
        self.connections.close(GOODBYE).await;
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(follower) = self.follower.get() {
            follower.abort();
        }
    }
}

/// A call under way: it keeps the pool and its service's connections, and a closing pool waits for it.
#[derive(Debug)]
pub(crate) struct UnderWay {
    pub(crate) service: Arc<Service>,
    /// Whether this is what the pool has counted.
    counted: bool,
}

impl UnderWay {
    pub(crate) fn begin(service: &Arc<Service>) -> Self {
        // Counted before the pool is asked whether it is closed, so that closing misses no call.
        service.pool.under_way.fetch_add(1, Ordering::SeqCst);
        service.counts.calls.fetch_add(1, Ordering::Relaxed);
        Self { service: Arc::clone(service), counted: true }
    }

    /// Lets the other one stand for the call, which goes on.
    pub(crate) fn hand_over(&mut self) -> Self {
        let counted = std::mem::take(&mut self.counted);
        Self { service: Arc::clone(&self.service), counted }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.counted {
            return;
        }
        let pool = &self.service.pool;
        if pool.under_way.fetch_sub(1, Ordering::SeqCst) == 1 && pool.is_closed() {
            pool.idle.notify_waiters();
        }
    }
}

/// Why the pool looks at its providers anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The directory or a connection is not what it was.
    Changes,
    /// Providers have failed, or may return.
    Outliers,
}

/// However many fail, they are judged so often.
const JUDGING_PACE: Duration = Duration::from_millis(20);

/// Makes the views of all services anew whenever the directory or a connection changes, or a provider fails or may return.
async fn follow(
    pool: Weak<Shared>,
    outliers: Arc<Outliers>,
    mut directory: Watch,
    mut links: Changes,
) {
    let mut probes = JoinSet::new();
    let mut due = None;
    let mut judged = Instant::now();
    loop {
        let timer = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let cause = tokio::select! {
            _ = directory.changed() => Cause::Changes,
            () = links.changed() => Cause::Changes,
            () = outliers.news.notified() => Cause::Outliers,
            () = timer => Cause::Outliers,
            Some(_) = probes.join_next() => Cause::Outliers,
        };
        let now = Instant::now();
        if cause == Cause::Outliers && now < judged + JUDGING_PACE {
            due = Some(judged + JUDGING_PACE);
            continue;
        }
        judged = now;
        let Some(pool) = pool.upgrade() else { return };
        let to_do = pool.look(cause);
        drop(pool);
        due = to_do.due;
        for provider in to_do.probes {
            probes.spawn(ask(provider, Arc::clone(&outliers)));
        }
    }
}

/// Asks an ejected provider whether it lives, and takes it in again or leaves it out for longer.
async fn ask(provider: Arc<Provider>, outliers: Arc<Outliers>) {
    let Some(detection) = &outliers.detection else { return };
    let answer = probe(&provider.link, detection.probe_limit).await;
    let (node, now) = (provider.node_id(), Instant::now());
    match answer {
        Ok(()) => {
            provider.profile.load.start_slowly(now);
            provider.record.restore();
            tracing::info!(%node, "provider returns");
        }
        Err(error) => {
            tracing::debug!(%node, error, "provider stays out");
            provider.record.stay_out(error, detection, now);
        }
    }
}
