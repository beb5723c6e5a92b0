use rustls_pki_types::pem::{PemObject as _, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::LoadError;
use crate::source::{Origin, Pem};
use crate::verify::Root;

/// The certificates of a chain file, in its order.
pub(crate) fn certificates(pem: &Pem) -> Result<Vec<CertificateDer<'static>>, LoadError> {
    let mut certificates = Vec::new();
    for section in sections(pem) {
        let (kind, der) = section?;
        if kind == SectionKind::Certificate {
            certificates.push(CertificateDer::from(der));
        }
    }
    if certificates.is_empty() {
        return Err(LoadError::NoCertificate { origin: pem.origin.clone() });
    }
    Ok(certificates)
}

/// The CAs of a bundle: every entry has to be one, duplicates count once.
///
/// One bad entry fails the whole bundle: trusting the rest would refuse some callers for a reason nobody sees.
/// A root outside its dates is no bad entry; handshakes look at the dates.
pub(crate) fn roots(pem: &Pem) -> Result<Vec<Root>, LoadError> {
    let (mut roots, mut seen) = (Vec::new(), Vec::<CertificateDer<'static>>::new());
    for (index, der) in certificates(pem)?.into_iter().enumerate() {
        if seen.contains(&der) {
            continue;
        }
        let root = Root::parse(&der).map_err(|reason| LoadError::BadCa {
            origin: pem.origin.clone(),
            entry: index + 1,
            reason,
        })?;
        roots.push(root);
        seen.push(der);
    }
    Ok(roots)
}

/// The one private key of a file: PKCS#8, SEC1 (with its EC PARAMETERS before it or not) or PKCS#1.
pub(crate) fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, LoadError> {
    let origin = || pem.origin.clone();
    let has = |words: &[u8]| pem.text.windows(words.len()).any(|window| window == words);
    if has(b"BEGIN ENCRYPTED PRIVATE KEY") || has(b"Proc-Type: 4,ENCRYPTED") {
        return Err(LoadError::EncryptedKey { origin: origin() });
    }
    let mut is_certificate = false;
    for section in sections(pem) {
        let (kind, der) = section?;
        match kind {
            SectionKind::PrivateKey => return Ok(PrivateKeyDer::Pkcs8(der.into())),
            SectionKind::EcPrivateKey => return Ok(PrivateKeyDer::Sec1(der.into())),
            SectionKind::RsaPrivateKey => return Ok(PrivateKeyDer::Pkcs1(der.into())),
            SectionKind::Certificate => is_certificate = true,
            _ => {}
        }
    }
    Err(if is_certificate {
        LoadError::KeyIsCertificate { origin: origin() }
    } else {
        LoadError::NoKey { origin: origin() }
    })
}

fn sections(pem: &Pem) -> impl Iterator<Item = Result<(SectionKind, Vec<u8>), LoadError>> {
    let origin = &pem.origin;
    <(SectionKind, Vec<u8>)>::pem_slice_iter(&pem.text)
        .enumerate()
        .map(move |(index, section)| section.map_err(|error| bad_pem(origin, index + 1, error)))
}

fn bad_pem(origin: &Origin, entry: usize, error: rustls_pki_types::pem::Error) -> LoadError {
    LoadError::BadPem { origin: origin.clone(), entry, source: Box::new(error) }
}
