use std::time::{Duration, SystemTime};

use aegis_core::{NodeId, NodeType, SpiffeId};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyUsagePurpose, SanType, SerialNumber,
};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::DevCaError;
use super::key::PrivateKey;
use crate::Subject;
use crate::verify::{DEVELOPMENT_CA, DEVELOPMENT_DOMAIN};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
pub(super) const CA_LIFE: Duration = DAY.saturating_mul(30);
pub(super) const LEAF_LIFE: Duration = DAY.saturating_mul(7);
/// For clocks that are behind ours.
const BACKDATED: Duration = Duration::from_secs(5 * 60);

/// A certificate and its key, as PEM.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: Zeroizing<String>,
}

/// The identity that a development CA gives a node.
pub(super) fn identity(id: &NodeId, node_type: &NodeType) -> SpiffeId {
    SpiffeId::new(DEVELOPMENT_DOMAIN, node_type.clone(), id.clone())
}

/// The DNS names of a node's certificate: its id, for peers that verify by DNS, and the services it may provide.
///
/// Never `localhost`: whoever holds such a certificate would pass for any other node on the host.
pub(super) fn dns_names(id: &NodeId, subject: &Subject) -> Vec<String> {
    let own = id.is_dns_name().then(|| id.as_str().to_owned());
    let grants = subject.granted().map(|service| format!("{service}.svc.{DEVELOPMENT_DOMAIN}"));
    own.into_iter().chain(grants).collect()
}

pub(super) fn make_ca(now: SystemTime) -> Result<Pair, DevCaError> {
    let key = PrivateKey::generate()?;
    let mut params = CertificateParams::default();
    let [first, second, third, fourth, ..] = random()?;
    // Of its own, so that two CAs can be told apart by name.
    let name = format!("{DEVELOPMENT_CA} {first:02x}{second:02x}{third:02x}{fourth:02x}");
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, DEVELOPMENT_CA);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.serial_number = Some(SerialNumber::from_slice(&random()?));
    params.not_before = OffsetDateTime::from(now - BACKDATED);
    params.not_after = OffsetDateTime::from(now + CA_LIFE);
    let certificate = params.self_signed(&key).map_err(DevCaError::crypto)?;
    Ok(Pair { certificate: certificate.pem(), key: key.pem() })
}

pub(super) fn make_leaf(
    issuer: &Issuer<'_, PrivateKey>,
    (id, node_type): &(NodeId, NodeType),
    subject: &Subject,
    now: SystemTime,
    not_after: SystemTime,
) -> Result<Pair, DevCaError> {
    let key = PrivateKey::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, id.as_str());
    let text = |name: String| Ia5String::try_from(name).map_err(DevCaError::crypto);
    params.subject_alt_names.push(SanType::URI(text(identity(id, node_type).to_string())?));
    for name in dns_names(id, subject) {
        params.subject_alt_names.push(SanType::DnsName(text(name)?));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.serial_number = Some(SerialNumber::from_slice(&random()?));
    params.not_before = OffsetDateTime::from(now - BACKDATED);
    params.not_after = OffsetDateTime::from(not_after);
    let certificate = params.signed_by(&key, issuer).map_err(DevCaError::crypto)?;
    Ok(Pair { certificate: certificate.pem(), key: key.pem() })
}

/// The 128 bits of a serial number.
fn random() -> Result<[u8; 16], DevCaError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(DevCaError::crypto)?;
    Ok(bytes)
}
