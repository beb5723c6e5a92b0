use std::time::Duration;

/// What a server grants its peers, and what it keeps for itself: bounds on memory, time and connections.
///
/// The defaults are safe on an open port and wide enough for thousands of callers.
///
/// ```
/// use aegis_node::Limits;
///
/// let limits = Limits::default().max_message_bytes(16 << 20);
/// # let _ = limits;
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Limits {
    pub(crate) connections: usize,
    pub(crate) connections_per_identity: usize,
    pub(crate) handshakes: usize,
    pub(crate) handshake_timeout: Duration,
    pub(crate) streams: u32,
    pub(crate) stream_window: u32,
    pub(crate) header_list_bytes: u32,
    pub(crate) message_bytes: usize,
    pub(crate) keepalive_interval: Duration,
    pub(crate) keepalive_timeout: Duration,
    pub(crate) max_age: Duration,
    pub(crate) max_age_grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            connections_per_identity: 16,
            handshakes: 256,
            handshake_timeout: Duration::from_secs(5),
            streams: 256,
            stream_window: 128 * 1024,
            header_list_bytes: 16 * 1024,
            message_bytes: 4 << 20,
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            max_age: Duration::from_secs(60 * 60),
            max_age_grace: Duration::from_secs(5 * 60),
        }
    }
}

impl Limits {
    /// Connections in all (default 8,192); a further one is closed after its handshake, and counted in
    /// [`ServerStats::over_limit`](crate::ServerStats::over_limit).
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Connections of one node id (default 16); a further one is closed after its handshake, too.
    pub fn max_connections_per_identity(mut self, connections: usize) -> Self {
        self.connections_per_identity = connections;
        self
    }

    /// Handshakes under way at once (default 256).
    ///
    /// Beyond, the oldest whose peer has been silent for half a second is closed for each that comes;
    /// while none is silent, accepting slows down to ten a second until one ends.
    pub fn max_handshakes(mut self, handshakes: usize) -> Self {
        self.handshakes = handshakes;
        self
    }

    /// The time a peer has for its TLS handshake, and again for its HTTP/2 preface (default 5 s).
    pub fn handshake_timeout(mut self, timeout: Duration) -> Self {
        self.handshake_timeout = timeout;
        self
    }

    /// Calls at once on one connection (default 256; at least 1), announced as `MAX_CONCURRENT_STREAMS`.
    pub fn max_streams(mut self, streams: u32) -> Self {
        self.streams = streams.max(1);
        self
    }

    /// Bytes of one request body that may wait unread (default 128 KiB; taken into the range of RFC 9113 §6.9.1, 65,535 to 2³¹ - 1).
    ///
    /// The connection's window is this times [`max_streams`](Self::max_streams), so that a stream which nobody reads stops no other.
    pub fn stream_window_bytes(mut self, bytes: u32) -> Self {
        // RFC 9113 §6.9.1: at most 2^31 - 1; the initial window of a connection cannot be made smaller than 65,535.
        self.stream_window = bytes.clamp(65_535, (1 << 31) - 1);
        self
    }

    /// Bytes of all header fields of a request (default 16 KiB); head and trailers of an answer keep to it too, and to what the caller's SETTINGS allow.
    pub fn max_header_list_bytes(mut self, bytes: u32) -> Self {
        self.header_list_bytes = bytes;
        self
    }

    /// Bytes of one message, received or sent (default 4 MiB); a longer one ends its call with `RESOURCE_EXHAUSTED`.
    ///
    /// A smaller limit set on a handler still holds.
    /// For requests above 4 MiB raise the handler's `max_decoding_message_size` as well.
    pub fn max_message_bytes(mut self, bytes: usize) -> Self {
        self.message_bytes = bytes;
        self
    }

    /// A connection that was silent for `interval` is asked for a sign of life and closed when none came within `timeout` (default 30 s and 10 s).
    pub fn keepalive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.keepalive_interval = interval;
        self.keepalive_timeout = timeout;
        self
    }

    /// The age at which a connection is replaced, ± 10 % (default 1 h), and the time its calls then have to end (default 5 min).
    ///
    /// The client opens its successor first; no call is lost.
    /// Calls that outlive the grace end with `UNAVAILABLE`, and the connection with them a second later.
    pub fn max_connection_age(mut self, age: Duration, grace: Duration) -> Self {
        self.max_age = age;
        self.max_age_grace = grace;
        self
    }

    /// RFC 9113 §6.9.1 bounds a window.
    pub(crate) fn connection_window(&self) -> u32 {
        self.streams.saturating_mul(self.stream_window).min((1 << 31) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = include_str!("limits.rs");

    /// What the documentation of a setter says of its default is what `Default` has.
    #[track_caller]
    fn check<T: Copy + PartialEq + std::fmt::Debug>(setter: &str, text: &str, default: T, said: T) {
        let (before, _) = SOURCE.split_once(&format!("pub fn {setter}(")).expect("a setter");
        let (_, docs) = before.rsplit_once("\n\n").expect("an item before");
        assert!(docs.contains(&format!("default {text}")), "{setter}: {docs}");
        assert_eq!(default, said, "{setter}");
    }

    #[test]
    fn each_setter_documents_its_default() {
        let limits = Limits::default();
        let seconds = Duration::from_secs;
        check("max_connections", "8,192", limits.connections, 8_192);
        check("max_connections_per_identity", "16", limits.connections_per_identity, 16);
        check("max_handshakes", "256", limits.handshakes, 256);
        check("handshake_timeout", "5 s", limits.handshake_timeout, seconds(5));
        check("max_streams", "256", limits.streams, 256);
        check("stream_window_bytes", "128 KiB", limits.stream_window, 128 << 10);
        check("max_header_list_bytes", "16 KiB", limits.header_list_bytes, 16 << 10);
        check("max_message_bytes", "4 MiB", limits.message_bytes, 4 << 20);
        let keepalive = (limits.keepalive_interval, limits.keepalive_timeout);
        check("keepalive", "30 s and 10 s", keepalive, (seconds(30), seconds(10)));
        check("max_connection_age", "1 h", limits.max_age, seconds(3_600));
        check("max_connection_age", "5 min", limits.max_age_grace, seconds(300));
    }
}
