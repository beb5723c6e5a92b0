use std::fmt;
use std::time::SystemTime;

use aegis_core::{InvalidName, TrustDomain};

use crate::clock::Utc;

/// Why a certificate does not prove the identity of a node of this mesh.
///
/// Whoever issued the certificate has to act, or the operator whose CA bundle or clock is wrong.
/// Text that comes from the certificate is shortened and its control characters are escaped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Rejection {
    /// It is a CA certificate; those sign others and authenticate nobody.
    #[error("it is a CA certificate, not one of a node")]
    CaCertificate,

    /// It may sign certificates or revocation lists, which no node may.
    #[error("it may sign certificates (key usage keyCertSign or cRLSign)")]
    CertificateSigner,

    /// The chain breaks another rule of RFC 5280.
    #[error("its chain is invalid: {reason}")]
    Chain {
        /// What the verifier said.
        reason: String,
    },

    /// Its common name is another than its node id; Go nodes read the common name.
    #[error("its common name is {found:?}, but its identity is {expected:?}")]
    CommonName {
        /// The node id of its identity.
        expected: String,
        /// The common name.
        found: String,
    },

    /// A certificate of the chain is no longer valid.
    #[error("{part} expired at {}, now is {}", Utc(*not_after), Utc(*now))]
    Expired {
        /// Which certificate of the chain.
        part: ChainPart,
        /// The end of its validity.
        not_after: SystemTime,
        /// The time by our clock.
        now: SystemTime,
    },

    /// Whoever showed it does not hold its key: somebody else's certificate was copied.
    #[error("the peer does not hold the private key of the certificate that it shows")]
    ForeignKey,

    /// It belongs to another trust domain.
    #[error("it belongs to the trust domain {found}, ours is {expected}")]
    ForeignTrustDomain {
        /// Our own trust domain.
        expected: TrustDomain,
        /// The certificate's.
        found: TrustDomain,
    },

    /// Its URI name is not `spiffe://<trust-domain>/aegis/<node-type>/<node-id>`.
    ///
    /// Identities that a platform gives to a workload, and so to all its replicas, look otherwise.
    #[error("its URI name is no identity of one node: {reason}")]
    Identity {
        /// The broken rule.
        reason: InvalidName,
    },

    /// It is not DER, or two parsers read it differently.
    #[error("it cannot be read: {reason}")]
    Malformed {
        /// What is wrong with it.
        reason: &'static str,
    },

    /// It may not make signatures, and with them no handshake.
    #[error("it may not make signatures (key usage digitalSignature is missing)")]
    NoDigitalSignature,

    /// It has no URI name and so no identity.
    #[error("it names no node: it has no URI name (spiffe://<trust-domain>/aegis/<type>/<id>)")]
    NoIdentity,

    /// A certificate of the chain is not valid yet.
    #[error("{part} is not valid before {}, now is {}; is a clock wrong?", Utc(*not_before), Utc(*now))]
    NotYetValid {
        /// Which certificate of the chain.
        part: ChainPart,
        /// The begin of its validity.
        not_before: SystemTime,
        /// The time by our clock.
        now: SystemTime,
    },

    /// A certificate is longer than [`MAX_CERTIFICATE_BYTES`](crate::MAX_CERTIFICATE_BYTES).
    #[error(
        "a certificate of its chain has {bytes} bytes; at most {} are read",
        crate::MAX_CERTIFICATE_BYTES
    )]
    Oversize {
        /// Its length.
        bytes: usize,
    },

    /// It has several URI names, so it does not say who it is.
    #[error("it has {count} URI names; a node has exactly one")]
    SeveralIdentities {
        /// How many.
        count: usize,
    },

    /// The chain is longer than [`MAX_CHAIN`](crate::MAX_CHAIN).
    #[error("its chain has {count} certificates; at most {} are read", crate::MAX_CHAIN)]
    TooManyCertificates {
        /// How many certificates were sent.
        count: usize,
    },

    /// No CA of our bundle issued it.
    #[error(
        "it was issued by a CA that is not in our bundle ({issuer}){}",
        if *namesake {
            ", although one of the same name is: was the CA made anew?"
        } else {
            "; both sides need one CA, or each the other's in its bundle"
        }
    )]
    UnknownCa {
        /// The name of the CA that the chain ends in.
        issuer: String,
        /// Whether our bundle holds a CA of this name with another key.
        namesake: bool,
    },

    /// Its key is too weak: RSA needs 2048 bits.
    #[error("its RSA key has {bits} bits; at least 2048 are needed")]
    WeakKey {
        /// The length of the modulus.
        bits: usize,
    },

    /// A certificate of the chain is signed with an algorithm that is not accepted, such as SHA-1.
    #[error("a certificate of its chain is signed with an algorithm that is not accepted (SHA-1?)")]
    WeakSignature,

    /// Its extended key usage does not allow this side of a connection, or it has none.
    #[error("it is not meant for a {purpose} (extended key usage)")]
    WrongPurpose {
        /// The side of the connection that showed it.
        purpose: Purpose,
    },
}

impl Rejection {
    /// A fixed word for metrics and logs, one per variant.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::CaCertificate => "ca_certificate",
            Self::CertificateSigner => "certificate_signer",
            Self::Chain { .. } => "chain",
            Self::CommonName { .. } => "common_name",
            Self::Expired { .. } => "expired",
            Self::ForeignKey => "foreign_key",
            Self::ForeignTrustDomain { .. } => "foreign_trust_domain",
            Self::Identity { .. } => "identity",
            Self::Malformed { .. } => "malformed",
            Self::NoDigitalSignature => "no_digital_signature",
            Self::NoIdentity => "no_identity",
            Self::NotYetValid { .. } => "not_yet_valid",
            Self::Oversize { .. } => "oversize",
            Self::SeveralIdentities { .. } => "several_identities",
            Self::TooManyCertificates { .. } => "too_many_certificates",
            Self::UnknownCa { .. } => "unknown_ca",
            Self::WeakKey { .. } => "weak_key",
            Self::WeakSignature => "weak_signature",
            Self::WrongPurpose { .. } => "wrong_purpose",
        }
    }
}

/// A certificate's place in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ChainPart {
    /// The node's own certificate.
    Leaf,
    /// A CA certificate that the peer sent along.
    Intermediate,
    /// The CA certificate in our own bundle.
    Root,
}

impl fmt::Display for ChainPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Leaf => "it",
            Self::Intermediate => "an intermediate certificate of its chain",
            Self::Root => "the CA that issued it",
        })
    }
}

/// The side of a connection that a certificate is shown by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Purpose {
    /// It dialled.
    Client,
    /// It accepted.
    Server,
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}
