use std::collections::HashMap;

use tokio::time::{Duration, Instant};

/// One warning per peer, reason and minute.
const EVERY: Duration = Duration::from_secs(60);
/// Peers choose their addresses: a flood of them must not fill memory.
const ENTRIES: usize = 1024;

/// Lets the first of many equal warnings through.
#[derive(Debug, Default)]
pub(crate) struct Muffle(HashMap<(String, &'static str), Instant>);

impl Muffle {
    /// Whether a warning about this peer and reason is due now.
    pub(crate) fn admit(&mut self, peer: &str, reason: &'static str) -> bool {
        let now = Instant::now();
        if ENTRIES <= self.0.len() {
            self.0.retain(|_, last| now.duration_since(*last) < EVERY);
        }
        let key = (peer.to_owned(), reason);
        if self.0.get(&key).is_some_and(|last| now.duration_since(*last) < EVERY)
            || ENTRIES <= self.0.len()
        {
            return false;
        }
        self.0.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_warning_comes_once_per_peer_reason_and_minute() {
        let mut muffle = Muffle::default();
        assert!(muffle.admit("10.0.0.1", "expired"));
        assert!(!muffle.admit("10.0.0.1", "expired"));
        assert!(muffle.admit("10.0.0.1", "untrusted"));
        assert!(muffle.admit("10.0.0.2", "expired"));
        tokio::time::advance(EVERY).await;
        assert!(muffle.admit("10.0.0.1", "expired"));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded() {
        let mut muffle = Muffle::default();
        for peer in 0..10_000 {
            muffle.admit(&peer.to_string(), "expired");
        }
        assert_eq!(muffle.0.len(), ENTRIES);
    }
}
