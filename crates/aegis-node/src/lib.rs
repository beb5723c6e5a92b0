//! Builds, serves and stops a node of an aegis mesh.
//!
//! ```text
//! Node::builder() ── build() ──> Node ── start() ──> Server ── shutdown()
//!   every mistake                 │                    │
//!   is reported here              └ pool(), directory()└ accepts, serves, advertises, drains
//! ```
//!
//! Most users depend on the facade, `aegis`, whose front page has a running example.
//!
//! # What it does not do
//!
//! It does not decide who may call what, and it installs nothing global: no tracing subscriber, no crypto provider, no panic hook.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `dev-ca` | no | [`cert_dir`](NodeBuilder::cert_dir) makes what is missing with a development CA |

#![cfg_attr(docsrs, feature(doc_cfg))]

mod accept;
mod builder;
mod dispatch;
mod end;
mod error;
mod handler;
mod health;
mod http2;
mod identities;
mod in_place;
mod limits;
mod linger;
mod mesh_service;
mod message;
mod muffle;
mod node;
mod peers;
mod probe;
mod registry;
mod server;
mod signals;
mod stats;
mod timer;
mod trim;
mod turn;
mod usage;

pub use aegis_gossip::{MemberStatus, SyncError, Synced};
pub use builder::NodeBuilder;
pub use error::{BuildError, ServeError, StartError};
pub use handler::{Handler, HandlerFuture};
pub use health::{Health, HealthReport, HealthStatus};
pub use limits::Limits;
pub use node::Node;
pub use peers::{PeerHealth, PeerInfo, Peers};
pub use registry::Registrations;
pub use server::Server;
pub use stats::ServerStats;
pub use usage::ServiceUsage;
