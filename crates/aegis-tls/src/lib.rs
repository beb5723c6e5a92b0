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
//! TLS 1.3 only, ALPN `h2` required, X25519MLKEM768 preferred, no resumption: a resumed session would not look at the
//! certificate again. No crypto provider is installed for the process.
//!
//! The crate works alone, over any `AsyncRead + AsyncWrite`: under tonic's own server, a connection type of yours
//! implements `tonic::transport::server::Connected` with `ConnectInfo =` [`Caller`], and handlers find it
//! (`tests/plain_tonic.rs` is the whole of it).
//!
//! What it does not do: revocation lists, rotation of a loaded certificate, identities of other SPIFFE schemes.
//!
//! | feature | adds | default |
//! |---|---|---|
//! | `client` | [`Tls::connect`] | yes |
//! | `server` | [`Tls::accept`], [`Caller`] | yes |
//! | `dev-ca` | `dev::DevCa`, and [`TlsOptions::cert_dir`] makes what is missing: a development CA in a directory | no |

#[cfg(feature = "server")]
mod accept;
#[cfg(feature = "server")]
mod accept_error;
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
