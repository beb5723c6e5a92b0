use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aegis_core::{Address, NodeId};
use arc_swap::ArcSwap;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::error::{DialError, Unavailable};
use crate::http2::connection::Connection;
use crate::http2::dial::Dialled;
use crate::lease::Lease;
use crate::past::Trouble;
use crate::signals::Signals;

/// What is known of one node, shared by its links, its calls and its keeper.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    /// Not aegis: asked rarely whether it lives.
    pub(crate) foreign: bool,
    pub(crate) signals: Arc<Signals>,
    /// Those that are not leaving yet, as the keeper last saw it; what is picked is looked at again.
    connections: ArcSwap<Vec<Arc<Connection>>>,
    links: AtomicUsize,
    addresses: Mutex<Arc<[Address]>>,
    /// The highest number of a record that said where the node is.
    record: Mutex<(u64, u64)>,
    /// Counts what makes the keeper forget its failures.
    news: AtomicU64,
    /// Connections that were made without knowing that they would lead here.
    adopted: Mutex<Vec<Adopted>>,
    dialling: Mutex<Dialling>,
    /// What an earlier keeper learned, for the next one.
    past: Mutex<Option<Trouble>>,
}

/// Which node it is, and how it is reached.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) id: NodeId,
    pub(crate) foreign: bool,
    pub(crate) addresses: Vec<Address>,
    pub(crate) record: (u64, u64),
}

/// A connection on its way to the keeper; dropped once the keeper has made it known.
pub(crate) struct Adopted {
    pub(crate) dialled: Dialled,
    pub(crate) known: oneshot::Sender<()>,
}

impl Adopted {
    /// With what ends when the keeper has taken it over.
    pub(crate) fn new(dialled: Dialled) -> (Self, oneshot::Receiver<()>) {
        let (known, taken_over) = oneshot::channel();
        (Self { dialled, known }, taken_over)
    }
}

/// What the keeper is doing about a node without a connection.
#[derive(Debug, Clone)]
pub(crate) enum Dialling {
    /// An attempt is under way or about to start.
    Now { failures: u32, error: Option<Arc<DialError>> },
    /// After a failure.
    Later { failures: u32, at: Instant, error: Arc<DialError> },
}

impl Dialling {
    /// How it stands with a node that is wanted again.
    fn after(past: Option<&Trouble>) -> Self {
        let Some(past) = past else { return Self::Now { failures: 0, error: None } };
        let (failures, error) = (past.attempts.failures(), past.error.clone());
        match error {
            Some(error) if Instant::now() < past.not_before => {
                Self::Later { failures, at: past.not_before, error }
            }
            error => Self::Now { failures, error },
        }
    }
}

impl PartialEq for Dialling {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Now { failures: a, .. }, Self::Now { failures: b, .. }) => a == b,
            (Self::Later { at: a, .. }, Self::Later { at: b, .. }) => a == b,
            _ => false,
        }
    }
}

impl Node {
    pub(crate) fn new(
        about: About,
        past: Option<Trouble>,
        any_changed: watch::Sender<()>,
        closed: Arc<AtomicBool>,
    ) -> Self {
        let About { id, foreign, addresses, record } = about;
        // A record that is older than one that was known is no reason to take a known one for news.
        let record = past.as_ref().map_or(record, |past| past.record.max(record));
        Self {
            id,
            foreign,
            signals: Arc::new(Signals::new(any_changed, closed)),
            connections: ArcSwap::default(),
            links: AtomicUsize::new(0),
            addresses: Mutex::new(addresses.into()),
            record: Mutex::new(record),
            news: AtomicU64::new(0),
            adopted: Mutex::default(),
            dialling: Mutex::new(Dialling::after(past.as_ref())),
            past: Mutex::new(past),
        }
    }

    // For links.

    pub(crate) fn hold(&self) {
        self.links.fetch_add(1, Ordering::SeqCst);
        self.signals.wake_keeper();
    }

