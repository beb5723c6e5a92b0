use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use aegis_core::{Chain, NodeId, NodeType, SpiffeId, TrustDomain};

use crate::clock::Utc;
use crate::{Origin, Part, Rejection};

/// Why certificates, key and CA bundle could not be made a TLS configuration.
///
/// The operator has to act: each variant names the file (or variable) and what is wrong with it.
///
/// `Debug` prints the text with its causes, as a `main` that returns it shows it.
#[derive(thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// An entry of the CA bundle is no CA certificate.
    #[error("{origin}: entry {entry} cannot be trusted: {reason}")]
    BadCa {
        /// Where the bundle was read.
        origin: Origin,
        /// The entry, counted from 1.
        entry: usize,
        /// What is wrong with it.
        reason: Rejection,
    },

    /// An entry is no valid PEM.
    #[error("{origin}: entry {entry} is no valid PEM")]
    BadPem {
        /// Where it was read.
        origin: Origin,
        /// The entry, counted from 1.
        entry: usize,
        /// What the parser said; its type is not part of the contract.
        source: Box<dyn Error + Send + Sync>,
    },

    /// A development CA where it was not asked for.
    #[error(
        "{origin}: this is a development CA, whose key lies in a directory of some developer; \
         use certificates of a real CA, or say allow_development()"
    )]
    DevelopmentCa {
        /// Where it was read.
        origin: Origin,
    },

    /// The directory of the development CA could not be used.
    #[cfg(feature = "dev-ca")]
    #[error(transparent)]
    Directory(#[from] crate::dev::DevCaError),

    /// The private key is encrypted; nobody is here to type its password.
    #[error("{origin}: the private key is encrypted; decrypt it first (openssl pkey)")]
    EncryptedKey {
        /// Where it was read.
        origin: Origin,
    },

    /// An environment variable is missing or no text.
    #[error("cannot read environment variable {variable}")]
    Environment {
        /// Its name.
        variable: String,
        /// Why.
        source: std::env::VarError,
    },

    /// Where the private key should be is a certificate.
    #[error("{origin}: this is a certificate, not a private key; are the two swapped?")]
    KeyIsCertificate {
        /// Where it was read.
        origin: Origin,
    },

    /// The private key belongs to another certificate.
    #[error(
        "the first certificate of {certificate} does not fit the private key of {key}; \
         the own certificate has to come first"
    )]
    KeyMismatch {
        /// Where the certificate was read.
        certificate: Origin,
        /// Where the key was read.
        key: Origin,
    },

    /// A directory of certificates lacks a file.
    #[error(
        "{} does not exist; issue a certificate first \
         (cargo run --example issue -- --cert-dir DIR --id {id} --type TYPE), or build with the feature dev-ca",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
        /// Whose certificate was wanted.
        id: NodeId,
    },

    /// There is no certificate where one should be.
    #[error("{origin}: there is no certificate (BEGIN CERTIFICATE) in it")]
    NoCertificate {
        /// Where it was read.
        origin: Origin,
    },

    /// There is no private key where one should be.
    #[error("{origin}: there is no private key (PKCS#8, SEC1 or PKCS#1) in it")]
    NoKey {
        /// Where it was read.
        origin: Origin,
    },

    /// A directory of certificates was given without saying whose certificate to take.
    #[error("a certificate directory needs the id of the node whose certificate to take")]
    NoSubject,

    /// A file could not be read.
    #[error("cannot read the {part} {}", path.display())]
    Read {
        /// What it holds.
        part: Part,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },

    /// Other users of this machine can read the private key.
    #[error(
        "{} can be read by others (mode {mode:o}); chmod 600 it, or say allow_readable_key()",
        path.display()
    )]
    ReadableKey {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },

    /// The certificate breaks the rules by which every other node would judge it.
    #[error("{origin}: the other nodes would refuse this certificate: {reason}")]
    Rejected {
        /// Where the certificate was read.
        origin: Origin,
        /// The broken rule.
        reason: Rejection,
    },

    /// The private key is of a kind that cannot be used.
    #[error("{origin}: the private key cannot be used")]
    UnusableKey {
        /// Where the key was read.
        origin: Origin,
        /// Why; its type is not part of the contract.
        source: Box<dyn Error + Send + Sync>,
    },

    /// The certificate is good, but of another node.
    #[error(
        "{origin}: this is the certificate of node {found}, type {}, but the node is {expected}, type {expected_type}",
        found.node_type(), found = found.node_id()
    )]
    WrongIdentity {
        /// Where the certificate was read.
        origin: Origin,
        /// The node's own id.
        expected: NodeId,
        /// The node's own type.
        expected_type: NodeType,
        /// Whom the certificate names.
        found: Box<SpiffeId>,
    },
}

impl fmt::Debug for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Chain::new(self), f)
    }
}

/// The own certificate cannot be used at this moment: it is outside its dates.
///
/// The operator has to renew it, or to set the clock right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "our own certificate ({identity}) is valid from {} to {}, now is {}",
    Utc(*not_before), Utc(*not_after), Utc(*now)
)]
#[non_exhaustive]
pub struct NoCertificate {
    /// Whom the certificate names.
    pub identity: SpiffeId,
    /// The begin of its validity.
    pub not_before: SystemTime,
    /// The end of its validity.
    pub not_after: SystemTime,
    /// The time by our clock.
    pub now: SystemTime,
}

/// Why bytes could not be signed with the node's key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The own certificate is outside its dates, so no peer would accept the signature.
    #[error(transparent)]
    NoCertificate(#[from] NoCertificate),

    /// The key did not sign. The operator has to choose another kind of key.
    #[error("cannot sign with the node's key")]
    Key {
        /// Why; its type is not part of the contract.
        source: Box<dyn Error + Send + Sync>,
    },
}

/// Why a signed record proves nothing.
///
/// Whoever sent the record, or its owner, has to act; nothing was changed by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The certificate of the signer is refused.
    #[error("the signer's certificate is refused: {0}")]
    Rejected(Rejection),

    /// The signature was made with a scheme that TLS 1.3 does not use, or not by this kind of key.
    #[error("signature scheme {scheme:#06x} is not accepted")]
    Scheme {
        /// The number of the scheme.
        scheme: u16,
    },

    /// The bytes, the signature and the certificate do not belong together.
    #[error(
        "the signature does not fit these bytes and the signer's key in trust domain {trust_domain}"
    )]
    Signature {
        /// The trust domain that the signature was checked for: our own.
        trust_domain: TrustDomain,
    },
}

impl RecordError {
    /// A fixed word for metrics and logs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Rejected(rejection) => rejection.reason(),
            Self::Scheme { .. } => "scheme",
            Self::Signature { .. } => "signature",
        }
    }
}
