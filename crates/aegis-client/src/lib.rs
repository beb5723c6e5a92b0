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
//! ```
//! use std::time::Duration;
//!
//! use aegis_client::{ServiceClient, ServicePool};
//! use aegis_core::ServiceInfo;
//! use aegis_proto::identity::v1::ValidateSessionRequest;
//! use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
//! # use aegis_proto::identity::v1::ValidateSessionResponse;
//! # use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
//! # use tonic::{Request, Response, Status};
//! # struct Identity;
//! # #[tonic::async_trait]
//! # impl IdentityService for Identity {
//! #     async fn validate_session(&self, _: Request<ValidateSessionRequest>) -> Result<Response<ValidateSessionResponse>, Status> {
//! #         Ok(Response::new(ValidateSessionResponse { valid: true, ..Default::default() }))
//! #     }
//! # }
//!
//! const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let mesh = aegis_testing::TestMesh::loopback();
//! # let serve = |id| mesh.serve(id, |node| node.service(IDENTITY_V1, IdentityServiceServer::new(Identity)));
//! # let (one, two) = (serve("morpheus-1").await, serve("morpheus-2").await);
//! # let (one, two) = (one.local_addr().to_string(), two.local_addr().to_string());
//! # let tls = mesh.ca().options("vicky-1", "gateway");
//! let pool = ServicePool::builder()
//!     .tls(tls) // such as TlsOptions::files("vicky.pem", "vicky.key", "ca.pem")
//!     .provider("morpheus-1", one, [IDENTITY_V1]) // at host:port
//!     .provider("morpheus-2", two, [IDENTITY_V1])
//!     .build()?;
//! let identity = ServiceClient::new(&pool, IDENTITY_V1, IdentityServiceClient::new);
//! identity.wait_ready(1, Duration::from_secs(5)).await?; // optional
//! let request = ValidateSessionRequest { token: "user-7".to_owned() };
//! let reply = identity.get()?.validate_session(request).await?.into_inner();
//! assert!(reply.valid);
//! # Ok(())
//! # }
//! ```
//!
//! # How a call finds its way
//!
//! 1. The provider is the next in turn among those that are connected: exact round robin, so over providers that do
//!    not change each gets equally many calls, to within one, from all threads together; from 128 providers on, to within one
//!    for each thread that calls, and eight at most. A [`Balancer`] says otherwise: by load, by weight, or a rule of your own.
//!    One that fails is left out for a while ([`OutlierDetection`]).
//! 2. What was never processed goes to the next one, as gRFC A6 has it for transparent retries: the request did not
//!    leave this process, a GOAWAY left its stream out (RFC 9113 §6.8), the stream was reset with `REFUSED_STREAM`
//!    (§8.7), or a node said that it does not serve the service.
//! 3. What a provider may have processed is sent again only if the call is idempotent, which [`CallPolicy`] says of a
//!    method and [`RequestExt::idempotent`] of a call, and only before its answer has begun (gRFC A6): after a lost
//!    connection or a failure with a code that is retried, three attempts in all, to another provider where there is one,
//!    when the provider that failed says (`grpc-retry-pushback-ms`, `google.rpc.RetryInfo`). It also leaves a provider
//!    whose connection has stalled, or that is slower than the policy's `try_timeout`.
//! 4. Repeats after a provider has seen the request keep to a budget: a tenth of the service's calls and three a second,
//!    looked at over 10 s (as Finagle's `RetryBudget`, with other numbers).
//! 5. A call without a provider waits while the first sync or a first connection is under way, 5 s at most; marked with
//!    [`RequestExt::wait_ready`] it waits on (gRPC's *wait for ready*).
//!
//! A call that fails says with whom and why: [`Failure`].
//!
//! # What it does not do
//!
//! No hedging, and no balancing by zone or key. It does not serve; a node is aegis-node's.
//!
//! # Features
//!
//! None.
//!
//! # Stability
//!
//! Before 1.0 any release may change the API. The minimum Rust version is 1.89. Types of tonic and http are part of the
//! contract; those behind `Box<dyn Error>` sources are not.

#![cfg_attr(docsrs, feature(doc_cfg))]

mod acquire;
mod apart;
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
mod failure;
mod headers;
mod limit;
mod line;
mod load;
mod options;
mod outcome;
mod outlier;
mod policy;
mod pool;
mod profile;
mod pushback;
mod replay;
mod request;
mod service;
mod shared;
mod stage;
mod view;

pub use balance::{Balance, Balancer, Choice, Choices, UnknownBalancer};
pub use body::ResponseBody;
pub use build_error::BuildError;
pub use builder::PoolBuilder;
pub use channel::{ResponseFuture, ServiceChannel};
pub use client::ServiceClient;
pub use error::Error;
pub use explain::{Candidate, ConnectionCounts, Explanation, Verdict};
pub use failure::{FailedAttempt, Failure, Stopped};
#[doc(hidden)]
pub use headers::take_refusal;
pub use headers::{NOT_SERVED, REFUSED_HEADER, SERVICE_HEADER};
#[doc(hidden)]
pub use options::PoolOptions;
pub use outlier::OutlierDetection;
pub use policy::CallPolicy;
pub use pool::ServicePool;
pub use request::RequestExt;

#[doc(inline)]
pub use aegis_transport::{Backoff, Keepalive, Pace, Settings};
