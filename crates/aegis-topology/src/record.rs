use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::SpiffeId;
use bytes::Bytes;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::hex::Hex;
use crate::{Description, Key, Timestamp};

/// The one record of a node: what it says about itself, and until when.
///
/// Only its owner makes one; peers see it as a [`Verified`](crate::Verified) record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Record {
    /// The node's identity, which must be that of the certificate that signs the record.
    pub owner: SpiffeId,
    /// Which process of that identity this is.
    pub instance: Instance,
    /// How the record stands to others of the same owner.
    pub precedence: Precedence,
    /// Whether the node takes calls.
    pub state: NodeState,
    /// Names, addresses, services.
    pub description: Description,
    /// When the owner signed it, by its own clock.
    pub issued_at: Timestamp,
    /// When it is forgotten.
    pub expires_at: Timestamp,
}

impl Record {
    /// A record of a node that takes calls, valid for `lease` from `now`.
    pub fn new(
        owner: SpiffeId,
        instance: Instance,
        precedence: Precedence,
        description: Description,
        now: Timestamp,
        lease: Duration,
    ) -> Self {
        Self {
            owner,
            instance,
            precedence,
            state: NodeState::Active,
            description,
            issued_at: now,
            expires_at: now.saturating_add(lease),
        }
    }

    /// Where the record is kept.
    pub fn key(&self) -> Key {
        Key::of(self.owner.trust_domain(), self.owner.node_id())
    }
}

/// Whether a node takes calls, as it last said itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum NodeState {
    /// It takes calls, or did when it signed its record.
    ///
    /// A node that dies without a goodbye stays listed so until its record expires (12 h after it was signed, at the
    /// latest). Callers skip it by their own connections, and `explain` of a pool or client shows what is reachable.
    Active,
    /// It finishes what it has and takes no new calls.
    Draining,
    /// It said goodbye.
    Left,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Left => "left",
        })
    }
}

/// How records of one owner are ordered: a later run of the node first, then a later record of that run.
///
/// No clock of anybody else is involved, and no other node can raise it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub struct Precedence {
    /// Which run of the node: larger than that of every earlier run.
    pub incarnation: u64,
    /// Which record of that run.
    pub revision: u64,
}

impl Precedence {
    /// The place of a record in its owner's order.
    pub const fn new(incarnation: u64, revision: u64) -> Self {
        Self { incarnation, revision }
    }

    /// The next record of the same run.
    #[must_use]
    pub fn next(self) -> Self {
        // A run cannot sign that many records; a wrapped number would lose to the old one.
        match self.revision.checked_add(1) {
            Some(revision) => Self { revision, ..self },
            None => Self { incarnation: self.incarnation.saturating_add(1), revision: 0 },
        }
    }
}

/// A process: 16 random bytes drawn at its start.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Instance([u8; 16]);

impl Instance {
    /// The bytes that a process drew.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes that travel.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Hex(&self.0), f)
    }
}

/// A record as it travels: the body's bytes as the owner signed them, with certificate and signature.
///
/// The body is never encoded again, so fields that we do not know survive. Cloning shares the bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct SignedRecord {
    /// The encoded record.
    pub body: Bytes,
    /// The owner's certificate chain, leaf first, DER.
    pub chain: Arc<[Bytes]>,
    /// The TLS signature scheme.
    pub scheme: u16,
    /// The signature over the body.
    pub signature: Bytes,
}

impl SignedRecord {
    /// A record from its parts.
    pub fn new(body: Bytes, chain: impl Into<Arc<[Bytes]>>, scheme: u16, signature: Bytes) -> Self {
        Self { body, chain: chain.into(), scheme, signature }
    }

    /// The hash by which bodies are told apart.
    pub fn body_hash(&self) -> BodyHash {
        BodyHash(Sha256::digest(&self.body).into())
    }

    /// Bytes that the record takes in a message, roughly: for the bound of a page.
    pub(crate) fn weight(&self) -> usize {
        let chain: usize = self.chain.iter().map(|certificate| certificate.len() + 4).sum();
        self.body.len() + chain + self.signature.len() + 24
    }
}

/// SHA-256 of a record's body.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BodyHash([u8; 32]);

impl BodyHash {
    /// All bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The eight bytes that a stamp carries.
    pub fn short(&self) -> u64 {
        let (first, _) = self.0.split_first_chunk().unwrap_or((&[0; 8], &[]));
        u64::from_be_bytes(*first)
    }
}

impl fmt::Debug for BodyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Hex(&self.0), f)
    }
}
