use std::error::Error;
use std::io;

use aegis_core::NodeId;

use crate::cause::Cause;
use crate::handshake::Failure;
use crate::{NoCertificate, Refusal, Rejection};

/// Why a dialled peer could not be connected over TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The connection broke during the handshake. Trying again may help.
    #[error("the connection broke during the TLS handshake")]
    Io {
        /// Why.
        source: io::Error,
    },

    /// The peer speaks TLS, but not HTTP/2 in it. The address is wrong.
    #[error("the peer does not speak HTTP/2 (it chose no ALPN h2)")]
    NoAlpn,

    /// Our own certificate cannot be used now. Our operator has to act.
    #[error(transparent)]
    NoCertificate(#[from] NoCertificate),

    /// The peer does not speak TLS at all. The address is wrong, or it is a plaintext server.
    #[error("the peer does not speak TLS; is it a plaintext server?")]
    NotTls,

    /// The peer speaks an older TLS than 1.3.
    #[error("the peer speaks no TLS 1.3, and nothing older is accepted")]
    OldTls,

    /// The peer broke a rule of TLS.
    #[error("the TLS handshake failed")]
    Protocol {
        /// Which; its type is not part of the contract.
        source: Box<dyn Error + Send + Sync>,
    },

    /// The peer does not accept us. Its operator or ours has to act.
    #[error("the peer refuses us: {0}")]
    Refused(Refusal),

    /// We do not accept the peer's certificate. Whoever issued it, or chose our CA bundle, has to act.
    #[error("the peer's certificate is refused: {reason}")]
    Untrusted {
        /// The broken rule.
        reason: Rejection,
    },

    /// The peer is a good node, but not the one that was dialled: the address belongs to another one now.
    ///
    /// No byte of a request was sent.
    #[error("node {expected} was dialled, but node {found} answered")]
    WrongNode {
        /// The node that was to be reached.
        expected: NodeId,
        /// The node that the certificate names.
        found: NodeId,
    },
}

impl ConnectError {
    /// A fixed word for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::NoAlpn => "no_alpn",
            Self::NoCertificate(_) => "own_certificate",
            Self::NotTls => "not_tls",
            Self::OldTls => "old_tls",
            Self::Protocol { .. } => "protocol",
            Self::Refused(_) => "refused",
            Self::Untrusted { reason } => reason.reason(),
            Self::WrongNode { .. } => "wrong_node",
        }
    }
}

impl From<Cause> for ConnectError {
    fn from(cause: Cause) -> Self {
        match cause {
            Cause::Failure(Failure::Rejected(reason)) => Self::Untrusted { reason },
            Cause::Failure(Failure::WrongNode(nodes)) => {
                let (expected, found) = *nodes;
                Self::WrongNode { expected, found }
            }
            Cause::Io(source) => Self::Io { source },
            Cause::NoAlpn => Self::NoAlpn,
            Cause::NoCertificate => {
                Self::Protocol { source: "the server showed no certificate".into() }
            }
            Cause::NotTls => Self::NotTls,
            Cause::OldTls => Self::OldTls,
            Cause::Protocol(source) => Self::Protocol { source },
            Cause::Refused(refusal) => Self::Refused(refusal),
        }
    }
}
