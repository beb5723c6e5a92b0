use std::error::Error;
use std::fmt;
use std::sync::Arc;

use aegis_core::{Address, Chain, NodeId, Printable};
use aegis_tls::ConnectError;
#[cfg(feature = "server")]
use aegis_tls::SignError;
use aegis_transport::DialError;
use tonic::{Code, Status};

/// Why two directories could not be compared. The own directory is as good as before.
///
/// `Debug` prints the text with its causes, as a `main` that returns it shows it.
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The peer answered with an error, or not at all. Its operator has to act; trying again may help.
    #[error("{node} did not answer the sync: {}: {}", status.code(), Printable::new(status.message()))]
    Call {
        /// The peer.
        node: NodeId,
        /// Its answer.
        status: Status,
    },
    /// Another process that has our identity listens at the address; the operator has to stop one, or to rename it.
    #[error("another process with this node id answers at {address}")]
    Duplicate {
        /// The address.
        address: Address,
    },
    /// The peer answered something that means nothing; its developer has to act.
    #[error("{node} answered the sync with a message that cannot be used")]
    Message {
        /// The peer.
        node: NodeId,
        /// What is wrong with it; its type is not part of the contract.
        source: Arc<dyn Error + Send + Sync>,
    },
    /// The address leads to this process itself. Nobody has to act: a seed may name its own node.
    #[error("{address} is this node itself")]
    OwnNode {
        /// The address.
        address: Address,
    },
    /// The address could not be reached, or refused us. The operator has to act, as `source` says; trying again may help.
    #[error("cannot sync with {address}")]
    Unreachable {
        /// The address.
        address: Address,
        /// Why; its type is not part of the contract.
        source: Arc<dyn Error + Send + Sync>,
    },
}

impl fmt::Debug for SyncError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Chain::new(self), f)
    }
}

impl SyncError {
    /// The error with its causes, for whoever names the address beside it.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Unreachable { source, .. } => Chain::new(&**source).to_string(),
            _ => Chain::new(self).to_string(),
        }
    }

    /// Whether a certificate or a trust domain is in the way, ours or theirs: somebody has to act.
    pub(crate) fn is_about_certificates(&self) -> bool {
        match self {
            // A member says so to a caller of another trust domain, or to one without an identity.
            Self::Call { status, .. } => {
                matches!(status.code(), Code::FailedPrecondition | Code::Unauthenticated)
            }
            Self::Unreachable { source, .. } => match source.downcast_ref() {
                Some(DialError::Refused { .. }) => true,
                Some(DialError::Tls { source, .. }) => matches!(
                    source,
                    ConnectError::NoCertificate(_)
                        | ConnectError::Refused(_)
                        | ConnectError::Untrusted { .. }
                ),
                _ => false,
            },
            _ => false,
        }
    }
}

/// Why a node could not publish its record.
#[cfg(feature = "server")]
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// The own record is larger than peers take: too many services or too long names. The caller has to act.
    #[error("the own record cannot be published")]
    Record {
        /// What is wrong with it.
        source: aegis_topology::Refusal,
    },
    /// The own key signs nothing now; the operator has to act.
    #[error("the own record cannot be signed")]
    Sign {
        /// Why.
        source: SignError,
    },
    /// The member was started before: it starts once. The caller has to act.
    #[error("the member is started already")]
    Started,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_wrote_cannot_disturb_a_terminal() {
        let status = Status::internal(format!("\n\x1b[2J\u{202e}{}", "x".repeat(10_000)));
        let error = SyncError::Call { node: NodeId::from_static("a"), status };
        let text = error.to_string();
        assert!(text.starts_with("a did not answer the sync: "), "{text}");
        assert!(text.contains("\\n\\u{1b}[2J\\u{202e}xxx"), "{text}");
        assert!(text.len() < 400 && !text.contains(char::is_control), "{text}");
    }
}
