use std::sync::{Arc, OnceLock};

use aegis_core::NodeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::clock::{system, unix};
use crate::leaf::Leaf;
use crate::verify::ChainVerifier;
use crate::{Purpose, Rejection};

/// Verifies the peer of **one** handshake, in either direction.
///
/// rustls carries an alert out of a verifier, no more; the typed outcome stays here for the owner of the handshake.
#[derive(Debug)]
pub(crate) struct PeerVerifier {
    chain: Arc<ChainVerifier>,
    pin: Option<NodeId>,
    outcome: OnceLock<Result<Leaf, Failure>>,
}

/// Why the handshake was broken off by us.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    Rejected(Rejection),
    /// The certificate is good, but not of the node that was dialled: (expected, found).
    #[cfg_attr(not(feature = "client"), expect(dead_code, reason = "only a client pins a node"))]
    WrongNode(Box<(NodeId, NodeId)>),
}

impl PeerVerifier {
    pub(crate) fn new(chain: Arc<ChainVerifier>, pin: Option<NodeId>) -> Self {
        Self { chain, pin, outcome: OnceLock::new() }
    }

    /// What the verification said, if the handshake came so far.
    pub(crate) fn outcome(&self) -> Option<&Result<Leaf, Failure>> {
        self.outcome.get()
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        purpose: Purpose,
        now: UnixTime,
    ) -> Result<(), Error> {
        let chain: Vec<_> = std::iter::once(end_entity)
            .chain(intermediates)
            .map(|der| CertificateDer::from(der.as_ref()))
            .collect();
        let outcome = self
            .chain
            .verify(&chain, purpose, system(now))
            .map_err(Failure::Rejected)
            .and_then(|leaf| self.check_pin(leaf));
        match self.outcome.get_or_init(|| outcome) {
            Ok(_) => Ok(()),
            Err(failure) => Err(Error::InvalidCertificate(alert(failure))),
        }
    }

    /// Last, so that a mismatch speaks of a node whose identity is proven.
    fn check_pin(&self, leaf: Leaf) -> Result<Leaf, Failure> {
        match &self.pin {
            Some(expected) if expected != leaf.spiffe_id.node_id() => {
                let found = leaf.spiffe_id.node_id().clone();
                Err(Failure::WrongNode(Box::new((expected.clone(), found))))
            }
            _ => Ok(leaf),
        }
    }

    fn verify_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.chain.algorithms)
    }
}

/// The rustls error whose alert tells the peer the most.
fn alert(failure: &Failure) -> CertificateError {
    match failure {
        Failure::WrongNode(_) => CertificateError::ApplicationVerificationFailure,
        Failure::Rejected(rejection) => match rejection {
            Rejection::Expired { not_after, now, .. } => {
                CertificateError::ExpiredContext { time: unix(*now), not_after: unix(*not_after) }
            }
            Rejection::NotYetValid { not_before, now, .. } => {
                CertificateError::NotValidYetContext {
                    time: unix(*now),
                    not_before: unix(*not_before),
                }
            }
            Rejection::UnknownCa { .. } | Rejection::ForeignTrustDomain { .. } => {
                CertificateError::UnknownIssuer
            }
            Rejection::WrongPurpose { .. }
            | Rejection::WeakKey { .. }
            | Rejection::WeakSignature => CertificateError::InvalidPurpose,
            _ => CertificateError::BadEncoding,
        },
    }
}

fn tls12_is_off() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

impl ServerCertVerifier for PeerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        // The identity is the SPIFFE id; many node ids are no server name.
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, Purpose::Server, now)
            .map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_is_off())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for PeerVerifier {
    /// Empty, so that a client shows the certificate it has and learns what is wrong with it.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, Purpose::Client, now)
            .map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12_is_off())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.algorithms.supported_schemes()
    }
}
