//! Replicates the directory of an aegis mesh between its nodes: the tokio driver of `aegis-topology`.
//!
//! ```text
//! Member ── Sync ──► Member ── Sync ──► Member       each compares its directory with a peer's once a second,
//!    ▲                  │                             and pushes news to four at once
//!    └── own record     └── WatchTopology ──► Observer   follows, is not in the directory itself
//! ```
//!
//! A [`Member`] is a node that listens: it has a record of its own, signed with its TLS key.
//! An [`Observer`] is a process that only calls. Both verify every record themselves and publish what they know
//! to a [`Directory`](aegis_topology::Directory).
//!
//! ```no_run
//! # async fn example(tls: aegis_tls::Tls) -> Result<(), Box<dyn std::error::Error>> {
//! use std::{sync::Arc, time::Duration};
//!
//! use aegis_gossip::{Observer, Settings};
//! use aegis_transport::{Connections, Tcp};
//!
//! let connections =
//!     Connections::new(tls.clone(), Arc::new(Tcp::default()), aegis_transport::Settings::default());
//! let seeds = ["10.0.0.1:8443".parse()?]; // members
//! let observer = Observer::start(tls, connections, seeds, Settings::default());
//! let directory = observer.directory();
//! let identity = "identity/v1".parse()?;
//! let snapshot = directory.wait_for_providers(&identity, 2, Duration::from_secs(5)).await?;
//! for node in snapshot.providers(&identity) {
//!     println!("{} at {:?}", node.node_id(), node.addresses());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The method is anti-entropy with a push of what is new (Demers et al., *Epidemic algorithms for replicated database
//! maintenance*, 1987); aegis-topology has the comparison, this crate the calls, the choice of peers and the timing.
//!
//! # What it does not do
//!
//! There is no failure detector yet: a node that dies without a goodbye stays in the directory until its lease is
//! over, and callers see by their own connections that it is gone.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `client` | yes | nothing beyond [`Observer`], which is always there |
//! | `server` | yes | [`Member`] and its service |
//!
//! # Stability
//!
//! This crate is what aegis-client and aegis-node are built on. Before 1.0 any release may change the API. The minimum
//! Rust version is 1.89. Between nodes only the protobuf package `aegis.mesh.v1` counts.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "server")]
mod conflict;
mod core;
mod error;
mod exchange;
mod inbox;
#[cfg(feature = "server")]
mod interest;
#[cfg(feature = "server")]
mod member;
mod observer;
#[cfg(feature = "server")]
mod own;
#[cfg(feature = "server")]
mod peers;
#[cfg(feature = "server")]
mod replicate;
mod seeds;
#[cfg(feature = "server")]
mod service;
mod settings;
mod target;
mod tasks;
mod verifier;
#[cfg(feature = "server")]
mod watchers;

#[cfg(feature = "server")]
pub use error::PublishError;
pub use error::SyncError;
pub use exchange::Synced;
pub use inbox::Counters;
#[cfg(feature = "server")]
pub use member::{Acknowledged, Member, MemberStatus};
pub use observer::Observer;
pub use settings::Settings;
