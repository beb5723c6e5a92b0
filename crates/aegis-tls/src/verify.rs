use std::borrow::Cow;
use std::time::SystemTime;

use aegis_core::{Printable, TrustDomain};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls_pki_types::{CertificateDer, TrustAnchor};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};
use x509_cert::Certificate;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::ext::pkix::name::DirectoryString;

use crate::clock::{system, unix};
use crate::leaf::{Leaf, check_dates, is_ca, key_usage, parse};
use crate::{ChainPart, Purpose, Rejection};

/// The longest chain that is read, the leaf included.
pub const MAX_CHAIN: usize = 4;
/// The longest certificate that is read.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// The trust domain of certificates that a development CA issued.
pub(crate) const DEVELOPMENT_DOMAIN: TrustDomain = TrustDomain::from_static("dev.aegis.local");
/// The organization in the subject of a development CA: what marks it as one.
pub(crate) const DEVELOPMENT_CA: &str = "aegis development CA";
const ORGANIZATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.10");

/// A CA certificate that the operator trusts.
#[derive(Debug)]
pub(crate) struct Root {
    anchor: TrustAnchor<'static>,
    not_before: SystemTime,
    not_after: SystemTime,
    development: bool,
}

impl Root {
    pub(crate) fn parse(der: &CertificateDer<'_>) -> Result<Self, Rejection> {
        let certificate = parse(der)?;
        if !is_ca(&certificate)? || key_usage(&certificate)?.is_some_and(|it| !it.key_cert_sign()) {
            return Err(Rejection::Malformed { reason: "it is not the certificate of a CA" });
        }
        let anchor = anchor_from_trusted_cert(der).map_err(|error| chain_error(&error))?;
        let validity = certificate.tbs_certificate().validity();
        Ok(Self {
            anchor: anchor.to_owned(),
            not_before: validity.not_before.to_system_time(),
            not_after: validity.not_after.to_system_time(),
            development: is_development(&certificate),
        })
    }

    /// Whether a developer's directory holds the key of this CA.
    pub(crate) fn is_development(&self) -> bool {
        self.development
    }

    #[cfg(feature = "dev-ca")]
    pub(crate) fn not_before(&self) -> SystemTime {
        self.not_before
    }

    #[cfg(feature = "dev-ca")]
    pub(crate) fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// webpki knows no dates of a trust anchor, so an expired root would vouch for ever.
    pub(crate) fn check_dates(&self, now: SystemTime) -> Result<(), Rejection> {
        check_dates(ChainPart::Root, self.not_before, self.not_after, now)
    }
}

/// The rules by which a certificate chain proves an identity, for both directions.
#[derive(Debug)]
pub(crate) struct ChainVerifier {
    roots: Vec<Root>,
    anchors: Vec<TrustAnchor<'static>>,
    trust_domain: TrustDomain,
    pub(crate) algorithms: WebPkiSupportedAlgorithms,
}

impl ChainVerifier {
    pub(crate) fn new(
        trust_domain: TrustDomain,
        roots: Vec<Root>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        let anchors = roots.iter().map(|root| root.anchor.clone()).collect();
        Self { roots, anchors, trust_domain, algorithms }
    }

