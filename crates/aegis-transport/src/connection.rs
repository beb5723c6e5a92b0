use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use aegis_core::{Address, NodeId};
use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use h2::client::SendRequest;
use http::uri::Authority;
use tokio::sync::Notify;

use crate::greeting::HeaderList;
use crate::head::longest;
use crate::lease::Lease;
use crate::settings::Settings;
use crate::signals::{Counters, Signals};

/// What calls, driver and keeper share of one connection.
///
/// The driver owns the HTTP/2 state and writes most of this; a call only reads, takes a slot and clones the sender.
pub(crate) struct Connection {
    pub(crate) node: NodeId,
    pub(crate) address: Address,
    pub(crate) authority: Authority,
    /// The longest header list that is sent.
    pub(crate) longest_head: usize,
    pub(crate) signals: Arc<Signals>,
    sender: ArcSwapOption<SendRequest<Bytes>>,
    driver: AtomicWaker,
    phase: AtomicU8,
    stalled: AtomicBool,
    stalls: Notify,
    worn: AtomicBool,
    sent_away: AtomicBool,
    limit: AtomicUsize,
    in_flight: AtomicUsize,
    bulk: AtomicUsize,
    opened: AtomicU64,
    cancelled: AtomicU64,
    streams: usize,
    bulk_from: u64,
    worn_from: u64,
    lost: OnceLock<Arc<str>>,
}

/// Where a connection is in its life; it never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// May be picked.
    Open,
    /// The streams it has go on, no new ones come.
    Leaving,
    /// Nobody uses it any more: the driver says goodbye.
    Closing,
    /// Gone.
    Ended,
}

impl Connection {
    pub(crate) fn new(
        node: NodeId,
        address: Address,
        sender: SendRequest<Bytes>,
        header_list: &HeaderList,
        settings: &Settings,
        signals: Arc<Signals>,
    ) -> Self {
        let streams = settings.most_streams();
        let limit = sender.current_max_send_streams().min(streams);
        Self {
            authority: authority(&node),
            longest_head: longest(header_list.get()),
            node,
            address,
            signals,
            sender: ArcSwapOption::from_pointee(sender),
            driver: AtomicWaker::new(),
            phase: AtomicU8::new(Phase::Open as u8),
            stalled: AtomicBool::new(false),
            stalls: Notify::new(),
            worn: AtomicBool::new(false),
            sent_away: AtomicBool::new(false),
            limit: AtomicUsize::new(limit),
            in_flight: AtomicUsize::new(0),
            bulk: AtomicUsize::new(0),
            opened: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            streams,
            bulk_from: settings.bulk,
            worn_from: settings.cancelled,
            lost: OnceLock::new(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Open,
            1 => Phase::Leaving,
            2 => Phase::Closing,
            _ => Phase::Ended,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase() == Phase::Open
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::SeqCst)
    }

    /// Tells those who hold a [`Pulse`](crate::Pulse) that it has stalled.
    pub(crate) fn stalls(&self) -> &Notify {
        &self.stalls
    }

    /// Should be replaced: too many streams were cancelled, or it leads to an earlier run of the node.
    pub(crate) fn is_worn(&self) -> bool {
        self.worn.load(Ordering::Acquire)
    }

    /// Makes the keeper, which has to be woken, replace it.
    pub(crate) fn wear(&self) {
        self.worn.store(true, Ordering::Release);
    }

    /// Carries a stream that moves much: small calls are better off elsewhere.
    pub(crate) fn is_bulk(&self) -> bool {
        0 < self.bulk.load(Ordering::Relaxed)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit.load(Ordering::SeqCst)
    }

    /// Whether it is at three quarters of what it can carry.
    pub(crate) fn is_crowded(&self) -> bool {
        is_crowded(self.in_flight(), self.limit())
    }

    /// How many streams it has ever been given.
    pub(crate) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Takes one of its slots, if it may be picked and has one.
    pub(crate) fn lease(self: &Arc<Self>) -> Option<Lease> {
        let limit = self.limit();
        let take = |in_flight| (in_flight < limit).then_some(in_flight + 1);
        let before = self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).ok()?;
        let lease = Lease::taken(Arc::clone(self));
        // Asked after the slot was taken: whoever ends the phase looks at the slots after that.
        if !self.is_open() {
            return None;
        }
        self.opened.fetch_add(1, Ordering::Relaxed);
        if is_crowded(before + 1, limit) && !is_crowded(before, limit) {
            self.signals.wake_keeper();
        }
        Some(lease)
    }

    /// A handle to open one stream; `None` once that would be refused.
    pub(crate) fn sender(&self) -> Option<SendRequest<Bytes>> {
        if self.is_open() { self.sender.load().as_deref().cloned() } else { None }
    }

