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
    /// Connections in all (default 8,192); a further one is closed after its handshake.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Connections of one node id (default 16).
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

    /// Calls at once on one connection (default 256), announced as `MAX_CONCURRENT_STREAMS`.
    pub fn max_streams(mut self, streams: u32) -> Self {
        self.streams = streams.max(1);
        self
    }

    /// Bytes of one request body that may wait unread (default 128 KiB).
    ///
    /// The connection's window is this times [`max_streams`](Self::max_streams), so that a stream which nobody reads stops no other.
    pub fn stream_window_bytes(mut self, bytes: u32) -> Self {
        // RFC 9113 §6.9.1: at most 2^31 - 1; the initial window of a connection cannot be made smaller than 65,535.
        self.stream_window = bytes.clamp(65_535, (1 << 31) - 1);
        self
    }

    /// Bytes of all header fields of a request (default 16 KiB); the trailers of an answer keep to it too.
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
