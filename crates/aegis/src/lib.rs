//! An embedded gRPC service mesh for Rust: a library, no sidecar, no control plane.
//!
//! A process builds a [`Node`]. The node serves its gRPC services over mutual TLS, advertises them in a
//! versioned directory that all nodes share, and calls other nodes' services by name and version.
//! Every call is authenticated in both directions by node identity, and the handler knows its [`Caller`].

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "client")]
#[doc(inline)]
pub use aegis_client::{self as client, RequestExt, ServiceChannel, ServiceClient, ServicePool};
#[doc(inline)]
pub use aegis_core::{
    self as core, Address, InvalidName, NodeId, NodeType, ServiceInfo, ServiceName, ServiceVersion,
    SpiffeId, TrustDomain,
};
#[cfg(feature = "server")]
#[doc(inline)]
pub use aegis_node::{self as node, Limits, Node, NodeBuilder, Server};
#[doc(inline)]
pub use aegis_tls::{self as tls, TlsOptions};
#[cfg(feature = "server")]
#[doc(inline)]
pub use aegis_tls::{Caller, CallerError};
#[cfg(feature = "client")]
#[doc(inline)]
pub use aegis_topology::{self as topology, Directory, Snapshot};

/// The code of the README, compiled with the documentation's tests.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
