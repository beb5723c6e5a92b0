use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::http2::connection::Connection;
use crate::signals::Counters;

/// One of a connection's slots; dropping it frees the slot.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) connection: Arc<Connection>,
    /// A stream was opened and has not ended by itself.
    open: AtomicBool,
}

impl Lease {
    /// Stands for a slot that the connection has counted.
    pub(crate) fn taken(connection: Arc<Connection>) -> Self {
        Self { connection, open: AtomicBool::new(false) }
    }

    pub(crate) fn opened(&self) {
        self.open.store(true, Ordering::Relaxed);
        Counters::add(&self.connection.signals.counters.calls);
    }

    pub(crate) fn done(&self) {
        self.open.store(false, Ordering::Relaxed);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let connection = &self.connection;
        if *self.open.get_mut() {
            connection.let_go();
            connection.count_cancelled();
        }
        connection.give_back();
    }
}
