use std::time::SystemTime;

use aegis_core::{Printable, SpiffeId};
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_cert::Certificate;
use x509_cert::der::asn1::UintRef;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::{Decode, Reader, SliceReader};
use x509_cert::ext::pkix::name::{DirectoryString, GeneralName};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};

use crate::{ChainPart, Rejection};

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const MIN_RSA_BITS: usize = 2048;

/// A node's certificate that follows the profile in [`TlsOptions`](crate::TlsOptions); nobody has vouched for it yet.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) spiffe_id: SpiffeId,
    /// Whether it says what it is meant for; webpki only looks at what is said.
    pub(crate) has_purpose: bool,
    #[cfg(feature = "dev-ca")]
    pub(crate) dns_names: Vec<String>,
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
}

impl Leaf {
    /// Reads a certificate with two parsers: what only one of them sees is an attack on the other.
    pub(crate) fn parse(
        der: &CertificateDer<'_>,
        webpki: &EndEntityCert<'_>,
    ) -> Result<Self, Rejection> {
        let certificate = parse(der)?;
        let tbs = certificate.tbs_certificate();
        check_usage(&certificate)?;
        check_key(&certificate)?;

        let (uris, dns_names) = names(&certificate)?;
        if !uris.iter().map(String::as_str).eq(webpki.valid_uri_names())
            || !dns_names.iter().map(String::as_str).eq(webpki.valid_dns_names())
        {
            return Err(Rejection::Malformed {
                reason: "its subject alternative names are ambiguous",
            });
        }
        let uri = match uris.as_slice() {
            [] => return Err(Rejection::NoIdentity),
            [uri] => uri,
            _ => return Err(Rejection::SeveralIdentities { count: uris.len() }),
        };
        let spiffe_id: SpiffeId = uri.parse().map_err(|reason| Rejection::Identity { reason })?;
        check_common_name(&certificate, &spiffe_id)?;

        let validity = tbs.validity();
        Ok(Self {
            spiffe_id,
            has_purpose: has_purpose(&certificate)?,
            #[cfg(feature = "dev-ca")]
            dns_names,
            not_before: validity.not_before.to_system_time(),
            not_after: validity.not_after.to_system_time(),
        })
    }

    pub(crate) fn check_dates(&self, now: SystemTime) -> Result<(), Rejection> {
        check_dates(ChainPart::Leaf, self.not_before, self.not_after, now)
    }
}

pub(crate) fn check_dates(
    part: ChainPart,
    not_before: SystemTime,
    not_after: SystemTime,
    now: SystemTime,
) -> Result<(), Rejection> {
    if now < not_before {
        return Err(Rejection::NotYetValid { part, not_before, now });
    }
    if not_after < now {
        return Err(Rejection::Expired { part, not_after, now });
    }
    Ok(())
}

pub(crate) fn parse(der: &[u8]) -> Result<Certificate, Rejection> {
    Certificate::from_der(der)
        .map_err(|_| Rejection::Malformed { reason: "it is no X.509 certificate in DER" })
}

pub(crate) fn key_usage(certificate: &Certificate) -> Result<Option<KeyUsage>, Rejection> {
    let usage = certificate
        .tbs_certificate()
        .get_extension::<KeyUsage>()
        .map_err(|_| Rejection::Malformed { reason: "its key usage cannot be read" })?;
    Ok(usage.map(|(_, usage)| usage))
}

pub(crate) fn is_ca(certificate: &Certificate) -> Result<bool, Rejection> {
    let constraints = certificate
        .tbs_certificate()
        .get_extension::<BasicConstraints>()
        .map_err(|_| Rejection::Malformed { reason: "its basic constraints cannot be read" })?;
    Ok(constraints.is_some_and(|(_, constraints)| constraints.ca))
}

fn check_usage(certificate: &Certificate) -> Result<(), Rejection> {
    if is_ca(certificate)? {
        return Err(Rejection::CaCertificate);
    }
    let Some(usage) = key_usage(certificate)? else {
        return Err(Rejection::NoDigitalSignature);
    };
    if usage.key_cert_sign() || usage.crl_sign() {
        return Err(Rejection::CertificateSigner);
    }
    if !usage.digital_signature() {
        return Err(Rejection::NoDigitalSignature);
    }
    Ok(())
}

fn has_purpose(certificate: &Certificate) -> Result<bool, Rejection> {
    let purposes = certificate
        .tbs_certificate()
        .get_extension::<ExtendedKeyUsage>()
        .map_err(|_| Rejection::Malformed { reason: "its extended key usage cannot be read" })?;
    Ok(purposes.is_some())
}

/// The handshake would refuse a short RSA key too, but only as a bad signature.
fn check_key(certificate: &Certificate) -> Result<(), Rejection> {
    let key = certificate.tbs_certificate().subject_public_key_info();
    if key.algorithm.oid != RSA {
        return Ok(());
    }
    let modulus_bits = key.subject_public_key.as_bytes().and_then(|bytes| {
        let mut reader = SliceReader::new(bytes).ok()?;
        reader
            .sequence(|rsa| {
                let modulus = UintRef::decode(rsa)?;
                let exponent = UintRef::decode(rsa)?;
                let _ = exponent;
                let first = modulus.as_bytes().first().map_or(8, |byte| byte.leading_zeros());
                Ok::<_, x509_cert::der::Error>(modulus.as_bytes().len() * 8 - first as usize)
            })
            .ok()
    });
    match modulus_bits {
        None => Err(Rejection::Malformed { reason: "its RSA key cannot be read" }),
        Some(bits) if bits < MIN_RSA_BITS => Err(Rejection::WeakKey { bits }),
        Some(_) => Ok(()),
    }
}

/// The URI and DNS names of the certificate, in its order.
fn names(certificate: &Certificate) -> Result<(Vec<String>, Vec<String>), Rejection> {
    let names = certificate.tbs_certificate().get_extension::<SubjectAltName>().map_err(|_| {
        Rejection::Malformed { reason: "its subject alternative names cannot be read" }
    })?;
    let (mut uris, mut dns_names) = (Vec::new(), Vec::new());
    for name in names.map(|(_, names)| names.0).unwrap_or_default() {
        match name {
            GeneralName::UniformResourceIdentifier(uri) => uris.push(uri.as_str().to_owned()),
            GeneralName::DnsName(name) => dns_names.push(name.as_str().to_owned()),
            _ => {}
        }
    }
    Ok((uris, dns_names))
}

/// A Go node takes the common name for the identity: a present one must not lie.
fn check_common_name(certificate: &Certificate, id: &SpiffeId) -> Result<(), Rejection> {
    for attribute in certificate.tbs_certificate().subject().iter() {
        if attribute.oid != COMMON_NAME {
            continue;
        }
        let name = DirectoryString::try_from(&attribute.value)
            .map_err(|_| Rejection::Malformed { reason: "its common name cannot be read" })?;
        if name.value() != id.node_id().as_str() {
            return Err(Rejection::CommonName {
                expected: id.node_id().as_str().to_owned(),
                found: Printable::new(&name.value()).to_string(),
            });
        }
    }
    Ok(())
}
