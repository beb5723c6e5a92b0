//! Peers that follow none of our rules, and a clock that a test can set.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aegis_core::NodeId;
use aegis_testing::{TestCa, TestCert};
use aegis_tls::{Subject, Tls};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

pub(crate) fn id(id: &str) -> NodeId {
    id.parse().unwrap()
}

pub(crate) fn subject(id: &str, node_type: &str) -> Subject {
    Subject::new(id.parse().unwrap(), node_type.parse().unwrap())
}

/// A node of `ca` that also trusts `others`.
pub(crate) fn trusting(ca: &TestCa, node: &str, others: &[&TestCa]) -> Tls {
    let cas: Vec<_> = std::iter::once(ca).chain(others.iter().copied()).collect();
    let cert = ca.issue(node, "worker").trusting(&cas);
    cert.options().load(&subject(node, "worker")).unwrap()
}

#[derive(Clone)]
pub(crate) struct TestClock(Arc<AtomicU64>);

impl TestClock {
    pub(crate) fn now() -> Self {
        let clock = Self(Arc::default());
        clock.set(SystemTime::now());
        clock
    }

    pub(crate) fn set(&self, time: SystemTime) {
        let seconds = time.duration_since(UNIX_EPOCH).unwrap().as_secs();
        self.0.store(seconds, Ordering::SeqCst);
    }

    pub(crate) fn read(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.0.load(Ordering::SeqCst))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certified(cert: &TestCert) -> Arc<SingleCertAndKey> {
    let key = provider().key_provider.load_private_key(cert.key()).unwrap();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(cert.chain(), key)))
}

/// A client that shows whatever certificate it is given, or none, and believes any server.
pub(crate) fn raw_client(cert: Option<&TestCert>) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible));
    let mut config = match cert {
        Some(cert) => builder.with_client_cert_resolver(certified(cert)),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// A server that shows whatever certificate it is given and believes any client.
pub(crate) fn raw_server(cert: &TestCert) -> ServerConfig {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_client_cert_verifier(Arc::new(Gullible))
        .with_cert_resolver(certified(cert));
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

pub(crate) fn any_name() -> ServerName<'static> {
    ServerName::try_from("any.invalid").unwrap()
}

#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Gullible {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// PEM text of this label.
pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut body = String::new();
    for (index, chunk) in der.chunks(3).enumerate() {
        if index != 0 && index % 16 == 0 {
            body.push('\n');
        }
        let bits = (0..3)
            .fold(0_usize, |bits, at| bits << 8 | usize::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..4 {
            let letter = ALPHABET[bits >> (18 - 6 * at) & 63];
            body.push(if at <= chunk.len() { letter.into() } else { '=' });
        }
    }
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

/// What PKCS#8 wraps: SEC1 of an EC key, PKCS#1 of an RSA key.
pub(crate) fn inner_key(cert: &TestCert) -> Vec<u8> {
    use x509_cert::der::asn1::{AnyRef, OctetStringRef};
    use x509_cert::der::{Decode as _, Reader as _, SliceReader};

    let key = cert.key();
    let mut reader = SliceReader::new(key.secret_der()).unwrap();
    reader
        .sequence(|pkcs8| {
            let _version = AnyRef::decode(pkcs8)?;
            let _algorithm = AnyRef::decode(pkcs8)?;
            let key = <&OctetStringRef>::decode(pkcs8)?.as_bytes().to_vec();
            while !pkcs8.is_finished() {
                AnyRef::decode(pkcs8)?;
            }
            Ok::<_, x509_cert::der::Error>(key)
        })
        .unwrap()
}
