use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::{Address, Chain, NodeId};
use aegis_tls::{ConnectError, Refusal};

/// Why a node could not be connected.
///
/// The text names the address; the chain of sources says the rest, and what to do about it. The operator has to act, of this
/// node or of the other, unless a variant says otherwise; the dial is tried again all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The connections were closed, by [`Connections::close`](crate::Connections::close) or by dropping them.
    #[error("the connections of this process are closed")]
    Closed,
    /// The connection ended before the peer's HTTP/2 SETTINGS came, without a TLS alert; the peer's own log may say why.
    #[error("{address} set up no HTTP/2 connection")]
    Http2 {
        /// Where we dialled.
        address: Address,
        /// What was wrong; its type is not part of the contract.
        source: Box<dyn Error + Send + Sync>,
    },
    /// No address of the node is known.
    #[error("no address of the node is known")]
    NoAddress,
    /// Something listens at the address, but the TLS handshake did not finish in time.
    #[error("{address} did not finish the TLS handshake within {limit:?}")]
    NoHandshake {
        /// Where we dialled.
        address: Address,
        /// How long we waited.
        limit: Duration,
    },
    /// TLS was set up, but the peer's SETTINGS, which show that it accepted us, did not come in time.
    #[error("{address} did not answer in HTTP/2 within {limit:?}")]
    NoSettings {
        /// Where we dialled.
        address: Address,
        /// How long we waited.
        limit: Duration,
    },
    /// The address leads to this process itself; whoever listed it as a seed may leave it there.
    #[error("{address} is this node itself")]
    OwnNode {
        /// Where we dialled.
        address: Address,
    },
    /// The peer refused us in the TLS handshake; the operator has to mend one of the two certificates.
    #[error("{address} refused our certificate: {refusal}")]
    Refused {
        /// Where we dialled.
        address: Address,
        /// What the peer said, and what to do.
        refusal: Refusal,
    },
    /// The node takes connections and ends each as soon as it is made; its own log may say why.
    #[error("{address} ends each connection as soon as it is made: {reason}")]
    ShortLived {
        /// Where we dialled.
        address: Address,
        /// How the last one ended.
        reason: Arc<str>,
    },
    /// We ended the TLS handshake, or it broke.
    #[error("no secure connection to {address}")]
    Tls {
        /// Where we dialled.
        address: Address,
        /// What was wrong with the peer, and what to do.
        source: ConnectError,
    },
    /// Nothing answered at the address; the operator has to look at the process and at the network.
    #[error("cannot reach {address}")]
    Unreachable {
        /// Where we dialled.
        address: Address,
        /// What the network said.
        source: io::Error,
    },
    /// Another node listens at the address: it was recycled, or the directory is behind.
    #[error("{address} is {found} by its certificate, not {expected}")]
    WrongNode {
        /// Where we dialled.
        address: Address,
        /// Who should be there.
        expected: NodeId,
        /// Who is there.
        found: NodeId,
    },
}

impl DialError {
    /// How much it tells: of several addresses the one that tells most is reported.
    pub(crate) fn weight(&self) -> u8 {
        match self {
            Self::NoAddress => 0,
            Self::Unreachable { .. } => 1,
            Self::NoHandshake { .. } | Self::NoSettings { .. } => 2,
            _ => 3,
        }
    }

    /// The error with its causes, as one line for a log or a status.
    pub(crate) fn chain(&self) -> String {
        Chain::new(self).to_string()
    }
}

/// Why a link gives no slot now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The connections were closed; the caller made a call after that.
    #[error("the connections are closed")]
    Closed,
    /// Each connection carries as many streams as the peer allows; one that ends makes room.
    #[error("every stream that the node allows is in use")]
    Full,
    /// No connection is up; [`Link::status`](crate::Link::status) says why.
    #[error("the node is not connected")]
    NotConnected,
    /// The node has not answered a PING in time: only where there is no other node, see [`Link::try_acquire_stalled`](crate::Link::try_acquire_stalled).
    #[error("the node does not answer")]
    Stalled,
}
