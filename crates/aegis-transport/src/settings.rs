use std::time::Duration;

/// What a connection may use and how patient it is; the defaults, named with each field, suit a mesh of our own nodes.
///
/// ```
/// use std::time::Duration;
///
/// use aegis_transport::Settings;
///
/// let mut settings = Settings::default();
/// settings.dial_limit = Duration::from_secs(2);
/// settings.backoff.limit = Duration::from_secs(30);
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Settings {
    /// For one dial: all addresses, TLS and the peer's HTTP/2 SETTINGS together (5 s).
    pub dial_limit: Duration,
    /// Flow-control window of a stream, in bytes (256 KiB).
    pub stream_window: u32,
    /// Flow-control window of a connection, in bytes (64 MiB): a response that nobody reads must not stop the others.
    pub connection_window: u32,
    /// The longest header list taken from a peer, in bytes (16 KiB).
    pub header_list: u32,
    /// The most streams opened on one connection, whatever the peer allows (1,024); never more than the connection's window
    /// has room for, which is 256 by default.
    pub streams: usize,
    /// The most connections to one node (4).
    pub connections: usize,
    /// What one stream has to move within a second to get small calls a connection of their own, in bytes (1 MiB).
    pub bulk: u64,
    /// Cancelled streams after which a connection is replaced, make before break (100,000).
    pub cancelled: u64,
    /// How long a further connection stays without a stream (60 s).
    pub spare_idle: Duration,
    /// How long a call through [`NodeChannel`](crate::NodeChannel) that has no deadline waits for a stream (10 s).
    pub wait: Duration,
    /// How often a silent peer is asked whether it lives ([`Keepalive::default`]).
    pub keepalive: Keepalive,
    /// When a node that could not be reached is dialled again ([`Backoff::default`]).
    pub backoff: Backoff,
}

/// How often a silent peer is asked whether it lives, by HTTP/2 PING (RFC 9113 §6.7).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Keepalive {
    /// While streams are open: 1 s of silence, 1 s for the answer.
    pub busy: Pace,
    /// Without a stream: 30 s and 10 s.
    pub idle: Pace,
    /// Towards servers that are not aegis: 5 min and 20 s, since they end connections that ask more often.
    pub foreign: Pace,
    /// A connection is closed after this long without a byte (20 s).
    pub dead_after: Duration,
}

/// A PING after `silence`, and so long for its answer.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "two durations are all there is to a pace")]
pub struct Pace {
    /// Without a byte from the peer, until it is asked.
    pub silence: Duration,
    /// Until an unanswered question makes the connection count as stalled.
    pub answer: Duration,
}

/// When a node that could not be reached is dialled again.
///
/// The first ten minutes go by gRPC's `connection-backoff.md`, with its numbers. Then the node is taken for gone.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Backoff {
    /// After the first failure (1 s); each further wait is longer by [`factor`](Self::factor), ± 20 %.
    pub first: Duration,
    /// How much longer each wait is than the one before (1.6).
    pub factor: f64,
    /// The longest wait (2 min).
    pub limit: Duration,
    /// After an established connection broke, the first dial comes within this time, at random (500 ms).
    pub redial: Duration,
    /// A connection that broke sooner than this counts as a failure of the redial (500 ms).
    pub steady: Duration,
    /// After failing for so long (10 min) ..
    pub give_up_after: Duration,
    /// .. a node is dialled only so often (15 min), until its addresses or its record change.
    pub give_up_pace: Duration,
}

impl Settings {
    /// How many streams one connection may carry: were all of them unread, each would still have its window.
    pub(crate) fn most_streams(&self) -> usize {
        let windows = self.connection_window / self.stream_window.max(1);
        self.streams.min(usize::try_from(windows).unwrap_or(usize::MAX)).max(1)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dial_limit: Duration::from_secs(5),
            stream_window: 256 << 10,
            connection_window: 64 << 20,
            header_list: 16 << 10,
            streams: 1_024,
            connections: 4,
            bulk: 1 << 20,
            cancelled: 100_000,
            spare_idle: Duration::from_secs(60),
            wait: Duration::from_secs(10),
            keepalive: Keepalive::default(),
            backoff: Backoff::default(),
        }
    }
}

impl Default for Keepalive {
    fn default() -> Self {
        let pace = |silence, answer| Pace {
            silence: Duration::from_secs(silence),
            answer: Duration::from_secs(answer),
        };
        Self {
            busy: pace(1, 1),
            idle: pace(30, 10),
            foreign: pace(300, 20),
            dead_after: Duration::from_secs(20),
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(1),
            factor: 1.6,
            limit: Duration::from_secs(120),
            redial: Duration::from_millis(500),
            steady: Duration::from_millis(500),
            give_up_after: Duration::from_secs(600),
            give_up_pace: Duration::from_secs(900),
        }
    }
}
