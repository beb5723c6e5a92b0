use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::http2::connection::Connection;

/// Counts what a stream moves in one direction, and marks its connection while that is much.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    since: Option<Instant>,
    bytes: u64,
    mark: Option<Mark>,
}

impl Meter {
    /// The clock is not read for streams that stay small, and for others at the ends of each stretch only.
    pub(crate) fn moved(&mut self, bytes: usize, connection: &Arc<Connection>) {
        if self.mark.is_some() {
            return;
        }
        self.bytes += bytes as u64;
        let much = connection.bulk_from();
        if self.bytes <= much / 8 {
            return;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if much < self.bytes {
            if since.elapsed() <= Duration::from_secs(1) {
                self.mark = Some(Mark::new(connection));
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
