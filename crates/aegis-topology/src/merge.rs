use std::cmp::Ordering;

use crate::{BodyHash, Precedence, Verified};

/// What decides between two records of one owner.
///
/// The order is total, so merging by "the greater one stays" is commutative, associative and idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) precedence: Precedence,
    pub(crate) hash: BodyHash,
}

impl Claim {
    pub(crate) fn of(record: &Verified) -> Self {
        Self { precedence: record.precedence(), hash: record.body_hash() }
    }

    /// Whether the owner signed two different records with one number.
    pub(crate) fn equivocates(&self, other: &Self) -> bool {
        self.precedence == other.precedence && self.hash != other.hash
    }
}

impl Ord for Claim {
    fn cmp(&self, other: &Self) -> Ordering {
        // An owner that equivocates must not split the mesh: every node keeps the smaller hash.
        self.precedence.cmp(&other.precedence).then_with(|| other.hash.cmp(&self.hash))
    }
}

impl PartialOrd for Claim {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
