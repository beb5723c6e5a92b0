//! The names of an aegis mesh: nodes, services, trust domains and addresses.
//!
//! Every name is parsed once, at the edge, and carries its grammar from then on:
//! a [`NodeId`] is a safe file name, log field and metric label because it cannot exist otherwise.
//!
//! ```
//! use aegis_core::{NodeId, ServiceInfo};
//!
//! const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
//! assert_eq!(IDENTITY_V1.to_string(), "identity/v1");
//!
//! let node: NodeId = "morpheus-1".parse()?;
//! assert!("../morpheus".parse::<NodeId>().is_err());
//! # Ok::<(), aegis_core::InvalidName>(())
//! ```
//!
//! | name | grammar | of whom |
//! |---|---|---|
//! | [`NodeId`] | 1–63 bytes of `[a-z0-9._-]`, begins and ends with a letter or digit, no `..`, no IP address, not `ca` or `localhost` | one process |
//! | [`NodeType`], [`ServiceVersion`] | the same without the reserved words | a kind of node; a service's version |
//! | [`ServiceName`] | one DNS label | a service |
//! | [`TrustDomain`] | SPIFFE id specification §2.1 | the CA of a mesh |
//! | [`Address`] | `host:port`, RFC 1123 names, IPv6 in brackets | where a node listens |
//!
//! [`SpiffeId`] and [`ServiceInfo`] are made of these.
//!
//! # What it does not do
//!
//! It does no I/O and knows nothing of TLS, gRPC or the directory.
//!
//! # Features
//!
//! None. With serde a name is its text and a [`ServiceInfo`] a map of two; both are checked when they are read.
//!
//! # Stability
//!
//! Before 1.0 any release may change the API; a grammar that is made narrower is such a change. The minimum Rust version is
//! 1.89. serde is part of the contract.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod address;
mod chain;
mod domain;
mod error;
mod name;
mod node;
mod printable;
mod service;

pub use address::Address;
pub use chain::Chain;
pub use domain::{SpiffeId, TrustDomain};
pub use error::{InvalidName, NameKind};
pub use node::{NodeId, NodeType};
pub use printable::Printable;
pub use service::{ServiceInfo, ServiceName, ServiceVersion};
