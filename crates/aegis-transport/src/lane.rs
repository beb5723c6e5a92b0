use std::fmt;
use std::mem::ManuallyDrop;
use std::sync::Arc;

use crate::http2::connection::Connection;
use crate::http2::slot::Slot;
use crate::lease::Lease;
use crate::rows::Seat;
use crate::slots::State;

/// A node's only connection, as whoever picks among many nodes keeps it at hand.
///
/// A slot taken here is the one that [`Link::try_acquire`](crate::Link::try_acquire) would take. That asks the link, the node and its
/// list of connections first, each of which is elsewhere in memory; this asks one cache line.
///
/// It keeps the connection's memory, not the connection.
#[derive(Clone)]
pub struct Lane {
    connection: Arc<Connection>,
    /// The connection's, which says so elsewhere in memory.
    slots: Seat,
}

impl Lane {
    pub(crate) fn on(connection: Arc<Connection>) -> Self {
        Self { slots: connection.slots.seat(), connection }
    }

    /// Takes a slot for one stream; `None` where the connection has none, does not answer, has ended or is not the
    /// node's only one any more: then the link knows what to do.
    pub fn take(&self) -> Option<Taken<'_>> {
        let may = |state: State| state.is_alone() && !state.is_stalled();
        // Made only if one was taken: dropped, it gives one back.
        self.connection.take_of(&self.slots, may).then(|| Taken(self))
    }

    /// Whether both are the same connection.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.connection, &other.connection)
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lane").field(&self.connection.node).finish()
    }
}

/// A slot of a [`Lane`] that was taken; dropping it gives the slot back.
#[must_use = "a slot that is kept without use is one that others lack"]
#[derive(Debug)]
pub struct Taken<'a>(&'a Lane);

impl Taken<'_> {
    /// The slot, for whoever keeps it longer than the lane is at hand.
    pub fn into_slot(self) -> Slot {
        // The slot gives it back from now on.
        let taken = ManuallyDrop::new(self);
        Slot::new(Lease::taken(Arc::clone(&taken.0.connection)))
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.0.connection.give_back_to(&self.0.slots);
    }
}
