//! The messages and stubs of an aegis mesh, as generated from the files in `proto/`.
//!
//! Each protobuf package is a module: its path without the leading `aegis`.
//!
//! | module | package | what it is |
//! |---|---|---|
//! | [`identity::v1`], [`identity::v2`] | `aegis.identity.v1`, `.v2` | the domain service of the guide, in two versions |
//! | [`mesh`] | `aegis` | what every node answers, nodes written in Go included |
//! | [`mesh::v1`] | `aegis.mesh.v1` | how our nodes replicate their directory |
//!
//! A module holds the messages, a `*_client` and a `*_server` module for each
//! service, and a `FILE_DESCRIPTOR_SET` for reflection. An RPC that a server
//! does not implement is answered with `UNIMPLEMENTED`, so that an RPC added
//! to a `.proto` file breaks no implementation.
//!
//! ```
//! use aegis_proto::identity::v1::{ValidateSessionRequest, ValidateSessionResponse};
//! # #[cfg(feature = "server")] {
//! use aegis_proto::identity::v1::identity_service_server::IdentityService;
//! use tonic::{Request, Response, Status, async_trait};
//!
//! struct Morpheus;
//!
//! #[async_trait]
//! impl IdentityService for Morpheus {
//!     async fn validate_session(
//!         &self,
//!         request: Request<ValidateSessionRequest>,
//!     ) -> Result<Response<ValidateSessionResponse>, Status> {
//!         let valid = request.into_inner().token.starts_with("user-");
//!         Ok(Response::new(ValidateSessionResponse { valid, ..Default::default() }))
//!     }
//! }
//! # }
//! ```
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `client` | yes | the `*_client` modules |
//! | `server` | yes | the `*_server` modules |
//! | `convert` | no | `convert`: between messages and the types of aegis-core and aegis-topology |
//!
//! # What it does not do
//!
//! Messages are what a peer sent: nothing in them has been checked. Nothing
//! here opens a connection; a client is built from a channel of aegis-client.
//!
//! # Regenerating
//!
//! The code is committed, and so are the descriptors. After a change under
//! `proto/`, run `cargo xtask proto`; `cargo xtask proto --check` fails while the
//! two differ. Both refuse what breaks peers or code written against the
//! committed protos: what is here stays until its whole package goes.
//!
//! A name that meets one of the generated code has an underscore behind it in
//! Rust: an RPC `New` is `new_`, `Clone` is `clone_`. On the wire it stays what
//! it is. Comments of the protos are shown as plain text.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "convert")]
pub mod convert;

#[rustfmt::skip]
#[allow(
    clippy::all,
    clippy::nursery,
    clippy::pedantic,
    clippy::restriction,
    elided_lifetimes_in_paths,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    unnameable_types,
    unreachable_pub,
    unused_imports,
    unused_qualifications,
    reason = "generated; each file has its own mix"
)]
mod generated;

#[doc(inline)]
pub use generated::*;
