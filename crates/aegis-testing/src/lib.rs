//! A test CA with good and bad certificates, and a mesh in memory, for users of aegis.
//!
//! ```
//! let ca = aegis_testing::TestCa::new();
//! let tls = ca.tls("morpheus-1", "identity-server");
//! assert_eq!(tls.spiffe_id().node_id().as_str(), "morpheus-1");
//! ```
//!
//! What is a test's set-up panics when it fails; nothing here is for production.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `mesh` | yes | `TestMesh`: whole nodes, in memory or on loopback; implies `memory` |
//! | `memory` | with `mesh` | `MemoryNetwork`: connections without sockets |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![expect(
    clippy::expect_used,
    clippy::missing_panics_doc,
    reason = "test support: a broken assumption ends the test"
)]

mod ca;
mod eventually;
mod flaw;
mod key;
#[cfg(feature = "memory")]
mod memory;
#[cfg(feature = "mesh")]
mod mesh;

pub use ca::{TestCa, TestCert, Validity};
pub use eventually::eventually;
pub use flaw::Flaw;
pub use key::KeyKind;
#[cfg(feature = "memory")]
pub use memory::MemoryNetwork;
#[cfg(feature = "mesh")]
pub use mesh::TestMesh;
