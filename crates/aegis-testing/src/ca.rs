use std::time::{Duration, SystemTime};

use aegis_core::{NodeId, NodeType, TrustDomain};
use aegis_tls::{Caller, Expected, Subject, Tls, TlsOptions};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::OffsetDateTime;

use crate::flaw::Flaw;
use crate::key::KeyKind;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Bytes in flight on one direction of a pipe: a whole handshake fits.
const PIPE: usize = 64 * 1024;
const TRUST_DOMAIN: TrustDomain = TrustDomain::from_static("mesh.test");

/// A CA for tests, made anew in memory: its certificates are good, or bad in exactly one point.
///
/// ```
/// use aegis_testing::TestCa;
///
/// let ca = TestCa::new();
/// let tls = ca.tls("morpheus-1", "identity-server");
/// assert_eq!(tls.spiffe_id().to_string(), "spiffe://mesh.test/aegis/identity-server/morpheus-1");
/// ```
///
/// Certificates have a key on P-256 and are good from yesterday on for 30 days, unless a method says otherwise.
/// Every one comes as a [`TestCert`] with the CA to trust it by.
#[derive(Debug)]
pub struct TestCa {
    trust_domain: TrustDomain,
    name: String,
    issuer: Issuer<'static, KeyPair>,
    /// What a node sends along after its own certificate.
    intermediates: String,
    root_pem: String,
}

/// When a certificate is valid, seen from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Validity {
    /// It ended yesterday.
    Expired,
    /// It begins tomorrow.
    NotYet,
    /// From yesterday on, for 30 days.
    Now,
}

impl Validity {
    pub(crate) fn apply(self, params: &mut CertificateParams) {
        let now = SystemTime::now();
        let (from, to) = match self {
            Self::Expired => (now - 2 * DAY, now - DAY),
            Self::NotYet => (now + DAY, now + 2 * DAY),
            Self::Now => (now - DAY, now + 30 * DAY),
        };
        params.not_before = OffsetDateTime::from(from);
        params.not_after = OffsetDateTime::from(to);
    }
}

/// A certificate of a node with its key, and the root to trust it by; all PEM.
#[derive(Clone)]
#[non_exhaustive]
pub struct TestCert {
    /// The certificate, then its intermediates.
    pub certificate_pem: String,
    /// The private key, PKCS#8.
    pub key_pem: String,
    /// The root of the CA that issued it.
    pub ca_pem: String,
}

impl TestCert {
    /// The certificates as DER, leaf first.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.certificate_pem.as_bytes())
            .collect::<Result<_, _>>()
            .expect("certificates of TestCa are PEM")
    }

    /// The private key as DER.
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).expect("keys of TestCa are PEM")
    }

    /// Its own options: certificate, key, and its CA as the bundle.
    pub fn options(&self) -> TlsOptions {
        TlsOptions::pem(self.certificate_pem.as_str(), self.key_pem.as_str(), self.ca_pem.as_str())
    }

    /// The same certificate, with these CAs as the bundle in the place of its own.
    ///
    /// A change of CA, half-way: nodes of the old and of the new one trust both.
    ///
    /// ```
    /// use aegis_testing::TestCa;
    /// use aegis_tls::Subject;
    ///
    /// let (old, new) = (TestCa::new(), TestCa::new());
    /// let options = new.issue("morpheus-1", "identity-server").trusting(&[&old, &new]).options();
    /// assert!(options.load(&Subject::any()).is_ok());
    /// ```
    #[must_use]
    pub fn trusting(mut self, cas: &[&TestCa]) -> Self {
        self.ca_pem = cas.iter().map(|ca| ca.root_pem()).collect();
        self
    }
}

impl std::fmt::Debug for TestCert {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TestCert").finish_non_exhaustive()
    }
}

impl Default for TestCa {
    fn default() -> Self {
        Self::new()
    }
}

impl TestCa {
    /// A good CA for the trust domain `mesh.test`. Two of them do not trust each other.
    pub fn new() -> Self {
        Self::with_validity(Validity::Now)
    }

