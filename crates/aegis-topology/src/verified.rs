use std::error::Error;

use aegis_core::{NodeId, SpiffeId, TrustDomain};

use crate::{BodyHash, Key, Limits, NodeState, Precedence, Record, SignedRecord, Stamp, Timestamp};

/// Checks who signed a record and reads its body: aegis-tls in a real node, a fake in the simulator.
pub trait Verify {
    /// Says who signed `record`, until when that certificate holds, and what the body says.
    ///
    /// # Errors
    /// [`Refusal::Signature`] or [`Refusal::Body`].
    fn verify(&self, record: &SignedRecord) -> Result<Evidence, Refusal>;
}

/// What a signature proves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Evidence {
    /// What the signed body says.
    pub record: Record,
    /// Whom the certificate names.
    pub signer: SpiffeId,
    /// When that certificate ends.
    pub not_after: Timestamp,
}

impl Evidence {
    /// Evidence from its parts.
    pub fn new(record: Record, signer: SpiffeId, not_after: Timestamp) -> Self {
        Self { record, signer, not_after }
    }
}

/// A record that its owner signed, within all rules: the only thing a directory takes from a peer.
#[derive(Clone, Debug)]
pub struct Verified {
    record: Record,
    signed: SignedRecord,
    stamp: Stamp,
    hash: BodyHash,
}

impl Verified {
    /// Checks a record as it came from a peer; sizes first, then signature, then what it says.
    ///
    /// # Errors
    /// [`Refusal`] names the broken rule.
    pub fn new(
        signed: SignedRecord,
        verify: &impl Verify,
        trust_domain: &TrustDomain,
        limits: &Limits,
        now: Timestamp,
    ) -> Result<Self, Refusal> {
        check_size(&signed, limits)?;
        let evidence = verify.verify(&signed)?;
        check_claims(&evidence, trust_domain, limits, now)?;
        let record = evidence.record;
        let hash = signed.body_hash();
        let stamp = Stamp::new(record.key(), record.precedence, hash.short());
        Ok(Self { record, signed, stamp, hash })
    }

    /// What the owner says.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The record as it travels.
    pub fn signed(&self) -> &SignedRecord {
        &self.signed
    }

    /// The record in brief.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Where the record is kept.
    pub fn key(&self) -> Key {
        self.stamp.key
    }

    /// The hash of its body.
    pub fn body_hash(&self) -> BodyHash {
        self.hash
    }

    /// Its place among its owner's records.
    pub fn precedence(&self) -> Precedence {
        self.stamp.precedence
    }
}

/// Checks the bounds of a record, for those who want to know before they decode it.
///
/// # Errors
/// [`Refusal::TooLarge`].
pub fn check_size(signed: &SignedRecord, limits: &Limits) -> Result<(), Refusal> {
    let chain: usize = signed.chain.iter().map(bytes::Bytes::len).sum();
    let parts = [
        ("body", signed.body.len(), limits.body),
        ("certificate chain", chain, limits.chain),
        ("number of certificates", signed.chain.len(), limits.certificates),
        ("signature", signed.signature.len(), MAX_SIGNATURE),
    ];
    match parts.into_iter().find(|(_, size, limit)| limit < size) {
        Some((part, size, limit)) => Err(Refusal::TooLarge { part, size, limit }),
        None => Ok(()),
    }
}

/// RSA with 8,192 bits.
const MAX_SIGNATURE: usize = 1_024;

fn check_claims(
    evidence: &Evidence,
    trust_domain: &TrustDomain,
    limits: &Limits,
    now: Timestamp,
) -> Result<(), Refusal> {
    let Evidence { record, signer, not_after } = evidence;
    if record.owner != *signer {
        return Err(Refusal::NotTheOwner {
            owner: Box::new(record.owner.clone()),
            signer: Box::new(signer.clone()),
        });
    }
    let node = || record.owner.node_id().clone();
    if record.owner.trust_domain() != trust_domain {
        return Err(Refusal::TrustDomain { owner: Box::new(record.owner.clone()) });
    }
    if record.expires_at <= now {
        return Err(Refusal::Expired { node: node(), expired_at: record.expires_at });
    }
    if now.saturating_add(limits.skew) < record.issued_at {
        return Err(Refusal::Clock { node: node(), ahead: record.issued_at.since(now) });
    }
    if limits.lease < record.expires_at.since(record.issued_at) {
        return Err(Refusal::Lease { node: node() });
    }
    if *not_after < record.expires_at {
        return Err(Refusal::OutlivesCertificate { node: node() });
    }
    let latest = now.saturating_add(limits.incarnation_lead).as_millis();
    if latest < record.precedence.incarnation {
        return Err(Refusal::Incarnation {
            node: node(),
            incarnation: record.precedence.incarnation,
        });
    }
    if record.state == NodeState::Left && !record.description.services().is_empty() {
        return Err(Refusal::LeftWithServices { node: node() });
    }
    Ok(())
}

/// Why a record was not taken. Nothing was changed; the record's owner or, for a bad signature or size, its sender has to act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The signed bytes are no record.
    #[error("the record cannot be read")]
    Body {
        /// What is wrong with it; its type is not part of the contract.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The owner's clock is ahead of ours.
    #[error(
        "the record of {node} was issued {ahead:?} in the future: one of the two clocks is wrong"
    )]
    Clock {
        /// The owner.
        node: NodeId,
        /// By how much.
        ahead: std::time::Duration,
    },
    /// It is over.
    #[error("the record of {node} has expired")]
    Expired {
        /// The owner.
        node: NodeId,
        /// When.
        expired_at: Timestamp,
    },
    /// The run's number is so far ahead that an honest restart could not pass it.
    #[error(
        "the record of {node} claims incarnation {incarnation}, which is more than a day ahead"
    )]
    Incarnation {
        /// The owner.
        node: NodeId,
        /// The number.
        incarnation: u64,
    },
    /// Its validity is longer than leases are.
    #[error("the record of {node} is valid for longer than a lease")]
    Lease {
        /// The owner.
        node: NodeId,
    },
    /// A node that left serves nothing.
    #[error("the record of {node} says that the node left, and advertises services")]
    LeftWithServices {
        /// The owner.
        node: NodeId,
    },
    /// Somebody signed a record for somebody else.
    #[error("the record of {owner} is signed by {signer}")]
    NotTheOwner {
        /// Whose record it claims to be.
        owner: Box<SpiffeId>,
        /// Who signed it.
        signer: Box<SpiffeId>,
    },
    /// It is valid for longer than the certificate that signed it.
    #[error("the record of {node} outlives its certificate")]
    OutlivesCertificate {
        /// The owner.
        node: NodeId,
    },
    /// The signature or its certificate does not hold.
    #[error("the record's signature does not hold")]
    Signature {
        /// Why; its type is not part of the contract.
        source: Box<dyn Error + Send + Sync>,
    },
    /// A part is larger than allowed.
    #[error("the record's {part} is {size}, more than {limit}")]
    TooLarge {
        /// Which part.
        part: &'static str,
        /// What it is.
        size: usize,
        /// What it may be.
        limit: usize,
    },
    /// It belongs to another mesh.
    #[error("the record of {owner} belongs to another trust domain")]
    TrustDomain {
        /// The owner.
        owner: Box<SpiffeId>,
    },
}
