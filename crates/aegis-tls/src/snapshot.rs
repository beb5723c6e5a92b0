use std::fmt;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::sign::CertifiedKey;

use crate::clock::Clock;
use crate::leaf::Leaf;
use crate::verify::ChainVerifier;

/// Own certificate, key and trusted CAs as one immutable state; a handshake uses exactly one.
pub(crate) struct Snapshot {
    pub(crate) leaf: Leaf,
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) verifier: Arc<ChainVerifier>,
    #[cfg(feature = "client")]
    pub(crate) client: rustls::ClientConfig,
    #[cfg(feature = "server")]
    pub(crate) server: crate::accept::ServerTemplate,
}

impl Snapshot {
    #[cfg_attr(
        not(feature = "client"),
        expect(clippy::unnecessary_wraps, reason = "only a client's configuration can fail")
    )]
    pub(crate) fn new(
        leaf: Leaf,
        certified: Arc<CertifiedKey>,
        verifier: Arc<ChainVerifier>,
        provider: &Arc<CryptoProvider>,
        clock: &Clock,
    ) -> Result<Self, rustls::Error> {
        #[cfg(not(any(feature = "client", feature = "server")))]
        let _ = (provider, clock);
        Ok(Self {
            #[cfg(feature = "client")]
            client: crate::connect::client_config(provider, clock, &certified, &verifier)?,
            #[cfg(feature = "server")]
            server: crate::accept::ServerTemplate::new(provider, clock, &certified),
            leaf,
            certified,
            verifier,
        })
    }
}

// By hand: the key is in here.
impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("leaf", &self.leaf).finish_non_exhaustive()
    }
}

/// The cryptography of a mesh, never the process-wide default: TLS 1.3 suites and, first, the
/// post-quantum hybrid group.
pub(crate) fn provider() -> CryptoProvider {
    use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
    CryptoProvider {
        kx_groups: vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1],
        ..aws_lc_rs::default_provider()
    }
}