    /// A CA whose root is valid then.
    pub fn with_validity(validity: Validity) -> Self {
        let key = generate();
        // The name tells apart CAs that a test puts into one bundle.
        let bytes = key.public_key_raw().iter().skip(1).take(8);
        let name = bytes.fold(0_u64, |name, byte| name << 8 | u64::from(*byte));
        Self::root(format!("test CA {name:016x}"), key, validity, TRUST_DOMAIN)
    }

    /// A CA of the same name with another key, as after somebody deleted the first one.
    #[must_use]
    pub fn namesake(&self) -> Self {
        Self::root(self.name.clone(), generate(), Validity::Now, self.trust_domain.clone())
    }

    /// A CA of this name, which may be as hostile as text can be.
    pub fn named(name: &str) -> Self {
        Self::root(name.to_owned(), generate(), Validity::Now, TRUST_DOMAIN)
    }

    /// The root certificate, for a bundle.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// An intermediate CA of this one, valid then; what it issues sends its certificate along.
    #[must_use]
    pub fn intermediate(&self, validity: Validity) -> Self {
        self.intermediate_with(|params| validity.apply(params))
    }

    /// An intermediate CA whose key usage does not let it sign certificates.
    #[must_use]
    pub fn intermediate_that_may_not_sign(&self) -> Self {
        self.intermediate_with(|params| params.key_usages = vec![KeyUsagePurpose::CrlSign])
    }

