//! Calls the services of an aegis mesh by name and version.
//!
//! ```text
//! ServicePool ──► ServiceChannel ──► generated client
//!     │                 │ per request
//!  directory      provider whose turn it is ──► pinned connection (aegis-transport)
//! ```
//!
//! A [`ServicePool`] follows a directory: that of a node, a list of addresses, or a mesh that it observes.
//! A [`ServiceChannel`] is a service of it; generated clients stand on it, and [`ServiceClient`] makes them:
//!
//! ```no_run
//! # use std::time::Duration;
//! use aegis_client::{RequestExt as _, ServiceClient, ServicePool};
//! use aegis_core::ServiceInfo;
//! use aegis_proto::identity::v1::ValidateSessionRequest;
//! use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
//! use aegis_tls::TlsOptions;
//!
//! const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let pool = ServicePool::builder()
//!     .tls(TlsOptions::files("vicky.pem", "vicky.key", "ca.pem"))
//!     .provider("morpheus-1", "10.0.0.7:8443", [IDENTITY_V1])
//!     .provider("morpheus-2", "10.0.0.8:8443", [IDENTITY_V1])
//!     .build()?;
//! let identity = ServiceClient::new(&pool, IDENTITY_V1, IdentityServiceClient::new);
//! identity.wait_ready(1, Duration::from_secs(5)).await?; // optional
//! let request = tonic::Request::new(ValidateSessionRequest { token: "user-7".to_owned() });
//! let reply = identity.get()?.validate_session(request.wait_ready()).await?;
//! # drop(reply);
//! # Ok(())
//! # }
//! ```
//!
//! # What it does not do
//! It retries only what was provably never processed: no retries by status, no hedging, and no balancer but exact
//! round robin. It does not serve; a node is aegis-node's.
//!
//! # Features
//! None.
//!
//! # Stability
//! The types behind `Box<dyn Error>` sources are not part of the contract.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod attempts;
mod balance;
mod body;
mod budget;
mod build_error;
mod builder;
mod call;
mod channel;
mod client;
pub mod deadline;
mod error;
mod explain;
mod headers;
mod limit;
mod line;
mod pool;
mod replay;
mod request;
mod service;
mod shared;
mod stage;
mod view;

pub use body::ResponseBody;
pub use build_error::BuildError;
pub use builder::PoolBuilder;
pub use channel::{ResponseFuture, ServiceChannel};
pub use client::ServiceClient;
pub use error::Error;
pub use explain::{Candidate, Explanation, Verdict};
pub use headers::{NOT_SERVED, REFUSED_HEADER, SERVICE_HEADER};
pub use pool::ServicePool;
pub use request::RequestExt;

#[doc(inline)]
pub use aegis_transport::{Backoff, Keepalive, Pace, Settings};
