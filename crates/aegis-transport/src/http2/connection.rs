use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use aegis_core::{Address, NodeId};
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use h2::SendStream;
use h2::client::{ResponseFuture, SendRequest};
use http::uri::Authority;
use tokio::sync::Notify;

use crate::greeting::HeaderList;
use crate::head::longest;
use crate::lease::Lease;
use crate::rows::{Place, Rows};
use crate::settings::Settings;
use crate::signals::{Counters, Signals};
use crate::slots::{Phase, Slots, State};

/// What calls, driver and keeper share of one connection.
///
/// The driver owns the HTTP/2 state and writes most of this; a call only reads, takes a slot and opens its stream.
pub(crate) struct Connection {
    pub(crate) node: NodeId,
    pub(crate) address: Address,
    pub(crate) authority: Authority,
    /// The longest header list that is sent.
    pub(crate) longest_head: usize,
    pub(crate) signals: Arc<Signals>,
    /// One for all calls, since h2 takes its own lock for each copy that is made or dropped; `None` once it is closing.
    sender: Mutex<Option<SendRequest<Bytes>>>,
    driver: AtomicWaker,
    pub(crate) slots: Place,
    stalls: Notify,
    worn: AtomicBool,
    sent_away: AtomicBool,
    bulk: AtomicUsize,
    cancelled: AtomicU64,
    streams: usize,
    bulk_from: u64,
    window: u32,
    worn_from: u64,
    lost: OnceLock<Arc<str>>,
}

impl Connection {
    pub(crate) fn new(
        node: NodeId,
        address: Address,
        sender: SendRequest<Bytes>,
        header_list: &HeaderList,
        settings: &Settings,
        signals: Arc<Signals>,
        rows: &Rows,
    ) -> Self {
        let streams = settings.most_streams().min(Slots::MOST);
        let limit = sender.current_max_send_streams().min(streams);
        Self {
            authority: authority(&node),
            longest_head: longest(header_list.get()),
            node,
            address,
            signals,
            sender: Mutex::new(Some(sender)),
            driver: AtomicWaker::new(),
            slots: rows.place(limit),
            stalls: Notify::new(),
            worn: AtomicBool::new(false),
            sent_away: AtomicBool::new(false),
            bulk: AtomicUsize::new(0),
            cancelled: AtomicU64::new(0),
            streams,
            bulk_from: settings.bulk,
            window: settings.stream_window,
            worn_from: settings.cancelled,
            lost: OnceLock::new(),
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.slots.state().phase()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.slots.state().is_open()
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.slots.state().is_stalled()
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
        self.slots.state().in_use()
    }

    pub(crate) fn limit(&self) -> usize {
        self.slots.limit()
    }

    /// Whether it is at three quarters of what it can carry.
    pub(crate) fn is_crowded(&self) -> bool {
        is_crowded(self.in_flight(), self.limit())
    }

    /// How many streams it has ever been given; starts over after 2^32.
    pub(crate) fn opened(&self) -> u64 {
        self.slots.state().taken()
    }

    /// Takes one of its slots, if it may be picked and has one.
    pub(crate) fn lease(self: &Arc<Self>) -> Option<Lease> {
        self.take_of(&self.slots, |_| true).then(|| Lease::taken(Arc::clone(self)))
    }

    /// Takes one of its slots, which the caller has at hand, if their state allows it too; whoever took it has to give it back.
    pub(crate) fn take_of(&self, slots: &Slots, may: impl Fn(State) -> bool) -> bool {
        let Some(before) = slots.take(may) else { return false };
        let (before, limit) = (before.in_use(), slots.limit());
        if is_crowded(before + 1, limit) && !is_crowded(before, limit) {
            self.signals.wake_keeper();
        }
        true
    }

    /// Opens a stream; fails without h2's reason where the connection takes no more of them. With a reason, the request is
    /// at fault or was refused for an earlier one, and is not refused for that again.
    pub(crate) fn open(
        &self,
        request: http::Request<()>,
        whole: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), Option<h2::Error>> {
        let mut sender = self.sender();
        let Some(sender) = sender.as_mut().filter(|_| self.is_open()) else { return Err(None) };
        sender.send_request(request, whole).map_err(|error| {
            // It refuses all requests while one of its own waits inside h2, as one does at the peer's limit while the resets
            // of cancelled streams, or a lower limit, are on their way. A copy has none that waits.
            *sender = sender.clone();
            let mut cx = Context::from_waker(Waker::noop());
            let is_usable = !matches!(sender.poll_ready(&mut cx), Poll::Ready(Err(_)));
            is_usable.then_some(error)
        })
    }

    /// A stream was given up. The sender holds on to the last one that had to wait inside h2, for as long as a cancelled one
    /// before it was not reset; and h2 resets no stream that somebody holds.
    pub(crate) fn let_go(&self) {
        if let Some(sender) = &mut *self.sender() {
            *sender = sender.clone();
        }
    }

    fn sender(&self) -> MutexGuard<'_, Option<SendRequest<Bytes>>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.sender().take();
        self.driver.wake();
    }

    /// The driver is gone, and why.
    pub(crate) fn end(&self, reason: impl FnOnce() -> String) {
        self.lost.get_or_init(|| reason().into());
        self.advance(Phase::Ended);
        self.sender().take();
    }

    /// Why it was lost, once that is known.
    pub(crate) fn lost(&self) -> Option<Arc<str>> {
        self.lost.get().cloned()
    }

    fn advance(&self, phase: Phase) {
        if self.slots.advance(phase) {
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
            self.slots.set_limit(limit);
            self.serve();
            self.signals.wake_keeper();
            self.signals.changed();
        }
    }

    pub(crate) fn set_stalled(self: &Arc<Self>, stalled: bool) {
        if self.slots.set_stalled(stalled) {
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

    /// The window of each of its streams, in bytes.
    pub(crate) fn window(&self) -> u32 {
        self.window
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
        self.give_back_to(&self.slots);
    }

    /// The same, to its slots, which the caller has at hand.
    pub(crate) fn give_back_to(self: &Arc<Self>, slots: &Slots) {
        let (state, limit) = (slots.state(), slots.limit());
        // Only at a full one anybody waits, and the line is elsewhere in memory.
        if state.in_use() == limit && state.is_open() && !state.is_stalled() {
            // From hand to hand, so that nobody takes it in between.
            if let Some(waiter) = self.signals.line.next() {
                slots.pass_on();
                // One who has just left lets it drop, and with that it is here again.
                drop(waiter.send(Lease::taken(Arc::clone(self))));
                return;
            }
        }
        let before = slots.give_back();
        if slots.limit() <= before.in_use() {
            // Whoever lined up since we looked has seen no free slot.
            self.serve();
            self.signals.freed();
        }
        if before.in_use() == 1 && !before.is_open() {
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
