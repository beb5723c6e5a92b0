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
//! This crate does no I/O and knows nothing of TLS, gRPC or the directory.

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
