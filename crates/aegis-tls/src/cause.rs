use std::error::Error;
use std::io;

use rustls::{Error as TlsError, InvalidMessage, PeerIncompatible};

use crate::handshake::{Failure, PeerVerifier};
use crate::{Refusal, Rejection};

/// What went wrong, the same for both directions.
pub(crate) enum Cause {
    Failure(Failure),
    Io(io::Error),
    NoAlpn,
    NoCertificate,
    NotTls,
    OldTls,
    Protocol(Box<dyn Error + Send + Sync>),
    Refused(Refusal),
}

impl Cause {
    pub(crate) fn new(error: io::Error, verifier: &PeerVerifier) -> Self {
        if let Some(Err(failure)) = verifier.outcome() {
            return Self::Failure(failure.clone());
        }
        let Some(tls) = error.get_ref().and_then(|it| it.downcast_ref::<TlsError>()) else {
            return Self::Io(error);
        };
        match tls {
            TlsError::AlertReceived(alert) => {
                let refusal = Refusal::new(*alert);
                if refusal.is_old_tls() { Self::OldTls } else { Self::Refused(refusal) }
            }
            // The certificate itself was fine, so this is about the signature that proves its possession.
            TlsError::InvalidCertificate(_) => {
                Self::Failure(Failure::Rejected(Rejection::ForeignKey))
            }
            TlsError::NoApplicationProtocol => Self::NoAlpn,
            TlsError::NoCertificatesPresented => Self::NoCertificate,
            // What HTTP/1.1, a plain HTTP/2 preface or an SSH banner look like to a TLS parser.
            TlsError::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) => Self::NotTls,
            TlsError::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls13RequiredForQuic,
            ) => Self::OldTls,
            tls => Self::Protocol(Box::new(tls.clone())),
        }
    }
}
