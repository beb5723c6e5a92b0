use std::error::Error;
use std::io;

use crate::cause::Cause;
use crate::handshake::Failure;
use crate::{Refusal, Rejection};

/// Why an accepted connection did not become one of an authenticated caller.
///
/// The peer's operator has to act; a server goes on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcceptError {
    /// The connection broke during the handshake.
    #[error("the connection broke during the TLS handshake")]
    Io {
        /// Why.
        source: io::Error,
    },

    /// The client speaks TLS, but not HTTP/2 in it.
    #[error("the client does not speak HTTP/2 (it offered no ALPN h2)")]
    NoAlpn,

    /// The client showed no certificate.
    #[error("the client showed no certificate")]
    NoCertificate,

    /// The client does not speak TLS at all.
    #[error("the client does not speak TLS; does it call in plaintext?")]
    NotTls,

    /// The client speaks an older TLS than 1.3.
    #[error("the client speaks no TLS 1.3, and nothing older is accepted")]
    OldTls,

    /// The client broke a rule of TLS.
    #[error("the TLS handshake failed")]
    Protocol {
        /// Which; its type is not part of the contract.
        source: Box<dyn Error + Send + Sync>,
    },

    /// The client does not accept us.
    #[error("the client refuses us: {0}")]
    Refused(Refusal),

    /// We do not accept the client's certificate.
    #[error("the client's certificate is refused: {reason}")]
    Untrusted {
        /// The broken rule.
        reason: Rejection,
    },
}

impl AcceptError {
    /// A fixed word for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::NoAlpn => "no_alpn",
            Self::NoCertificate => "no_certificate",
            Self::NotTls => "not_tls",
            Self::OldTls => "old_tls",
            Self::Protocol { .. } => "protocol",
            Self::Refused(_) => "refused",
            Self::Untrusted { reason } => reason.reason(),
        }
    }
}

impl From<Cause> for AcceptError {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Failure(Failure::Rejected(reason)) => Self::Untrusted { reason },
            // A server pins nobody.
            Cause::Failure(Failure::WrongNode(_)) => Self::Protocol { source: "wrong node".into() },
            Cause::Io(source) => Self::Io { source },
            Cause::NoAlpn => Self::NoAlpn,
            Cause::NoCertificate => Self::NoCertificate,
            Cause::NotTls => Self::NotTls,
            Cause::OldTls => Self::OldTls,
            Cause::Protocol(source) => Self::Protocol { source },
            Cause::Refused(refusal) => Self::Refused(refusal),
        }
    }
}
