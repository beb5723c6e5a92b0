use std::io;
use std::sync::{Arc, OnceLock};

use crate::Refusal;

/// Remembers the alert that a peer sent on an established connection.
///
/// In TLS 1.3 a client has finished its handshake before the server looks at its certificate: the refusal comes with
/// the first read, and HTTP/2 libraries keep only the text of such an error, or none.
#[derive(Debug, Clone, Default)]
pub struct RefusalSlot {
    refusal: Arc<OnceLock<Refusal>>,
}

impl RefusalSlot {
    /// The alert, if one came.
    pub fn get(&self) -> Option<Refusal> {
        self.refusal.get().copied()
    }

    pub(crate) fn remember(&self, error: &io::Error) {
        let error = error.get_ref().and_then(|it| it.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::AlertReceived(alert)) = error {
            // Only the first counts; a peer sends one.
            self.refusal.get_or_init(|| Refusal::new(*alert));
        }
    }
}