    fn intermediate_with(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = generate();
        let name = format!("intermediate of {}", self.name);
        let mut params = ca_params(&name, Validity::Now);
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).expect("an intermediate is signed");
        Self {
            trust_domain: self.trust_domain.clone(),
            name,
            issuer: Issuer::new(params, key),
            intermediates: certificate.pem() + &self.intermediates,
            root_pem: self.root_pem.clone(),
        }
    }

    /// A cross-signed twin of this root: its name and key, signed by another CA.
    pub fn cross_signed_by(&self, other: &Self) -> String {
        let params = ca_params(&self.name, Validity::Now);
        params.signed_by(self.issuer.key(), &other.issuer).expect("a root is cross-signed").pem()
    }

    /// A good certificate for a node.
    ///
    /// # Panics
    /// If `id` or `node_type` is no valid name, as all of these helpers.
    #[track_caller]
    pub fn issue(&self, id: &str, node_type: &str) -> TestCert {
        let params = self.leaf_params(&parse_id(id), &parse_type(node_type));
        self.sign(&params, &generate())
    }

    /// A good certificate with a key of this kind.
    #[track_caller]
    pub fn issue_with(&self, kind: KeyKind, id: &str, node_type: &str) -> TestCert {
        self.sign(&self.leaf_params(&parse_id(id), &parse_type(node_type)), &kind.generate())
    }

    /// A certificate whose only name is this URI.
    ///
    /// # Panics
    /// If it is not ASCII.
    pub fn issue_as(&self, uri: &str) -> TestCert {
        let mut params = self.leaf_params(&parse_id("nobody"), &parse_type("nobody"));
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(ia5(uri))];
        self.sign(&params, &generate())
    }

    /// A certificate that is bad in one point and good in all others.
    ///
    /// ```
    /// use aegis_testing::{Flaw, TestCa};
    /// use aegis_tls::{LoadError, Rejection, Subject};
    ///
    /// let bad = TestCa::new().issue_bad("morpheus-1", "identity-server", Flaw::NoUriSan);
    /// let error = bad.options().load(&Subject::any()).unwrap_err();
    /// assert!(matches!(error, LoadError::Rejected { reason: Rejection::NoIdentity, .. }));
    /// ```
    #[track_caller]
    pub fn issue_bad(&self, id: &str, node_type: &str, flaw: Flaw) -> TestCert {
        let (id, node_type) = (parse_id(id), parse_type(node_type));
        let mut params = self.leaf_params(&id, &node_type);
        flaw.apply_to_params(&mut params, &self.trust_domain, &node_type, &id);
        let mut cert = self.sign(&params, &generate());
        flaw.apply_to_chain(&mut cert.certificate_pem, &self.root_pem);
        cert
    }

    /// A certificate for `id` that the ordinary node `signer` signed with its own key.
    #[track_caller]
    pub fn issue_by_node(&self, signer: &str, id: &str, node_type: &str) -> TestCert {
        let (params, key) =
            (self.leaf_params(&parse_id(signer), &parse_type(node_type)), generate());
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate is signed");
        let node = Self {
            trust_domain: self.trust_domain.clone(),
            name: signer.to_owned(),
            issuer: Issuer::new(params, key),
            intermediates: certificate.pem() + &self.intermediates,
            root_pem: self.root_pem.clone(),
        };
        node.issue(id, node_type)
    }

    /// Options with a good certificate for a node and this CA as its bundle.
    #[track_caller]
    pub fn options(&self, id: &str, node_type: &str) -> TlsOptions {
        self.issue(id, node_type).options()
    }

    /// A node's loaded TLS state.
    #[track_caller]
    pub fn tls(&self, id: &str, node_type: &str) -> Tls {
        let subject = Subject::new(parse_id(id), parse_type(node_type));
        self.options(id, node_type).load(&subject).expect("certificates of TestCa load")
    }

    /// A caller with a good certificate of this CA, as a handler meets it: for tests that call a handler directly.
    ///
    /// It is what a server makes of a connection, since nothing else makes one: here over a pipe, in a few milliseconds.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use aegis_testing::TestCa;
    /// use aegis_tls::Caller;
    ///
    /// let mut request = tonic::Request::new(());
    /// request.extensions_mut().insert(TestCa::new().caller("vicky-1", "storage").await);
    /// assert_eq!(Caller::from_request(&request).unwrap().node_id().as_str(), "vicky-1");
    /// # }
    /// ```
    pub async fn caller(&self, id: &str, node_type: &str) -> Caller {
        let (client, server) = (self.tls(id, node_type), self.tls("server", "test"));
        let (near, far) = tokio::io::duplex(PIPE);
        let (connected, accepted) =
            tokio::join!(client.connect(Expected::AnyMember, near), server.accept(far));
        drop(connected.expect("certificates of one TestCa are accepted"));
        accepted.expect("certificates of one TestCa are accepted").caller
    }

    fn root(name: String, key: KeyPair, validity: Validity, trust_domain: TrustDomain) -> Self {
        let params = ca_params(&name, validity);
        let root = params.self_signed(&key).expect("a root is signed");
        let issuer = Issuer::new(params, key);
        Self { trust_domain, name, issuer, intermediates: String::new(), root_pem: root.pem() }
    }

    fn leaf_params(&self, id: &NodeId, node_type: &NodeType) -> CertificateParams {
        let mut params = CertificateParams::default();
        Validity::Now.apply(&mut params);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, id.as_str());
        let identity = format!("spiffe://{}/aegis/{node_type}/{id}", self.trust_domain);
        params.subject_alt_names.push(SanType::URI(ia5(&identity)));
        if id.is_dns_name() {
            params.subject_alt_names.push(SanType::DnsName(ia5(id.as_str())));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        params
    }

    fn sign(&self, params: &CertificateParams, key: &KeyPair) -> TestCert {
        let certificate: Certificate =
            params.signed_by(key, &self.issuer).expect("a certificate is signed");
        TestCert {
            certificate_pem: certificate.pem() + &self.intermediates,
            key_pem: key.serialize_pem(),
            ca_pem: self.root_pem.clone(),
        }
    }
}

fn ca_params(name: &str, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    validity.apply(&mut params);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

#[track_caller]
fn parse_id(id: &str) -> NodeId {
    id.parse().expect("a valid node id")
}

#[track_caller]
fn parse_type(node_type: &str) -> NodeType {
    node_type.parse().expect("a valid node type")
}

fn generate() -> KeyPair {
    KeyKind::P256.generate()
}

pub(crate) fn ia5(text: &str) -> Ia5String {
    text.try_into().expect("names are ASCII")
}
