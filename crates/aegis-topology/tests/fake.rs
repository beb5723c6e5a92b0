//! A CA, keys and a record format that cost nothing: what counts is that only an owner can sign.

use std::time::Duration;

use aegis_core::{NodeId, NodeType, ServiceInfo, SpiffeId, TrustDomain};
use aegis_topology::{
    Description, Evidence, Instance, Label, Limits, NodeState, Precedence, Record, Refusal,
    ServiceEntry, SignedRecord, Timestamp, Verified, Verify,
};
use bytes::Bytes;
use sha2::{Digest, Sha256};

pub(crate) const HOUR: Duration = Duration::from_secs(3_600);
pub(crate) const LEASE: Duration = Duration::from_secs(12 * 3_600);
pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
pub(crate) const DOMAIN: TrustDomain = TrustDomain::from_static("test");

pub(crate) fn identity(id: &str) -> SpiffeId {
    SpiffeId::new(DOMAIN, NodeType::from_static("worker"), NodeId::new(id).unwrap())
}

/// A record of `id`; those with different `port`s have different bodies.
pub(crate) fn record(id: &str, precedence: (u64, u64), port: u16) -> Record {
    let services = [ServiceEntry::new(ServiceInfo::from_static("identity", "v1"))];
    let address = format!("10.0.0.1:{port}").parse().unwrap();
    let description = Description::new(Label::default(), [address], services).unwrap();
    let precedence = Precedence::new(precedence.0, precedence.1);
    Record::new(identity(id), Instance::from_bytes([1; 16]), precedence, description, NOW, LEASE)
}

pub(crate) fn left(mut record: Record) -> Record {
    record.state = NodeState::Left;
    record.description = record.description.without_services();
    record
}

/// Signs as `signer`, whoever the record's owner is.
pub(crate) fn sign_as(signer: &SpiffeId, record: &Record) -> SignedRecord {
    let body = encode(record);
    let certificate = certificate(signer);
    let signature = signature(&certificate, &body);
    SignedRecord::new(body, vec![certificate], 0x0403, signature)
}

pub(crate) fn sign(record: &Record) -> SignedRecord {
    sign_as(&record.owner, record)
}

pub(crate) fn verify(signed: SignedRecord) -> Result<Verified, Refusal> {
    verify_at(signed, NOW)
}

pub(crate) fn verify_at(signed: SignedRecord, now: Timestamp) -> Result<Verified, Refusal> {
    Verified::new(signed, &FakeCa, &DOMAIN, &Limits::default(), now)
}

pub(crate) fn verified(record: &Record) -> Verified {
    verify_at(sign(record), record.issued_at).unwrap()
}

/// Knows its own certificates, which all hold until a year after [`NOW`].
pub(crate) struct FakeCa;

impl Verify for FakeCa {
    fn verify(&self, signed: &SignedRecord) -> Result<Evidence, Refusal> {
        let refused = || Refusal::Signature { source: "it does not hold".into() };
        let leaf = signed.chain.first().ok_or_else(refused)?;
        let (name, tag) =
            leaf.split_at_checked(leaf.len().saturating_sub(32)).ok_or_else(refused)?;
        if tag != digest(&[b"ca", name]) || signed.signature != signature(leaf, &signed.body) {
            return Err(refused());
        }
        if signed.scheme != 0x0403 {
            return Err(refused());
        }
        let owner = std::str::from_utf8(name).unwrap().parse().unwrap();
        Ok(Evidence::new(decode(&signed.body), owner, NOW.saturating_add(24 * 365 * HOUR)))
    }
}

fn certificate(owner: &SpiffeId) -> Bytes {
    let name = owner.to_string();
    [name.as_bytes(), &digest(&[b"ca", name.as_bytes()])].concat().into()
}

fn signature(certificate: &[u8], body: &[u8]) -> Bytes {
    Bytes::copy_from_slice(&digest(&[b"key", certificate, body]))
}

fn digest(parts: &[&[u8]]) -> [u8; 32] {
    parts.iter().fold(Sha256::new(), Digest::chain_update).finalize().into()
}

fn encode(record: &Record) -> Bytes {
    let state = match record.state {
        NodeState::Active => 1,
        NodeState::Draining => 2,
        _ => 3,
    };
    let service = record.description.services().first().map(|it| it.info().to_string());
    format!(
        "{} {} {} {} {} {} {} {} {}",
        record.owner,
        record.instance.as_bytes()[0],
        record.precedence.incarnation,
        record.precedence.revision,
        state,
        record.issued_at.as_millis(),
        record.expires_at.as_millis(),
        record.description.addresses().first().unwrap(),
        service.unwrap_or_default(),
    )
    .into()
}

fn decode(body: &[u8]) -> Record {
    let text = std::str::from_utf8(body).unwrap();
    let parts: Vec<_> = text.split(' ').collect();
    let number = |at: usize| parts[at].parse::<u64>().unwrap();
    let service = parts[8].parse().ok().map(ServiceEntry::new);
    let description =
        Description::new(Label::default(), [parts[7].parse().unwrap()], service).unwrap();
    let issued_at = Timestamp::from_millis(number(5));
    let mut record = Record::new(
        parts[0].parse().unwrap(),
        Instance::from_bytes([parts[1].parse().unwrap(); 16]),
        Precedence::new(number(2), number(3)),
        description,
        issued_at,
        Timestamp::from_millis(number(6)).since(issued_at),
    );
    record.state = match number(4) {
        1 => NodeState::Active,
        2 => NodeState::Draining,
        _ => NodeState::Left,
    };
    record
}
