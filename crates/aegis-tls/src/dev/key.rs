use rcgen::{KeyPair, PublicKeyData, SignatureAlgorithm, SigningKey};
use x509_cert::Certificate;
use zeroize::Zeroizing;

use super::DevCaError;

/// A private key that is wiped on drop, which a [`KeyPair`] alone is not.
pub(super) struct PrivateKey(Zeroizing<KeyPair>);

impl PrivateKey {
    pub(super) fn generate() -> Result<Self, DevCaError> {
        KeyPair::generate().map(Zeroizing::new).map(Self).map_err(DevCaError::crypto)
    }

    /// A key in PKCS#8; `None` for anything else.
    pub(super) fn parse(pem: &[u8]) -> Option<Self> {
        let key = KeyPair::from_pem(std::str::from_utf8(pem).ok()?).ok()?;
        Some(Self(Zeroizing::new(key)))
    }

    pub(super) fn pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.0.serialize_pem())
    }

    /// Whether the certificate is about this key.
    pub(super) fn fits(&self, certificate: &Certificate) -> bool {
        let public = &certificate.tbs_certificate().subject_public_key_info().subject_public_key;
        public.as_bytes() == Some(self.der_bytes())
    }
}

impl PublicKeyData for PrivateKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.der_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl SigningKey for PrivateKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        self.0.sign(message)
    }
}
