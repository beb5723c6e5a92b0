use std::error::Error;
use std::fmt;
use std::io;

use aegis_core::{Address, Chain, InvalidName, NodeId, ServiceInfo};

/// Why [`NodeBuilder::build`](crate::NodeBuilder::build) made no node.
///
/// Whoever wrote the program, or its configuration, has to act.
///
/// `Debug` prints the text with its causes, as a `main` that returns it shows it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A bind address was given on which others cannot dial, and no other to advertise.
    #[error("{address} is no address that others can dial: name one with advertise_address")]
    Advertise {
        /// The address in question.
        address: Address,
    },
    /// A service is advertised, but nothing in this node serves it.
    #[error(
        "{service} is advertised as served by {grpc_service}, which is not registered on this node"
    )]
    Advertised {
        /// The advertised service.
        service: ServiceInfo,
        /// The gRPC service that is missing.
        grpc_service: String,
    },
    /// The description of the node is too large for the directory.
    #[error("the node does not fit the directory")]
    Description {
        /// The limit that it breaks.
        source: aegis_topology::InvalidDescription,
    },
    /// Two handlers have the same gRPC name.
    ///
    /// A second version needs a proto package of its own; one handler that goes by several names is registered once and
    /// the other names are given by [`advertise`](crate::NodeBuilder::advertise).
    #[error(
        "{grpc_service} is registered twice: give another version a proto package of its own, or register one handler \
         and name it again with advertise"
    )]
    Duplicate {
        /// The gRPC service name.
        grpc_service: String,
    },
    /// Handlers or a probe were given, but no address that the node could be called at.
    #[error(
        "the node has services or a probe, but no address to listen on: name one with address, or leave them out"
    )]
    NoAddress,
    /// A node needs an id.
    #[error("the node has no id: name one with id")]
    NoId,
    /// No source of certificates was named.
    #[error("the node has no certificates: name their source with cert_dir or tls")]
    NoTlsConfig,
    /// A name or address does not follow its grammar.
    #[error("{setting} is not valid")]
    Name {
        /// The builder's method that was given it.
        setting: &'static str,
        /// What is wrong.
        source: InvalidName,
    },
    /// The display name or the zone has control characters or is too long.
    #[error("name or zone is not valid")]
    Label {
        /// What is wrong.
        source: aegis_topology::InvalidLabel,
    },
    /// The probe was given the address that the node itself listens on.
    #[error("the probe cannot listen on {address}, since the node does: give it a port of its own")]
    Probe {
        /// The address in question.
        address: Address,
    },
    /// A handler has a gRPC name that this library serves itself.
    #[error("{grpc_service} is reserved: aegis serves it")]
    Reserved {
        /// The gRPC service name.
        grpc_service: String,
    },
    /// Several mistakes at once.
    #[error("{}", Several(.0))]
    Several(Vec<Self>),
    /// A service is advertised without a gRPC service that it consists of.
    #[error("{service} is advertised, but no gRPC service is named that it consists of")]
    Empty {
        /// The advertised service.
        service: ServiceInfo,
    },
    /// The certificates could not be loaded, or are not this node's.
    #[error("cannot use the certificates of this node")]
    Tls {
        /// What is wrong with them.
        source: aegis_tls::LoadError,
    },
}

impl fmt::Debug for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Chain::new(self), f)
    }
}

impl BuildError {
    /// All mistakes, one after another.
    pub fn mistakes(&self) -> impl Iterator<Item = &Self> {
        match self {
            Self::Several(mistakes) => mistakes.iter(),
            one => std::slice::from_ref(one).iter(),
        }
    }

    pub(crate) fn collect(mut mistakes: Vec<Self>) -> Option<Self> {
        if 1 < mistakes.len() { Some(Self::Several(mistakes)) } else { mistakes.pop() }
    }
}

/// A list of errors, each with its causes.
struct Several<'a>(&'a [BuildError]);

impl fmt::Display for Several<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} mistakes", self.0.len())?;
        for mistake in self.0 {
            write!(f, "; {}", Chain::new(mistake))?;
        }
        Ok(())
    }
}

/// Why [`Node::start`](crate::Node::start) did not begin to listen; nothing is left running.
///
/// `Debug` prints the text with its causes, as a `main` that returns it shows it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The node listens already, or has: it starts once. The program has to keep the first `Server`, or build another node.
    #[error("node {node} is started already")]
    AlreadyStarted {
        /// The node.
        node: NodeId,
    },
    /// The address, or that of the probe, could not be bound. The operator has to free or change it.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: Address,
        /// What the system said.
        source: io::Error,
    },
    /// The builder was given no address. The program has to name one.
    #[error("node {node} has no address to listen on: name one with address")]
    NoAddress {
        /// The node.
        node: NodeId,
    },
    /// The record of this node could not be made or signed: it is too large for the directory (the program has to
    /// advertise less), or the certificate has run out (the operator has to renew it).
    #[error("cannot publish the record of this node")]
    Publish {
        /// What went wrong; its type is not part of the contract.
        source: Box<dyn Error + Send + Sync>,
    },
}

impl fmt::Debug for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Chain::new(self), f)
    }
}

/// Why a [`Server`](crate::Server) did not end as it should.
///
/// `Debug` prints the text with its causes, as a `main` that returns it shows it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// A second signal came before the node had left the mesh; it ended at once. Whoever sent the signal wanted that.
    #[error("a second signal ended the node before its shutdown was done (calls cut: {calls})")]
    Forced {
        /// How many calls were under way, and ended with `UNAVAILABLE`.
        calls: u64,
    },
    /// The accept loop ended by itself, which is a bug in aegis: please report it.
    #[error("the server stopped by itself")]
    Stopped {
        /// What the runtime says of it; its type is not part of the contract.
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// The signals of the process cannot be watched. The operator has to act.
    #[error("cannot watch for signals")]
    Signal {
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Debug for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Chain::new(self), f)
    }
}
