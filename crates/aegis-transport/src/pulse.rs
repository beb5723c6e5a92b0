use std::fmt;
use std::pin::pin;
use std::sync::Arc;

use crate::http2::connection::Connection;

/// Whether the peer of one connection answers, for a call that would rather go elsewhere than wait for it.
///
/// It keeps neither the connection nor a slot.
#[derive(Clone)]
pub struct Pulse(Arc<Connection>);

impl Pulse {
    pub(crate) fn of(connection: &Arc<Connection>) -> Self {
        Self(Arc::clone(connection))
    }

    /// Whether a PING has been unanswered for too long, and no byte has come since.
    pub fn is_stalled(&self) -> bool {
        self.0.is_stalled()
    }

    /// Waits until the peer has not answered a PING in time; for ever where it answers, or the connection ends.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn stalled(&self) {
        let mut stall = pin!(self.0.stalls().notified());
        loop {
            stall.as_mut().enable();
            if self.is_stalled() {
                return;
            }
            stall.as_mut().await;
            stall.set(self.0.stalls().notified());
        }
    }
}

impl fmt::Debug for Pulse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pulse").field("stalled", &self.is_stalled()).finish_non_exhaustive()
    }
}