    pub(crate) fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Checks everything about a chain except whom it names.
    pub(crate) fn verify(
        &self,
        chain: &[CertificateDer<'_>],
        purpose: Purpose,
        now: SystemTime,
    ) -> Result<Leaf, Rejection> {
        if MAX_CHAIN < chain.len() {
            return Err(Rejection::TooManyCertificates { count: chain.len() });
        }
        if let Some(der) = chain.iter().find(|der| MAX_CERTIFICATE_BYTES < der.len()) {
            return Err(Rejection::Oversize { bytes: der.len() });
        }
        let Some((der, intermediates)) = chain.split_first() else {
            return Err(Rejection::Malformed { reason: "the chain is empty" });
        };
        // webpki would name CA certificates only as one of many chain errors, so the profile goes first.
        let end_entity = EndEntityCert::try_from(der).map_err(|error| chain_error(&error))?;
        let leaf = Leaf::parse(der, &end_entity)?;
        if leaf.spiffe_id.trust_domain() != &self.trust_domain {
            return Err(Rejection::ForeignTrustDomain {
                expected: self.trust_domain.clone(),
                found: leaf.spiffe_id.trust_domain().clone(),
            });
        }
        leaf.check_dates(now)?;
        // Not by `KeyUsage::required` below: webpki would ask it of each CA of the chain, too.
        if !leaf.has_purpose {
            return Err(Rejection::WrongPurpose { purpose });
        }
        let intermediates = signers(intermediates)?;
        let usable = self.usable_anchors(now);
        let build = |anchors: &[TrustAnchor<'_>]| {
            end_entity
                .verify_for_usage(
                    self.algorithms.all,
                    anchors,
                    &intermediates,
                    unix(now),
                    match purpose {
                        Purpose::Client => KeyUsage::client_auth(),
                        Purpose::Server => KeyUsage::server_auth(),
                    },
                    None,
                    None,
                )
                .map(drop)
        };
        match build(&usable) {
            Ok(()) => Ok(leaf),
            Err(error) if is_unknown_issuer(&error) => {
                // Tell a root that ran out from one that was never there: the remedies differ.
                for root in &self.roots {
                    if let Err(rejection) = root.check_dates(now)
                        && build(std::slice::from_ref(&root.anchor)).is_ok()
                    {
                        return Err(rejection);
                    }
                }
                Err(Rejection::UnknownCa {
                    issuer: issuer(chain),
                    namesake: !matches!(error, webpki::Error::UnknownIssuer),
                })
            }
            Err(error) => Err(rejection(&error, purpose)),
        }
    }

    fn usable_anchors(&self, now: SystemTime) -> Cow<'_, [TrustAnchor<'static>]> {
        if self.roots.iter().all(|root| root.check_dates(now).is_ok()) {
            return Cow::Borrowed(&self.anchors);
        }
        let in_date = self.roots.iter().filter(|root| root.check_dates(now).is_ok());
        Cow::Owned(in_date.map(|root| root.anchor.clone()).collect())
    }
}

fn is_development(certificate: &Certificate) -> bool {
    certificate.tbs_certificate().subject().iter().any(|attribute| {
        attribute.oid == ORGANIZATION
            && DirectoryString::try_from(&attribute.value)
                .is_ok_and(|organization| organization.value() == DEVELOPMENT_CA)
    })
}

/// The certificates that may sign others; webpki does not look at the key usage of a CA.
fn signers<'a>(chain: &'a [CertificateDer<'_>]) -> Result<Vec<CertificateDer<'a>>, Rejection> {
    let mut signers = Vec::with_capacity(chain.len());
    for der in chain {
        let certificate = parse(der)?;
        if key_usage(&certificate)?.is_none_or(|usage| usage.key_cert_sign()) {
            signers.push(CertificateDer::from(der.as_ref()));
        }
    }
    Ok(signers)
}

fn is_unknown_issuer(error: &webpki::Error) -> bool {
    matches!(
        error,
        webpki::Error::UnknownIssuer
            | webpki::Error::InvalidSignatureForPublicKey
            | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_)
    )
}

fn rejection(error: &webpki::Error, purpose: Purpose) -> Rejection {
    use webpki::Error;
    match error {
        Error::CertExpired { time, not_after } => Rejection::Expired {
            part: ChainPart::Intermediate,
            not_after: system(*not_after),
            now: system(*time),
        },
        Error::CertNotValidYet { time, not_before } => Rejection::NotYetValid {
            part: ChainPart::Intermediate,
            not_before: system(*not_before),
            now: system(*time),
        },
        Error::RequiredEkuNotFoundContext(_) | Error::EmptyEkuExtension => {
            Rejection::WrongPurpose { purpose }
        }
        Error::UnsupportedSignatureAlgorithmContext(_) => Rejection::WeakSignature,
        error => chain_error(error),
    }
}

fn chain_error(error: &webpki::Error) -> Rejection {
    Rejection::Chain { reason: Printable::new(&error.to_string()).to_string() }
}

/// The name of the CA that would have to be in the bundle.
fn issuer(chain: &[CertificateDer<'_>]) -> String {
    chain
        .last()
        .and_then(|der| parse(der).ok())
        .map(|certificate| {
            Printable::new(&certificate.tbs_certificate().issuer().to_string()).to_string()
        })
        .unwrap_or_default()
}
