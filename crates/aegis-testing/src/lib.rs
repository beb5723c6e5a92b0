//! A test CA with good and bad certificates, a mesh in memory, and faults, for users of aegis.
//!
//! ```text
//! TestMesh ── nodes, started and joined ──┬── TestCa ── certificates, good or with one Flaw
//!                                         ├── Faults ── of links and of methods, switched while nodes run
//!                                         └── MemoryNetwork, or TCP on loopback
//! ```
//!
//! ```
//! # #[cfg(feature = "mesh")] {
//! # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
//! use std::time::Duration;
//!
//! use aegis_testing::{TestMesh, eventually};
//!
//! let mesh = TestMesh::in_memory();
//! let morpheus = mesh.serve("morpheus-1", |node| node).await;
//! let vicky = mesh.node("vicky-1"); // knows where the first one listens
//! let directory = vicky.directory();
//! eventually(Duration::from_secs(5), || match directory.snapshot().node(morpheus.node().id()) {
//!     Some(_) => Ok(()),
//!     None => Err("vicky-1 has not heard of it"),
//! })
//! .await;
//! # });
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it does not do
//!
//! It fakes neither TLS nor HTTP/2, both run as in production, and it loses and delays nothing unless it is told to
//! ([`Faults`]).
//! It is for tests alone: what fails in a test's set-up panics.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `mesh` | yes | `TestMesh`: whole nodes, in memory or on loopback; the faults of calls; implies `memory` |
//! | `memory` | with `mesh` | `MemoryNetwork`: connections without sockets; `Faults` of links |
//!
//! # Stability
//!
//! Before 1.0 any release may change the API. The minimum Rust version is 1.89.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "test support: a broken assumption ends the test"
)]

mod ca;
mod eventually;
#[cfg(feature = "memory")]
mod fault;
mod flaw;
mod key;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "mesh")]
mod mesh;

pub use ca::{TestCa, TestCert, Validity};
pub use eventually::eventually;
#[cfg(feature = "mesh")]
pub use fault::{CallFaults, FaultLayer, FaultService};
#[cfg(feature = "memory")]
pub use fault::{Delay, Direction, Faults, LinkFaults};
pub use flaw::Flaw;
pub use key::KeyKind;
#[cfg(feature = "memory")]
pub use memory::MemoryNetwork;
#[cfg(feature = "mesh")]
pub use mesh::TestMesh;
