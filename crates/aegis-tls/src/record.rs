use std::time::SystemTime;

use aegis_core::{SpiffeId, TrustDomain};
use rustls::SignatureScheme;
use rustls_pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use webpki::EndEntityCert;

use crate::{Purpose, RecordError, SignError, Tls};

/// A context of its own, so that no signature of a TLS handshake passes for one of a record, nor the other way round.
const CONTEXT: &[u8] = b"aegis topology record v1\0";

/// The schemes of TLS 1.3: each belongs to one kind of key and one hash.
const SCHEMES: [SignatureScheme; 7] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ED25519,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
];

/// A node's signature of the bytes of its record.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecordSignature {
    /// The signer's certificate and its intermediates, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// The number of the TLS `SignatureScheme` (RFC 8446 §4.2.3).
    pub scheme: u16,
    /// The signature.
    pub signature: Vec<u8>,
}

/// Who signed a record, proven.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecordOwner {
    /// The signer.
    pub spiffe_id: SpiffeId,
    /// When the signer's certificate ends; its record may not outlive it.
    pub not_after: SystemTime,
}

impl Tls {
    /// Signs the bytes of the own record with the node's TLS key.
    ///
    /// What is signed: 64 spaces, `aegis topology record v1`, a zero byte, and the SHA-256 digests of the own trust domain
    /// and of `body`: the shape of a `CertificateVerify` (RFC 8446 §4.4.3) with a context of its own. So the signature passes
    /// for none of a TLS handshake, nor for one of another mesh's record.
    ///
    /// ```
    /// # let ca = aegis_testing::TestCa::new();
    /// # let (morpheus, vicky) = (ca.tls("morpheus-1", "identity-server"), ca.tls("vicky-1", "gateway"));
    /// let signed = morpheus.sign_record(b"listens at 10.0.0.7:8443")?;
    /// let verify = |body| vicky.verify_record(&signed.chain, body, signed.scheme, &signed.signature);
    /// assert_eq!(verify(b"listens at 10.0.0.7:8443")?.spiffe_id.node_id(), "morpheus-1");
    /// assert!(verify(b"listens at 10.0.0.8:8443").is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`SignError::NoCertificate`] while the own certificate is outside its dates; [`SignError::Key`] where the key does not
    /// sign. The operator has to act.
    pub fn sign_record(&self, body: &[u8]) -> Result<RecordSignature, SignError> {
        self.check_usable()?;
        let snapshot = self.snapshot();
        let Some(signer) = snapshot.certified.key.choose_scheme(&SCHEMES) else {
            return Err(SignError::Key {
                source: "no signature scheme of TLS 1.3 fits the key".into(),
            });
        };
        let signature = signer
            .sign(&message(snapshot.verifier.trust_domain(), body))
            .map_err(|error| SignError::Key { source: Box::new(error) })?;
        Ok(RecordSignature {
            chain: snapshot.certified.cert.clone(),
            scheme: signer.scheme().into(),
            signature,
        })
    }

    /// Checks that a node of the own trust domain signed `body`, by the rules that a handshake follows for a server.
    ///
    /// # Errors
    /// [`RecordError`] says which link of the proof is broken; the peer that sent the record, or its owner, has to act.
    pub fn verify_record(
        &self,
        chain: &[CertificateDer<'_>],
        body: &[u8],
        scheme: u16,
        signature: &[u8],
    ) -> Result<RecordOwner, RecordError> {
        let snapshot = self.snapshot();
        let verifier = &snapshot.verifier;
        let leaf =
            verifier.verify(chain, Purpose::Server, self.now()).map_err(RecordError::Rejected)?;
        let wanted = SignatureScheme::from(scheme);
        let algorithm = verifier
            .algorithms
            .mapping
            .iter()
            .find(|(known, _)| *known == wanted && SCHEMES.contains(known))
            .and_then(|(_, algorithms)| algorithms.first());
        let (Some(algorithm), Some(certificate)) = (algorithm, chain.first()) else {
            return Err(RecordError::Scheme { scheme });
        };
        EndEntityCert::try_from(certificate)
            .and_then(|it| {
                it.verify_signature(*algorithm, &message(verifier.trust_domain(), body), signature)
            })
            .map_err(|_| RecordError::Signature {
                trust_domain: verifier.trust_domain().clone(),
            })?;
        Ok(RecordOwner { spiffe_id: leaf.spiffe_id, not_after: leaf.not_after })
    }
}

/// The shape of a TLS 1.3 `CertificateVerify` (RFC 8446 §4.4.3).
fn message(trust_domain: &TrustDomain, body: &[u8]) -> Vec<u8> {
    let mut message = vec![0x20; 64];
    message.extend_from_slice(CONTEXT);
    message.extend_from_slice(&Sha256::digest(trust_domain.as_str()));
    message.extend_from_slice(&Sha256::digest(body));
    message
}
