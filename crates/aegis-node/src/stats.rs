use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of a server since its start.
///
/// They only grow, but for [`connections`](Self::connections).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// Connections open now.
    pub connections: u64,
    /// Connections that finished their handshake.
    pub accepted: u64,
    /// Handshakes that were refused, broke off or took too long, and peers that sent no HTTP/2 after theirs.
    pub refused: u64,
    /// Silent handshakes closed to make room for others, or because the process had no descriptor left.
    pub evicted: u64,
    /// Connections closed because the server or their identity had too many.
    pub over_limit: u64,
    /// Calls received, those included that no handler got to see.
    pub calls: u64,
    /// Calls that got a task of their own; the others were answered on the task of their connection, which only a service
    /// that answers within microseconds gets.
    pub tasks: u64,
    /// Calls that the server ended with `UNAVAILABLE`: the time to drain, or the grace of an old connection, was over.
    pub terminated: u64,
    /// Client certificates read: one for each handshake that came to it, refused ones among them, and none for a call.
    pub certificates_parsed: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Counters {
    open: AtomicU64,
    pub(crate) accepted: Counter,
    pub(crate) refused: Counter,
    pub(crate) evicted: Counter,
    pub(crate) over_limit: Counter,
    pub(crate) calls: Counter,
    pub(crate) tasks: Counter,
    pub(crate) terminated: Counter,
}

impl Counters {
    pub(crate) fn read(&self, certificates_parsed: u64) -> ServerStats {
        ServerStats {
            connections: self.open.load(Ordering::Relaxed),
            accepted: self.accepted.get(),
            refused: self.refused.get(),
            evicted: self.evicted.get(),
            over_limit: self.over_limit.get(),
            calls: self.calls.get(),
            tasks: self.tasks.get(),
            terminated: self.terminated.get(),
            certificates_parsed,
        }
    }

    /// Counts a connection for as long as the guard lives.
    pub(crate) fn open(self: &Arc<Self>) -> Open {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.accepted.add(1);
        Open(Arc::clone(self))
    }
}

pub(crate) struct Open(Arc<Counters>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
