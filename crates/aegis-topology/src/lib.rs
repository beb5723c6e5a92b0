//! The versioned service directory of an aegis mesh, without I/O.
//!
//! ```text
//! owner signs ──► SignedRecord ──Verify──► Verified ──merge──► Replica ──publish──► Directory ──► Snapshot
//!                      ▲                                          │
//!                      └────────── sync with a peer ◄─────────────┘
//! ```
//!
//! Each node owns one [`Record`]: where it listens, what it serves, whether it takes calls. It signs the
//! record with its TLS key, and nobody else can change it. A [`Replica`] merges what it hears; of two records
//! of one owner the one of greater [`Precedence`] wins, so the order of messages does not matter.
//! A [`Directory`] is what everybody else reads: a [`Snapshot`] with the providers of each service.
//!
//! ```
//! use aegis_core::{NodeId, ServiceInfo};
//! use aegis_topology::{Description, Label, NodeEntry, Publisher, ServiceEntry};
//!
//! let identity = ServiceInfo::from_static("identity", "v1");
//! let morpheus = Description::new(
//!     Label::new("Morpheus")?,
//!     ["10.0.0.1:8443".parse()?],
//!     [ServiceEntry::new(identity.clone())],
//! )?;
//! // Somebody who knows the nodes publishes them; a member of a mesh does it from its replica.
//! let publisher = Publisher::fixed([NodeEntry::fixed(NodeId::from_static("morpheus-1"), morpheus)]);
//! let snapshot = publisher.directory().snapshot();
//! assert_eq!(snapshot.providers(&identity)[0].node_id().as_str(), "morpheus-1");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where it comes from
//!
//! Directories are made equal by anti-entropy (Demers et al., *Epidemic algorithms for replicated database maintenance*,
//! 1987): each node now and then compares its copy with that of another. The comparison begins with one [`Root`], goes on
//! with the sums of 256 buckets, a hash tree of two levels, and ends with the records that differ ([`Exchange`]). Roots and
//! sums are hashes of sets that a change updates by two additions (Bellare and Micciancio, *A new paradigm for
//! collision-free hashing: incrementality at reduced cost*, 1997). Merging keeps the greater of two records in a total
//! order, so it is commutative, associative and idempotent, and no clock of anybody else decides.
//!
//! # What it does not do
//!
//! It does no I/O, reads no clock and draws no randomness: bytes, time and choices are arguments.
//! ([`Directory::wait_for`] waits on the runtime's timer.) It does not find out who is alive.
//!
//! # Features
//!
//! None.
//!
//! # Stability
//!
//! Before 1.0 any release may change the API. The minimum Rust version is 1.89. bytes and serde are part of the contract.
//! What members exchange is versioned by the protobuf package `aegis.mesh.v1`, not by this crate.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod author;
mod budget;
mod description;
mod directory;
mod entry;
mod hex;
mod key;
mod limits;
mod merge;
mod record;
mod replica;
mod snapshot;
mod stamp;
mod sync;
mod time;
mod verified;

pub use author::Author;
pub use budget::Budget;
pub use description::{Description, InvalidDescription, InvalidLabel, Label, ServiceEntry};
pub use directory::{Directory, NotInTime, Publisher, Watch};
pub use entry::NodeEntry;
pub use key::Key;
pub use limits::Limits;
pub use record::{BodyHash, Instance, NodeState, Precedence, Record, SignedRecord};
pub use replica::{Merged, Replica};
pub use snapshot::{Snapshot, SyncFailure, SyncState};
pub use stamp::{Root, Stamp, TopologyVersion};
pub use sync::{Exchange, Progress, SyncRequest, SyncResponse};
pub use time::Timestamp;
pub use verified::{Evidence, Refusal, Verified, Verify, check_size};
