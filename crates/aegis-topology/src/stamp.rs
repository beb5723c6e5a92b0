use std::fmt;

use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::hex::Hex;
use crate::key::first_half;
use crate::{Key, Precedence};

/// A record in brief, by which two directories are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Stamp {
    /// Whose record.
    pub key: Key,
    /// Which record.
    pub precedence: Precedence,
    /// Eight bytes of the hash of its body.
    pub hash: u64,
}

impl Stamp {
    /// A stamp as a peer sent it.
    pub const fn new(key: Key, precedence: Precedence, hash: u64) -> Self {
        Self { key, precedence, hash }
    }

    /// Says of a key that nothing is known: older than every record.
    pub const fn unknown(key: Key) -> Self {
        Self { key, precedence: Precedence::new(0, 0), hash: 0 }
    }

    fn root(&self) -> Root {
        let mut hash = Sha256::new();
        hash.update(self.key.as_bytes());
        hash.update(self.precedence.incarnation.to_be_bytes());
        hash.update(self.precedence.revision.to_be_bytes());
        hash.update(self.hash.to_be_bytes());
        Root(u128::from_be_bytes(first_half(&hash.finalize().into())))
    }
}

/// A set of records in 16 bytes: equal roots mean equal records.
///
/// The sum of the hashed stamps modulo 2^128, so one change costs two additions (the additive set hash of Bellare and
/// Micciancio, 1997). Each owner controls one summand only, hence nobody can steer the sum.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Root(u128);

impl Root {
    /// A root as a peer sent it.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// The bytes that travel.
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    pub(crate) fn add(&mut self, stamp: &Stamp) {
        self.0 = self.0.wrapping_add(stamp.root().0);
    }

    pub(crate) fn remove(&mut self, stamp: &Stamp) {
        self.0 = self.0.wrapping_sub(stamp.root().0);
    }
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&Hex(&self.to_bytes()), f)
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Root {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A state of the directory as one node sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
pub struct TopologyVersion {
    /// Grows with each change that this process sees; means nothing elsewhere.
    pub epoch: u64,
    /// The same on two nodes exactly if their directories hold the same records.
    pub root: Root,
}

impl fmt::Display for TopologyVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.root)
    }
}
