//! Certificates, node identity and mutual TLS of an aegis mesh.
//!
//! ```text
//! TlsOptions ──load(Subject)──▶ Tls ──connect(Expected, io)──▶ Connected { stream, peer, refusal }
//!  files, env, pem, cert_dir     │ ───accept(io)────────────▶ Accepted  { stream, caller }
//!                                └───sign_record, verify_record
//! ```
//!
//! A node's certificate carries its identity, `spiffe://<trust-domain>/aegis/<node-type>/<node-id>`. One set of rules
//! judges it in both directions; a client pins the node that it dialled **within** the handshake, so a recycled address
//! never receives a byte meant for another; a server hands the parsed [`Caller`] to its handlers.
//!
//! TLS 1.3 only (RFC 8446), ALPN `h2` required, X25519MLKEM768 preferred (draft-ietf-tls-ecdhe-mlkem), no resumption: a
//! resumed session would not look at the certificate again. Chains are verified by rustls-webpki (RFC 5280); identities
//! are SPIFFE ids. No crypto provider is installed for the process. [`Tls`] has an example of both ends.
//!
//! # Under tonic's own server
//!
//! The crate works alone, over any `AsyncRead + AsyncWrite`. tonic puts the `ConnectInfo` of a connection into the
//! extensions of each of its requests, and [`Caller::from_request`] looks there. With the feature `tonic-server` an
//! [`Accepted`] connection is one that tonic takes, and its `ConnectInfo` is the caller: this is all that it needs.
//!
//! ```no_run
//! # #[cfg(feature = "tonic-server")]
//! # mod example {
//! use std::{io, time::Duration};
//!
//! use aegis_tls::Tls;
//! use tokio::net::TcpListener;
//! use tonic::transport::server::Router;
//!
//! async fn serve(tls: Tls, listener: TcpListener, services: Router) -> Result<(), tonic::transport::Error> {
//!     let (connections, incoming) = tokio::sync::mpsc::channel(16);
//!     let accept = async move {
//!         // Beside each other: a client that is slow with its handshake holds up no other.
//!         let mut handshakes = tokio::task::JoinSet::new();
//!         loop {
//!             let Ok((io, _)) = listener.accept().await else {
//!                 // Out of file descriptors, say: others may end meanwhile.
//!                 tokio::time::sleep(Duration::from_millis(100)).await;
//!                 continue;
//!             };
//!             let (tls, connections) = (tls.clone(), connections.clone());
//!             handshakes.spawn(async move {
//!                 match tokio::time::timeout(Duration::from_secs(10), tls.accept(io)).await {
//!                     Ok(Ok(accepted)) => drop(connections.send(io::Result::Ok(accepted)).await),
//!                     Ok(Err(error)) => eprintln!("a client was refused: {error}"),
//!                     Err(_) => eprintln!("a client did not finish its handshake"),
//!                 }
//!             });
//!             while handshakes.try_join_next().is_some() {}
//!         }
//!     };
//!     let serve = services.serve_with_incoming(tokio_stream::wrappers::ReceiverStream::new(incoming));
//!     tokio::select! {
//!         result = serve => result,
//!         () = accept => Ok(()),
//!     }
//! }
//! # }
//! ```
//!
//! How many handshakes may be under way, and for how long, is the business of whoever accepts; aegis-node does it with
//! limits of every kind. A client of plain tonic puts [`Tls::connect`] into `Endpoint::connect_with_connector`.
//!
//! # What it does not do
//!
//! Revocation lists, rotation of a loaded certificate, identities of other SPIFFE schemes.
//!
//! # Features
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `client` | [`Tls::connect`] | yes |
//! | `server` | [`Tls::accept`], [`Caller`] | yes |
//! | `tonic-server` | `Connected` of tonic's server for [`Accepted`]; includes `server` | no |
//! | `dev-ca` | `dev::DevCa`, and [`TlsOptions::cert_dir`] makes what is missing: a development CA in a directory | no |
//!
//! # Stability
//!
//! Before 1.0 any release may change the API. The minimum Rust version is 1.89. Types of rustls-pki-types, tokio's I/O
//! traits and, with `server`, types of http and tonic are part of the contract; no type of rustls is.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "server")]
mod accept;
#[cfg(feature = "server")]
mod accept_error;
#[cfg(feature = "server")]
mod accepted_io;
#[cfg(feature = "server")]
mod caller;
#[cfg(any(feature = "client", feature = "server"))]
mod cause;
mod clock;
#[cfg(feature = "client")]
mod connect;
#[cfg(feature = "client")]
mod connect_error;
#[cfg(feature = "dev-ca")]
pub mod dev;
mod error;
#[cfg(any(feature = "client", feature = "server"))]
mod goodbye;
#[cfg(any(feature = "client", feature = "server"))]
mod handshake;
mod leaf;
mod options;
mod pem;
mod record;
#[cfg(any(feature = "client", feature = "server"))]
mod refusal;
#[cfg(feature = "client")]
mod refusal_slot;
mod rejection;
mod snapshot;
mod source;
mod subject;
mod tls;
mod verify;

#[cfg(feature = "server")]
pub use accept::{Accepted, ServerStream};
#[cfg(feature = "server")]
pub use accept_error::AcceptError;
#[cfg(feature = "server")]
pub use caller::{Caller, CallerError};
#[cfg(feature = "client")]
pub use connect::{ClientStream, Connected, Expected};
#[cfg(feature = "client")]
pub use connect_error::ConnectError;
pub use error::{LoadError, NoCertificate, RecordError, SignError};
pub use options::TlsOptions;
pub use record::{RecordOwner, RecordSignature};
#[cfg(any(feature = "client", feature = "server"))]
pub use refusal::Refusal;
#[cfg(feature = "client")]
pub use refusal_slot::RefusalSlot;
pub use rejection::{ChainPart, Purpose, Rejection};
pub use source::{Origin, Part};
pub use subject::Subject;
pub use tls::Tls;
pub use verify::{MAX_CERTIFICATE_BYTES, MAX_CHAIN};

/// The only application protocol of a mesh.
#[cfg(any(feature = "client", feature = "server"))]
const ALPN_H2: &[u8] = b"h2";
