//! An embedded gRPC service mesh for Rust: a library, no sidecar, no control plane.
//!
//! A process builds a [`Node`]. The node serves its gRPC services over mutual TLS, advertises them in a
//! versioned directory that all nodes share, and calls other nodes' services by name and version.
//! Every call is authenticated in both directions by node identity, and the handler knows its [`Caller`].
//!
//! ```text
//!  morpheus-1 ── record: where, what, signed ──┐         ┌── call identity/v1 ──> morpheus-1
//!  morpheus-2 ── record: where, what, signed ──┤directory├── call identity/v1 ──> morpheus-2
//!  vicky-1    ── joins one of them ────────────┘         └── each handshake pinned to the node picked
//! ```
//!
//! ```
//! use std::time::Duration;
//!
//! use aegis::{Caller, Node, ServiceClient, ServiceInfo};
//! use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
//! use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
//! use aegis_proto::identity::v1::{GetUserRequest, GetUserResponse};
//! use tonic::{Request, Response, Status, async_trait};
//!
//! // In a const, a bad name does not compile.
//! const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
//!
//! struct Morpheus;
//!
//! #[async_trait]
//! impl IdentityService for Morpheus {
//!     async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
//!         let caller = Caller::from_request(&request)?;
//!         Ok(Response::new(GetUserResponse { name: format!("asked by {}", caller.node_id()), ..Default::default() }))
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let certs = tempfile::tempdir()?;
//! # let certs = certs.path();
//! let morpheus = Node::builder()
//!     .id("morpheus-1")
//!     .node_type("identity-server")
//!     .address("127.0.0.1:0")
//!     .service(IDENTITY_V1, IdentityServiceServer::new(Morpheus)) // advertises and registers
//!     .cert_dir(certs) // a development CA, made on first use
//!     .build()?;
//! let server = morpheus.start().await?; // listening
//!
//! let vicky = Node::builder().id("vicky-1").cert_dir(certs).join([server.local_addr().to_string()]).build()?;
//! let identity = ServiceClient::new(&vicky.pool(), IDENTITY_V1, IdentityServiceClient::new);
//! identity.wait_ready(1, Duration::from_secs(5)).await?; // optional
//! let user = identity.get()?.get_user(GetUserRequest::default()).await?;
//! assert_eq!(user.into_inner().name, "asked by vicky-1");
//! server.shutdown().await?; // drains: no call is lost
//! # Ok(())
//! # }
//! ```
//!
//! # Where to begin
//!
//! | you | read |
//! |---|---|
//! | want to see two programs call each other | [`guide::quickstart`] |
//! | look for a step in a service's life, or know the Go original | [`guide::services`] |
//! | have to issue certificates | [`guide::certificates`] |
//! | have programs with tonic | [`guide::adopting`] |
//! | write tests | [`guide::testing`] |
//! | look at an error | [`guide::troubleshooting`] |
//! | decide whether to use it | [`guide::limitations`] |
//!
//! # For those who know the Go original
//!
//! | Go | here |
//! |---|---|
//! | `NewNodeBuilder()`, `WithID`, `WithName`, `WithType`, `WithAddress` | [`Node::builder`], [`id`](NodeBuilder::id), [`name`](NodeBuilder::name), [`node_type`](NodeBuilder::node_type), [`address`](NodeBuilder::address) (bound), [`advertise_address`](NodeBuilder::advertise_address) (told to others) |
//! | `WithServices` and `WithServiceRegistration` | [`service`](NodeBuilder::service), which advertises and registers; apart: [`advertise`](NodeBuilder::advertise), [`routes`](NodeBuilder::routes) |
//! | `WithCertDir` | [`cert_dir`](NodeBuilder::cert_dir) for development; else [`tls`](NodeBuilder::tls) with [`TlsOptions`] |
//! | `Build()`, start, stop | [`build`](NodeBuilder::build) reports every mistake; [`Node::start`] gives a [`Server`]; [`run_until_signal`](Server::run_until_signal), [`shutdown`](Server::shutdown) |
//! | `NewServiceClientPool(node)`, `Close` | [`Node::pool`], without a node [`ServicePool::builder`]; [`ServicePool::close`] drains, a drop closes |
//! | `NewServiceClient(pool, name, version, new)` | [`ServiceClient::new`] |
//! | `Get(ctx)`: one provider for each client | [`get`](ServiceClient::get): one for each call; [`pinned`](ServiceClient::pinned) is Go's |
//! | `ErrNoProviders`, `ErrNoTLSConfig` | [`NoProviders`](client::Error::NoProviders), [`NoTlsConfig`](client::Error::NoTlsConfig); from a call's status by [`from_status`](client::Error::from_status); a node without TLS is not built ([`BuildError::NoTlsConfig`](node::BuildError::NoTlsConfig)) |
//! | `CallerFromContext`, `NodeID`, `Certificate` | [`Caller::from_request`], [`node_id`](Caller::node_id), [`certificate`](Caller::certificate), and [`node_type`](Caller::node_type) |
//! | `AddPeer`, `PingPeer`, `GetPeerHealth`, `SyncTopology` | [`Node::peers`]: [`add`](node::Peers::add), [`ping`](node::Peers::ping), [`health`](node::Peers::health), [`sync`](node::Peers::sync); [`join`](NodeBuilder::join) does by itself what they do by hand |
//! | `Topology.GetServiceProviders`, `GetNodesByService` | [`Node::directory`], [`snapshot`](Directory::snapshot): [`providers`](Snapshot::providers), [`nodes_by_service`](Snapshot::nodes_by_service), [`node`](Snapshot::node); changes by [`watch`](Directory::watch) |
//! | `SetHealth`, `CheckHealth` | [`Node::health`]: [`Health`](node::Health), which is `grpc.health.v1` as well |
//! | `make proto` | `cargo xtask proto` for shared protos, a `build.rs` for your own |
//!
//! # What it does not do
//!
//! It carries no traffic of programs that are not written against it, issues no certificates for production,
//! retries no call that may have reached a provider unless it is marked idempotent, and installs nothing global: no
//! crypto provider, no tracing subscriber, no panic hook.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `client` | yes | [`ServicePool`], [`ServiceClient`]: calling, with or without a node |
//! | `server` | yes | [`Node`], [`Server`], [`Caller`]: serving; includes `client` |
//! | `dev-ca` | yes | `cert_dir` makes what is missing with a development CA, and `tls::dev` |
//! | `gzip`, `zstd` | no | tonic's message compression |
//!
//! # Stability
//!
//! Before 1.0 any release may change the API. The minimum Rust version is 1.89.
//! Types and traits of tonic, http, http-body, bytes, serde, tower and rustls-pki-types are part of the contract, and tokio's
//! byte streams in `tls`; nothing else that is foreign is.

#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod guide;

#[cfg(feature = "client")]
#[doc(inline)]
pub use aegis_client::{self as client, RequestExt, ServiceChannel, ServiceClient, ServicePool};
#[doc(inline)]
pub use aegis_core::{
    self as core, Address, Chain, InvalidName, NodeId, NodeType, ServiceInfo, ServiceName,
    ServiceVersion, SpiffeId, TrustDomain,
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
