use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aegis_core::NodeId;
use aegis_topology::NodeEntry;
use aegis_transport::{Connections, Link, LinkStatus, Slot, Target, Unavailable};

use tokio::time::Instant;

use crate::balance::RoundRobin;
use crate::load::{Load, Measure};

/// A provider of a service, and the demand for its connection.
#[derive(Debug)]
pub(crate) struct Provider {
    pub(crate) link: Link,
    pub(crate) foreign: bool,
    pub(crate) picks: AtomicU64,
    pub(crate) load: Load,
    /// Its entry in the directory, as it was when the link was last told.
    entry: Mutex<Arc<NodeEntry>>,
}

impl Provider {
    pub(crate) fn new(connections: &Connections, entry: &Arc<NodeEntry>) -> Arc<Self> {
        let target = Target::new(entry.node_id().clone(), entry.addresses().to_vec())
            .record(entry.incarnation(), entry.revision());
        let foreign = entry.is_foreign();
        Arc::new(Self {
            link: connections.link(if foreign { target.foreign() } else { target }),
            foreign,
            picks: AtomicU64::new(0),
            load: Load::new(Instant::now()),
            entry: Mutex::new(Arc::clone(entry)),
        })
    }

    /// Tells the link what is new in the directory: other addresses, or another record of a node that may be back.
    pub(crate) fn heed(&self, entry: &Arc<NodeEntry>) {
        let mut known = self.entry.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&known, entry) {
            return;
        }
        *known = Arc::clone(entry);
        drop(known);
        self.link.set_record(entry.addresses().to_vec(), entry.incarnation(), entry.revision());
    }

    pub(crate) fn node_id(&self) -> &NodeId {
        self.link.node_id()
    }

    pub(crate) fn picked(self: &Arc<Self>, slot: Slot) -> Picked {
        self.picks.fetch_add(1, Ordering::Relaxed);
        Picked { slot, provider: Arc::clone(self) }
    }

    /// Begins an attempt that is given to it.
    pub(crate) fn begin(self: Arc<Self>, now: Instant) -> Measure {
        Measure::begin(self, now)
    }
}

/// What calls of a service choose from: immutable, replaced as a whole when the directory or a link changes.
#[derive(Debug, Default)]
pub(crate) struct View {
    /// Every provider, by node id.
    pub(crate) providers: Vec<Arc<Provider>>,
    /// Those that take turns: connected, and answering PINGs.
    pub(crate) ready: Vec<Arc<Provider>>,
    /// Connected, but silent.
    stalled: Vec<Arc<Provider>>,
    outlook: Outlook,
}

/// What waiting may bring while nobody is connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Outlook {
    /// Nothing soon: nobody provides the service, or everybody's last attempt failed.
    #[default]
    Bleak,
    /// A connection may be up in a moment.
    Connecting,
    /// The directory's first sync is under way.
    Syncing,
}

/// A slot on a provider's connection.
#[derive(Debug)]
pub(crate) struct Picked {
    pub(crate) slot: Slot,
    pub(crate) provider: Arc<Provider>,
}

/// Why nobody was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missed {
    /// Nobody is connected, and waiting is not likely to help.
    Bleak,
    /// Each stream that the connected ones allow is in use.
    Full,
    /// The same, and none of them answers PINGs.
    FullAndSilent,
    /// A connection or the first sync is under way.
    Pending,
    /// Those that are connected have had this request.
    Tried,
}

impl View {
    pub(crate) fn new(providers: Vec<Arc<Provider>>, synced: bool) -> Self {
        let mut view = Self { providers, ..Self::default() };
        if !synced {
            view.outlook = Outlook::Syncing;
        }
        for provider in &view.providers {
            match provider.link.status() {
                LinkStatus::Connected { stalled: true, .. } => {
                    view.stalled.push(Arc::clone(provider));
                }
                LinkStatus::Connected { .. } => view.ready.push(Arc::clone(provider)),
                // After a failure an attempt is not worth a call's time until it succeeds.
                LinkStatus::Connecting { failures: 0, .. } if view.outlook == Outlook::Bleak => {
                    view.outlook = Outlook::Connecting;
                }
                _ => {}
            }
        }
        view
    }

