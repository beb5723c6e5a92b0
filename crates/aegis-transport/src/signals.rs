use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

use crate::line::Line;

/// What the parts of one node tell each other: the keeper that it has to look, waiters that a pick may succeed now.
#[derive(Debug)]
pub(crate) struct Signals {
    keeper: Notify,
    changed: watch::Sender<()>,
    any_changed: watch::Sender<()>,
    closed: Arc<AtomicBool>,
    /// How often the node has called our PINGs too many: outlives the connections that said so.
    pub(crate) too_many_pings: AtomicU32,
    pub(crate) counters: Counters,
    pub(crate) line: Line,
}

impl Signals {
    pub(crate) fn new(any_changed: watch::Sender<()>, closed: Arc<AtomicBool>) -> Self {
        Self {
            keeper: Notify::new(),
            changed: watch::Sender::new(()),
            any_changed,
            closed,
            too_many_pings: AtomicU32::new(0),
            counters: Counters::default(),
            line: Line::default(),
        }
    }

    pub(crate) fn wake_keeper(&self) {
        self.keeper.notify_one();
    }

    pub(crate) async fn keeper_woken(&self) {
        self.keeper.notified().await;
    }

    /// A pick that failed may succeed now, or the status is another.
    pub(crate) fn changed(&self) {
        self.changed.send_replace(());
        self.any_changed.send_replace(());
    }

    /// A full connection has room again: news for who waits for this node, and nobody else.
    pub(crate) fn freed(&self) {
        self.changed.send_replace(());
    }

    pub(crate) fn changes(&self) -> Changes {
        Changes(self.changed.subscribe())
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

/// Says when a link's status changed or, of one link, that a full connection got room and nobody was in
/// [line](crate::Link::acquire) for it.
///
/// Changes may fold into one, and one may change nothing for you: look, and wait again.
#[derive(Clone)]
pub struct Changes(watch::Receiver<()>);

impl Changes {
    pub(crate) fn new(receiver: watch::Receiver<()>) -> Self {
        Self(receiver)
    }

    /// Waits for a change since the last call, or since this was made; for ever once the connections are dropped.
    ///
    /// # Cancel safety
    ///
    /// A change is never lost: it is reported by the next call.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) dials: AtomicU64,
    pub(crate) dial_failures: AtomicU64,
    pub(crate) connected: AtomicU64,
    pub(crate) go_aways: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) stalls: AtomicU64,
    pub(crate) calls: AtomicU64,
    pub(crate) cancelled: AtomicU64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn read(&self) -> LinkCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LinkCounters {
            dials: read(&self.dials),
            dial_failures: read(&self.dial_failures),
            connected: read(&self.connected),
            go_aways: read(&self.go_aways),
            lost: read(&self.lost),
            stalls: read(&self.stalls),
            calls: read(&self.calls),
            cancelled: read(&self.cancelled),
        }
    }
}

/// What has happened on the connections to one node, as long as anybody held a link to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkCounters {
    /// Dials that were begun.
    pub dials: u64,
    /// Dials that failed.
    pub dial_failures: u64,
    /// Connections that were established.
    pub connected: u64,
    /// Connections that the peer ended with a GOAWAY.
    pub go_aways: u64,
    /// Connections that broke, or were given up as dead.
    pub lost: u64,
    /// Times that a connection stalled.
    pub stalls: u64,
    /// Streams that were opened.
    pub calls: u64,
    /// Streams that were dropped before their end.
    pub cancelled: u64,
}