    /// Keeps new streams away.
    pub(crate) fn leave(&self) {
        self.advance(Phase::Leaving);
    }

    /// The peer's GOAWAY came.
    pub(crate) fn send_away(&self) {
        self.sent_away.store(true, Ordering::SeqCst);
        self.leave();
    }

    /// Whether the peer ended it in order.
    pub(crate) fn was_sent_away(&self) -> bool {
        self.sent_away.load(Ordering::SeqCst)
    }

    /// Lets the driver say goodbye; only once nothing is in flight.
    pub(crate) fn close(&self) {
        self.advance(Phase::Closing);
        self.sender.store(None);
        self.driver.wake();
    }

    /// The driver is gone, and why.
    pub(crate) fn end(&self, reason: impl FnOnce() -> String) {
        self.lost.get_or_init(|| reason().into());
        self.advance(Phase::Ended);
        self.sender.store(None);
    }

    /// Why it was lost, once that is known.
    pub(crate) fn lost(&self) -> Option<Arc<str>> {
        self.lost.get().cloned()
    }

    fn advance(&self, phase: Phase) {
        if self.phase.fetch_max(phase as u8, Ordering::SeqCst) < phase as u8 {
            self.signals.wake_keeper();
            self.signals.changed();
        }
    }

    pub(crate) fn register_driver(&self, waker: &Waker) {
        self.driver.register(waker);
    }

    /// How many streams the peer allows now.
    pub(crate) fn set_peer_limit(self: &Arc<Self>, allowed: usize) {
        let limit = allowed.min(self.streams);
        if self.limit() != limit {
            self.limit.store(limit, Ordering::SeqCst);
            self.serve();
            self.signals.wake_keeper();
            self.signals.changed();
        }
    }

    pub(crate) fn set_stalled(self: &Arc<Self>, stalled: bool) {
        if self.stalled.swap(stalled, Ordering::SeqCst) != stalled {
            if stalled {
                Counters::add(&self.signals.counters.stalls);
                self.stalls.notify_waiters();
            } else {
                self.serve();
            }
            self.signals.wake_keeper();
            self.signals.changed();
        }
    }

    /// From how many bytes within a second a stream moves much.
    pub(crate) fn bulk_from(&self) -> u64 {
        self.bulk_from
    }

    pub(crate) fn bulk_began(&self) {
        if self.bulk.fetch_add(1, Ordering::Relaxed) == 0 {
            self.signals.wake_keeper();
        }
    }

    pub(crate) fn bulk_ended(&self) {
        self.bulk.fetch_sub(1, Ordering::Relaxed);
    }

    /// A slot that was taken is free again.
    pub(crate) fn give_back(self: &Arc<Self>) {
        if self.is_open() && !self.is_stalled() && self.in_flight() <= self.limit() {
            // From hand to hand, so that nobody takes it in between.
            if let Some(waiter) = self.signals.line.next() {
                self.opened.fetch_add(1, Ordering::Relaxed);
                // One who has just left lets it drop, and with that it is here again.
                drop(waiter.send(Lease::taken(Arc::clone(self))));
                return;
            }
        }
        let before = self.in_flight.fetch_sub(1, Ordering::SeqCst);
        if self.limit() <= before {
            // Whoever lined up since we looked has seen no free slot.
            self.serve();
            self.signals.freed();
        }
        if before == 1 && !self.is_open() {
            self.signals.wake_keeper();
        }
    }

    /// Gives free slots to those who wait for one.
    pub(crate) fn serve(self: &Arc<Self>) {
        while !self.signals.line.is_empty() && self.is_open() && !self.is_stalled() {
            let Some(lease) = self.lease() else {
                return;
            };
            if let Some(waiter) = self.signals.line.next() {
                drop(waiter.send(lease));
            }
        }
    }

    pub(crate) fn count_cancelled(&self) {
        Counters::add(&self.signals.counters.cancelled);
        let cancelled = self.cancelled.fetch_add(1, Ordering::Relaxed) + 1;
        if self.worn_from <= cancelled && !self.worn.swap(true, Ordering::AcqRel) {
            self.signals.wake_keeper();
        }
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("node", &self.node)
            .field("address", &self.address)
            .field("phase", &self.phase())
            .field("in_flight", &self.in_flight())
            .field("limit", &self.limit())
            .finish_non_exhaustive()
    }
}

/// What stands in `:authority`; a server name always is one.
fn authority(node: &NodeId) -> Authority {
    let name = node.server_name().parse();
    name.unwrap_or_else(|_| Authority::from_static("node.aegis.invalid"))
}

fn is_crowded(in_flight: usize, limit: usize) -> bool {
    limit.saturating_mul(3) <= in_flight.saturating_mul(4)
}
