use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::time::Instant;
use tokio_util::io::InspectReader;

/// A byte stream of which something is noted as it is read.
pub type Inspected<IO> = InspectReader<IO, Box<dyn FnMut(&[u8]) + Send + Sync>>;

/// When the last byte came from a peer; shared between its stream and whoever judges it.
///
/// Put below TLS, it counts half a record as a sign of life too.
#[derive(Debug, Clone)]
pub struct Heard {
    since: Instant,
    /// Nanoseconds after that.
    last: Arc<AtomicU64>,
}

impl Heard {
    /// The stream, and when it was read last.
    pub fn on<IO: AsyncRead>(io: IO) -> (Inspected<IO>, Self) {
        let heard = Self { since: Instant::now(), last: Arc::default() };
        let noting = heard.clone();
        let note = move |bytes: &[u8]| {
            if !bytes.is_empty() {
                noting.note();
            }
        };
        (InspectReader::new(io, Box::new(note)), heard)
    }

    /// The time of the last byte, or of the connection's begin.
    pub fn last(&self) -> Instant {
        self.since + Duration::from_nanos(self.last.load(Ordering::Relaxed))
    }

    fn note(&self) {
        let elapsed = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last.store(elapsed, Ordering::Relaxed);
    }
}
