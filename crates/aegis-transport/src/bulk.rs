use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::connection::Connection;

/// Counts what a stream moves in one direction, and marks its connection while that is much.
#[derive(Debug)]
pub(crate) struct Meter {
    connection: Arc<Connection>,
    since: Option<Instant>,
    bytes: u64,
    mark: Option<Mark>,
}

impl Meter {
    pub(crate) fn new(connection: &Arc<Connection>) -> Self {
        Self { connection: Arc::clone(connection), since: None, bytes: 0, mark: None }
    }

    /// Reads the clock only at the start of each stretch and at its end, not per frame.
    pub(crate) fn moved(&mut self, bytes: usize) {
        if self.mark.is_some() {
            return;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        self.bytes += bytes as u64;
        if self.connection.bulk_from() < self.bytes {
            if since.elapsed() <= Duration::from_secs(1) {
                self.mark = Some(Mark::new(&self.connection));
            }
            self.since = None;
            self.bytes = 0;
        }
    }
}

/// As long as it lives, its connection carries a stream that moves much.
#[derive(Debug)]
struct Mark(Arc<Connection>);

impl Mark {
    fn new(connection: &Arc<Connection>) -> Self {
        connection.bulk_began();
        Self(Arc::clone(connection))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        self.0.bulk_ended();
    }
}
