use aegis_core::{NodeId, NodeType, TrustDomain};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyUsagePurpose, SanType,
};

use crate::ca::{Validity, ia5};

/// The one point in which a certificate of [`TestCa::issue_bad`](crate::TestCa::issue_bad) is bad.
///
/// What is wrong with the CA rather than the certificate is made by the CA's own constructors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Flaw {
    /// It is a CA certificate.
    CaLeaf,
    /// Its common name is another node's id.
    CommonName,
    /// It may sign revocation lists.
    CrlSign,
    /// It ended yesterday.
    Expired,
    /// Its identity is of another trust domain, signed by the same CA.
    ForeignTrustDomain,
    /// Its identity has another path than ours.
    ForeignPath,
    /// Its common name is long and full of control characters.
    HostileCommonName,
    /// A DNS name of it is none, so two parsers disagree on its names.
    InvalidDnsName,
    /// It may sign certificates, without being marked a CA.
    KeyCertSign,
    /// Its key usage is keyEncipherment.
    NoDigitalSignature,
    /// It has no extended key usage, so it says for neither side that it is meant for it.
    NoExtendedKeyUsage,
    /// It has no key usage at all.
    NoKeyUsage,
    /// It has no URI name.
    NoUriSan,
    /// It begins tomorrow.
    NotYetValid,
    /// It serves as a client's only.
    OnlyClientAuth,
    /// It serves as a server's only.
    OnlyServerAuth,
    /// It is longer than 16 KiB.
    Oversize,
    /// It is followed by four more certificates.
    TooManyCertificates,
    /// It has a second identity.
    TwoUriSans,
}

impl Flaw {
    /// Every flaw, for a matrix.
    pub const ALL: [Self; 19] = [
        Self::CaLeaf,
        Self::CommonName,
        Self::CrlSign,
        Self::Expired,
        Self::ForeignTrustDomain,
        Self::ForeignPath,
        Self::HostileCommonName,
        Self::InvalidDnsName,
        Self::KeyCertSign,
        Self::NoDigitalSignature,
        Self::NoExtendedKeyUsage,
        Self::NoKeyUsage,
        Self::NoUriSan,
        Self::NotYetValid,
        Self::OnlyClientAuth,
        Self::OnlyServerAuth,
        Self::Oversize,
        Self::TooManyCertificates,
        Self::TwoUriSans,
    ];

    pub(crate) fn apply_to_params(
        self,
        params: &mut CertificateParams,
        domain: &TrustDomain,
        node_type: &NodeType,
        id: &NodeId,
    ) {
        let names = &mut params.subject_alt_names;
        let uri = |text: String| SanType::URI(ia5(&text));
        let is_uri = |name: &SanType| matches!(name, SanType::URI(_));
        match self {
            Self::CaLeaf => params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            Self::CommonName => {
                params.distinguished_name.remove(DnType::CommonName);
                params.distinguished_name.push(DnType::CommonName, format!("not-{id}"));
            }
            Self::CrlSign => params.key_usages.push(KeyUsagePurpose::CrlSign),
            Self::Expired => Validity::Expired.apply(params),
            Self::ForeignTrustDomain => {
                names.retain(|name| !is_uri(name));
                names.push(uri(format!("spiffe://other.test/aegis/{node_type}/{id}")));
            }
            Self::ForeignPath => {
                names.retain(|name| !is_uri(name));
                names.push(uri(format!("spiffe://{domain}/ns/{node_type}/sa/{id}")));
            }
            Self::HostileCommonName => {
                let name = "\u{1b}[31m\n\u{202e}\0".repeat(100);
                params.distinguished_name.remove(DnType::CommonName);
                params.distinguished_name.push(DnType::CommonName, name);
            }
            Self::InvalidDnsName => names.push(SanType::DnsName(ia5("no name\n"))),
            Self::KeyCertSign => params.key_usages.push(KeyUsagePurpose::KeyCertSign),
            Self::NoDigitalSignature => params.key_usages = vec![KeyUsagePurpose::KeyEncipherment],
            Self::NoExtendedKeyUsage => params.extended_key_usages.clear(),
            Self::NoKeyUsage => params.key_usages.clear(),
            Self::NoUriSan => names.retain(|name| !is_uri(name)),
            Self::NotYetValid => Validity::NotYet.apply(params),
            Self::OnlyClientAuth => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }
            Self::OnlyServerAuth => {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
            }
            Self::Oversize => {
                // A private arc that nobody reads.
                let oid = [1, 3, 6, 1, 4, 1, 99_999, 1];
                let padding = vec![0; 17 * 1024];
                params.custom_extensions.push(CustomExtension::from_oid_content(&oid, padding));
            }
            Self::TooManyCertificates => {}
            Self::TwoUriSans => {
                names.push(uri(format!("spiffe://{domain}/aegis/{node_type}/second-{id}")));
            }
        }
    }

    pub(crate) fn apply_to_chain(self, chain_pem: &mut String, root_pem: &str) {
        if self == Self::TooManyCertificates {
            for _ in 0..4 {
                chain_pem.push_str(root_pem);
            }
        }
    }
}
