use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use aegis_core::SpiffeId;
use arc_swap::ArcSwap;

use crate::NoCertificate;
use crate::clock::Clock;
use crate::snapshot::Snapshot;

/// A node's TLS state: its certificate and key, and the CAs it trusts. A clone shares the state.
///
/// Made by [`TlsOptions::load`](crate::TlsOptions::load). Connections are TLS 1.3 (RFC 8446) with HTTP/2 (ALPN `h2`,
/// RFC 7301), authenticated in both directions, and never resumed.
#[cfg_attr(
    all(feature = "client", feature = "server"),
    doc = r#"
```
use aegis_tls::{ConnectError, Expected};

# #[tokio::main(flavor = "current_thread")]
# async fn main() -> Result<(), Box<dyn std::error::Error>> {
# let ca = aegis_testing::TestCa::new();
# let (morpheus, vicky) = (ca.tls("morpheus-1", "identity-server"), ca.tls("vicky-1", "gateway"));
// Any byte stream will do; here, a pipe.
let (near, far) = tokio::io::duplex(64 * 1024);
let expected = "morpheus-1".parse()?;
let (connected, accepted) =
    tokio::join!(vicky.connect(Expected::Node(&expected), near), morpheus.accept(far));
assert_eq!(connected?.peer.node_id(), "morpheus-1");
assert_eq!(accepted?.caller.node_id(), "vicky-1");

// Whoever else answers is found out within the handshake.
let (near, far) = tokio::io::duplex(64 * 1024);
let expected = "morpheus-2".parse()?;
let (connected, accepted) =
    tokio::join!(vicky.connect(Expected::Node(&expected), near), morpheus.accept(far));
assert!(matches!(connected, Err(ConnectError::WrongNode { found, .. }) if found == "morpheus-1"));
assert!(accepted.is_err());
# Ok(())
# }
```"#
)]
#[derive(Clone)]
pub struct Tls {
    inner: Arc<Inner>,
}

struct Inner {
    snapshot: ArcSwap<Snapshot>,
    clock: Clock,
    parsed: AtomicU64,
}

impl Tls {
    pub(crate) fn new(snapshot: Snapshot, clock: Clock) -> Self {
        let snapshot = ArcSwap::from_pointee(snapshot);
        Self { inner: Arc::new(Inner { snapshot, clock, parsed: AtomicU64::new(0) }) }
    }

    /// Whom the own certificate names.
    pub fn spiffe_id(&self) -> SpiffeId {
        self.snapshot().leaf.spiffe_id.clone()
    }

    /// When the own certificate ends.
    pub fn not_after(&self) -> SystemTime {
        self.snapshot().leaf.not_after
    }

    /// Whether the own certificate is within its dates at this moment. Costs two comparisons.
    ///
    /// # Errors
    /// [`NoCertificate`]: every peer would refuse us. The operator has to act.
    pub fn check_usable(&self) -> Result<(), NoCertificate> {
        let snapshot = self.snapshot();
        let now = self.now();
        snapshot.leaf.check_dates(now).map_err(|_| NoCertificate {
            identity: snapshot.leaf.spiffe_id.clone(),
            not_before: snapshot.leaf.not_before,
            not_after: snapshot.leaf.not_after,
            now,
        })
    }

    /// How many handshakes so far had the certificate of a client parsed, refused ones among them; no call parses any.
    ///
    /// While no client's certificate is refused this is the number of accepted connections.
    pub fn parsed_certificates(&self) -> u64 {
        self.inner.parsed.load(Ordering::Relaxed)
    }

    #[cfg(feature = "server")]
    pub(crate) fn count_parsed(&self) {
        self.inner.parsed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.inner.snapshot.load_full()
    }

    /// What time it is for this identity: the system's clock, or the one of [`TlsOptions::clock`](crate::TlsOptions::clock).
    pub fn now(&self) -> SystemTime {
        self.inner.clock.now()
    }
}

// By hand: the key is in here.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("identity", &self.spiffe_id()).finish_non_exhaustive()
    }
}
