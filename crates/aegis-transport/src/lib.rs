//! The pinned HTTP/2 connections of an aegis mesh: dial, TLS, keepalive, stream slots, classified errors, close.
//!
//! ```text
//! Connections ──link(Target)──▶ Link ──try_acquire()──▶ Slot ──send(request)──▶ Response<ResponseBody> | CallError
//!   one entry per node id        │                                               NeverSent: may be sent elsewhere
//!                                └─channel()──▶ NodeChannel: a tower service for calls to this one node
//! ```
//!
//! A connection is keyed by the **node id**, which its certificate proves, not by an address.
//! It counts as connected when the peer's SETTINGS were read: in TLS 1.3 nothing before that shows that the peer takes our certificate.
//! A stream is opened only while the peer allows one more, so nothing waits inside HTTP/2 and what was never sent is known exactly.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mesh = aegis_testing::TestMesh::loopback();
//! # let morpheus = mesh.serve("morpheus-1", |node| node).await;
//! # let (tls, address) = (mesh.ca().tls("vicky-1", "gateway"), morpheus.local_addr().into());
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use aegis_transport::{Connections, LinkStatus, Settings, Target, Tcp};
//!
//! let connections = Connections::new(tls, Arc::new(Tcp::default()), Settings::default());
//! let link = connections.link(Target::new("morpheus-1".parse()?, vec![address]));
//! match link.settled().await {
//!     LinkStatus::Connected { slots, .. } => println!("{slots} calls at once"),
//!     LinkStatus::Backoff { error, .. } => return Err(error.into()),
//!     status => println!("{status:?}"),
//! }
//! let channel = link.channel(); // for a generated client: `MeshServiceClient::new(channel)`
//! # assert!(link.is_connected());
//! # drop(channel);
//! connections.close(Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! # Where it comes from
//!
//! | what | source |
//! |---|---|
//! | requests, responses, statuses of broken streams | gRPC's `PROTOCOL-HTTP2.md` and `http-grpc-status-mapping.md` |
//! | [`timeout`] | `grpc-timeout` of `PROTOCOL-HTTP2.md` |
//! | what counts as never sent ([`NeverSent`]) | RFC 9113 §6.8 (GOAWAY) and §8.7 (`REFUSED_STREAM`), gRFC A6 (transparent retries) |
//! | [`Backoff`] | gRPC's `connection-backoff.md`, with its numbers |
//! | [`Keepalive`] | HTTP/2 PING as in gRFC A8; a peer that calls them `too_many_pings` is asked less often |
//!
//! # What it does not do
//!
//! Choose between nodes, retry, replay, set a deadline nobody asked for. `aegis-client` does.
//!
//! # Features
//!
//! None.
//!
//! # Stability
//!
//! This crate is what aegis-client and aegis-node are built on; most programs need only [`Settings`], which aegis-client
//! re-exports. Before 1.0 any release may change the API; [`Network`], [`Io`] and [`Listener`] are a seam for tests and may
//! change with any. The minimum Rust version is 1.89.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod bulk;
mod cache;
mod channel;
mod clock;
pub mod deadline;
mod error;
mod gather;
mod greeting;
mod head;
mod heard;
mod http2;
mod keepalive;
mod keeper;
mod lane;
mod lease;
mod line;
mod link;
mod network;
mod node;
mod owed;
mod past;
mod pulse;
mod rows;
mod sanitize;
mod settings;
mod signals;
mod slots;
mod task;
pub mod timeout;

pub use cache::{Connections, Target};
pub use channel::NodeChannel;
pub use error::{DialError, Unavailable};
pub use http2::body::ResponseBody;
pub use http2::call_error::{CallError, NeverSent};
// The next three: for the other end of a connection, in aegis-node.
#[doc(hidden)]
pub use greeting::HeaderList;
pub use head::RequestHead;
#[doc(hidden)]
pub use heard::{Heard, Inspected};
pub use http2::slot::Slot;
pub use lane::{Lane, Taken};
pub use link::{Link, LinkStatus};
pub use network::{BoxFuture, BoxIo, Io, Listener, Network, Tcp};
#[doc(hidden)]
pub use owed::Owed;
pub use pulse::Pulse;
pub use settings::{Backoff, Keepalive, Pace, Settings};
pub use signals::{Changes, LinkCounters};