    /// Whether calls would do the same by it.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let same = |a: &[Arc<Provider>], b: &[Arc<Provider>]| {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        self.outlook == other.outlook
            && same(&self.providers, &other.providers)
            && same(&self.ready, &other.ready)
            && same(&self.stalled, &other.stalled)
    }

    /// Whether a call has anybody to go to, now or soon.
    pub(crate) fn is_hopeful(&self) -> bool {
        !self.ready.is_empty() || !self.stalled.is_empty() || self.outlook != Outlook::Bleak
    }

    /// The provider whose turn it is, whether or not it has a slot.
    pub(crate) fn turn(&self, balance: &RoundRobin) -> Option<&Arc<Provider>> {
        balance.turn().order(self.ready.len()).next().and_then(|index| self.ready.get(index))
    }

    /// Picks the next provider that is connected, has a free slot and is not among `tried`.
    pub(crate) fn pick(&self, balance: &RoundRobin, tried: &[NodeId]) -> Result<Picked, Missed> {
        let mut seen = Seen::default();
        let turn = if tried.is_empty() { balance.turn() } else { balance.go_on() };
        let ready = turn.order(self.ready.len()).filter_map(|index| self.ready.get(index));
        for provider in ready {
            if let Some(picked) = take(provider, Link::try_acquire, tried, &mut seen) {
                return Ok(picked);
            }
        }
        // One that is full will have a slot before a silent one answers.
        if seen.full {
            return Err(Missed::Full);
        }
        let stalled = turn.order(self.stalled.len()).filter_map(|index| self.stalled.get(index));
        // A ready one may have fallen silent since the view was made.
        for provider in stalled.chain(&self.ready) {
            if let Some(picked) = take(provider, Link::try_acquire_stalled, tried, &mut seen) {
                return Ok(picked);
            }
        }
        Err(seen.missed(self.outlook))
    }
}

/// Picks the one provider a client is pinned to.
pub(crate) fn pick_pinned(provider: &Arc<Provider>, tried: &[NodeId]) -> Result<Picked, Missed> {
    let mut seen = Seen::default();
    if let Some(picked) = take(provider, Link::try_acquire, tried, &mut seen) {
        return Ok(picked);
    }
    if seen.full {
        return Err(Missed::Full);
    }
    if let Some(picked) = take(provider, Link::try_acquire_stalled, tried, &mut seen) {
        return Ok(picked);
    }
    // The link itself was asked just now, so it also knows whether what was lost comes back.
    let outlook = match provider.link.status() {
        LinkStatus::Connecting { failures: 0, .. } | LinkStatus::Connected { .. } => {
            Outlook::Connecting
        }
        _ => Outlook::Bleak,
    };
    Err(Seen { lost: false, ..seen }.missed(outlook))
}

fn take(
    provider: &Arc<Provider>,
    acquire: fn(&Link) -> Result<Slot, Unavailable>,
    tried: &[NodeId],
    seen: &mut Seen,
) -> Option<Picked> {
    if tried.contains(provider.node_id()) {
        seen.tried = true;
        return None;
    }
    match acquire(&provider.link) {
        Ok(slot) => return Some(provider.picked(slot)),
        Err(Unavailable::Full) => seen.full = true,
        Err(Unavailable::NotConnected) => seen.lost = true,
        Err(_) => {}
    }
    None
}

/// What was met on the way through a view.
#[derive(Debug, Default)]
struct Seen {
    full: bool,
    lost: bool,
    tried: bool,
}

impl Seen {
    fn missed(&self, outlook: Outlook) -> Missed {
        if self.full {
            Missed::FullAndSilent
        } else if self.tried {
            Missed::Tried
        } else if self.lost || outlook != Outlook::Bleak {
            // A connection lost since the view was made: the next view says whether a successor is on its way.
            Missed::Pending
        } else {
            Missed::Bleak
        }
    }
}
