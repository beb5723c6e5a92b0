use std::fmt;
use std::ops::RangeInclusive;

use aegis_core::{NodeId, TrustDomain};
use sha2::{Digest, Sha256};

use crate::hex::Hex;

/// A node's place in the directory: 16 bytes of the hash of its trust domain and id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key([u8; 16]);

impl Key {
    /// The key of a node.
    pub fn of(trust_domain: &TrustDomain, node_id: &NodeId) -> Self {
        let mut hash = Sha256::new();
        hash.update(trust_domain.as_str());
        hash.update([0]);
        hash.update(node_id.as_str());
        Self(first_half(&hash.finalize().into()))
    }

    /// A key as a peer sent it.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The bytes that travel.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Which of the 256 buckets of the sync exchange holds the key.
    pub(crate) fn bucket(&self) -> u8 {
        let [first, ..] = self.0;
        first
    }

    /// The first and the last key of a bucket.
    pub(crate) fn bounds(bucket: u8) -> RangeInclusive<Self> {
        let end = |fill| {
            let mut key = [fill; 16];
            let [first, ..] = &mut key;
            *first = bucket;
            Self(key)
        };
        end(0)..=end(u8::MAX)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Hex(&self.0), f)
    }
}

/// The first 16 bytes of a SHA-256 value.
pub(crate) fn first_half(hash: &[u8; 32]) -> [u8; 16] {
    let mut half = [0; 16];
    half.copy_from_slice(hash.split_at(16).0);
    half
}