    pub(crate) fn let_go(&self) {
        if self.links.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.signals.wake_keeper();
        }
    }

    pub(crate) fn set_addresses(&self, addresses: Vec<Address>) {
        let addresses: Arc<[Address]> = addresses.into();
        let mut known = lock(&self.addresses);
        if *known != addresses {
            *known = addresses;
            drop(known);
            self.retry();
        }
    }

    /// Takes over what a record says; one that is later than any before, or that names other addresses, is news.
    ///
    /// A connection to where an earlier run of the node was leads to a process that is not the node any more.
    pub(crate) fn learn(&self, addresses: Vec<Address>, record: (u64, u64)) {
        let before = {
            let mut known = lock(&self.record);
            let before = *known;
            *known = record.max(before);
            before
        };
        if 0 < before.0 && before.0 < record.0 {
            for connection in &*self.connections() {
                if !addresses.contains(&connection.address) {
                    connection.wear();
                }
            }
        }
        self.set_addresses(addresses);
        if before < record {
            self.retry();
        }
    }

    pub(crate) fn retry(&self) {
        self.news.fetch_add(1, Ordering::SeqCst);
        self.signals.wake_keeper();
    }

    pub(crate) fn adopt(&self, adopted: Adopted) {
        lock(&self.adopted).push(adopted);
        self.signals.wake_keeper();
    }

    // For the keeper.

    pub(crate) fn is_wanted(&self) -> bool {
        0 < self.links.load(Ordering::SeqCst) && !self.signals.is_closed()
    }

    pub(crate) fn addresses(&self) -> Arc<[Address]> {
        Arc::clone(&lock(&self.addresses))
    }

    pub(crate) fn record(&self) -> (u64, u64) {
        *lock(&self.record)
    }

    pub(crate) fn take_past(&self) -> Option<Trouble> {
        lock(&self.past).take()
    }

    pub(crate) fn news(&self) -> u64 {
        self.news.load(Ordering::SeqCst)
    }

    pub(crate) fn take_adopted(&self) -> Vec<Adopted> {
        std::mem::take(&mut *lock(&self.adopted))
    }

    pub(crate) fn set_connections(&self, connections: Vec<Arc<Connection>>) {
        for connection in &connections {
            connection.slots.set_alone(connections.len() == 1);
        }
        let connections = Arc::new(connections);
        self.connections.store(Arc::clone(&connections));
        for connection in &*connections {
            connection.serve();
        }
        self.signals.changed();
    }

    pub(crate) fn set_dialling(&self, dialling: Dialling) {
        let mut known = lock(&self.dialling);
        if *known != dialling {
            *known = dialling;
            drop(known);
            self.signals.changed();
        }
    }

    // For picks and for those who ask.

    pub(crate) fn connections(&self) -> Arc<Vec<Arc<Connection>>> {
        self.connections.load_full()
    }

    pub(crate) fn dialling(&self) -> Dialling {
        lock(&self.dialling).clone()
    }

    /// Waits in line for a slot.
    pub(crate) async fn wait_for_lease(&self) -> Lease {
        loop {
            let mut place = self.signals.line.join();
            // What became free before we lined up was offered to those before us only.
            if let Ok(lease) = self.lease(false) {
                return lease;
            }
            if let Some(lease) = place.turn().await {
                return lease;
            }
        }
    }

    pub(crate) fn lease(&self, stalled_too: bool) -> Result<Lease, Unavailable> {
        if self.signals.is_closed() {
            return Err(Unavailable::Closed);
        }
        let connections = self.connections.load();
        // Whoever loses the last slot of the best one to another looks again; each round another has won.
        loop {
            let mut why = Unavailable::NotConnected;
            let mut best: Option<(&Arc<Connection>, _)> = None;
            for connection in connections.iter().filter(|connection| connection.is_open()) {
                let in_flight = connection.in_flight();
                if connection.is_stalled() && !stalled_too {
                    if why == Unavailable::NotConnected {
                        why = Unavailable::Stalled;
                    }
                } else if connection.limit() <= in_flight {
                    why = Unavailable::Full;
                } else {
                    let worse = (
                        connection.is_stalled(),
                        connection.is_worn(),
                        connection.is_bulk(),
                        in_flight,
                    );
                    if best.is_none_or(|(_, least)| worse < least) {
                        best = Some((connection, worse));
                    }
                }
            }
            let Some((connection, _)) = best else {
                return Err(why);
            };
            if let Some(lease) = connection.lease() {
                return Ok(lease);
            }
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("id", &self.id)
            .field("connections", &self.connections.load())
            .finish_non_exhaustive()
    }
}

/// The sections under these locks assign and clone; none can panic half-way.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
