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
//! ```no_run
//! # async fn example(tls: aegis_tls::Tls) -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use aegis_transport::{Connections, LinkStatus, Settings, Target, Tcp};
//!
//! let connections = Connections::new(tls, Arc::new(Tcp::default()), Settings::default());
//! let target = Target::new("morpheus-1".parse()?, vec!["10.0.0.7:8443".parse()?]);
//! let link = connections.link(target);
//! if let LinkStatus::Backoff { error, .. } = link.settled().await {
//!     return Err(error.into());
//! }
//! let morpheus = link.channel(); // for a generated client: `MeshServiceClient::new(morpheus)`
//! # drop(morpheus);
//! connections.close(Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! What it does not do: choose between nodes, retry, replay, set a deadline nobody asked for. `aegis-client` does.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod backoff;
mod body;
mod bulk;
mod cache;
mod call_error;
mod channel;
mod clock;
mod connection;
pub mod deadline;
mod dial;
mod driver;
mod error;
mod head;
mod heard;
mod keepalive;
mod keeper;
mod lease;
mod line;
mod link;
mod network;
mod node;
mod past;
mod pump;
mod sanitize;
mod settings;
mod signals;
mod slot;
mod start;
mod task;
pub mod timeout;

pub use body::ResponseBody;
pub use cache::{Connections, Target};
pub use call_error::{CallError, NeverSent};
pub use channel::NodeChannel;
pub use error::{DialError, Unavailable};
pub use link::{Link, LinkStatus};
pub use network::{BoxFuture, BoxIo, Io, Listener, Network, Tcp};
pub use settings::{Backoff, Keepalive, Pace, Settings};
pub use signals::{Changes, LinkCounters};
pub use slot::Slot;
