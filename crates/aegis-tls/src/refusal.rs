use std::fmt;

use rustls::AlertDescription;

/// The peer broke the connection off with a TLS alert: it does not accept *us*.
///
/// Its `Display` says what the alert means and what to do, as the predicate of a sentence about the peer:
/// `it does not know our CA (alert UnknownCA); ...`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    alert: AlertDescription,
}

impl Refusal {
    pub(crate) fn new(alert: AlertDescription) -> Self {
        Self { alert }
    }

    /// The number of the alert (RFC 8446 §6).
    pub fn code(&self) -> u8 {
        self.alert.into()
    }

    /// A fixed word for metrics and logs.
    pub fn reason(&self) -> &'static str {
        self.explain().0
    }

    pub(crate) fn is_old_tls(self) -> bool {
        self.alert == AlertDescription::ProtocolVersion
    }

    /// The fixed word, what the alert means, and what to do.
    fn explain(self) -> (&'static str, &'static str, &'static str) {
        match self.alert {
            AlertDescription::UnknownCA => (
                "unknown_ca",
                "it does not know our CA",
                "both need the same trust domain and each other's CA in their bundle",
            ),
            AlertDescription::CertificateExpired => (
                "expired",
                "to it our certificate is not valid now",
                "compare the certificate's dates and both clocks",
            ),
            AlertDescription::CertificateRevoked => {
                ("revoked", "our certificate is revoked", "issue a new one")
            }
            AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => (
                "bad_certificate",
                "our certificate breaks its rules",
                "its own log names the rule",
            ),
            AlertDescription::UnsupportedCertificate => (
                "unsupported_certificate",
                "our certificate is not meant for this",
                "issue one with the extended key usages serverAuth and clientAuth and a key of 2048 bits (RSA) or P-256",
            ),
            AlertDescription::AccessDenied => (
                "wrong_node",
                "it wanted another node than us",
                "one of the two has a stale address",
            ),
            AlertDescription::CertificateRequired => {
                ("no_certificate", "it wants a certificate and got none", "configure one")
            }
            AlertDescription::NoApplicationProtocol => {
                ("no_alpn", "it does not speak HTTP/2 (ALPN h2)", "check the address")
            }
            AlertDescription::ProtocolVersion => {
                ("old_tls", "it does not speak TLS 1.3", "check the address, or update it")
            }
            AlertDescription::DecryptError => (
                "decrypt_error",
                "it could not check our signature",
                "our certificate, or one of its chain, does not fit its key",
            ),
            AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
                ("no_common_crypto", "it shares no cryptography with us", "update it")
            }
            _ => ("alert", "it broke off the TLS connection", "its own log may say why"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (_, meaning, remedy) = self.explain();
        write!(f, "{meaning} (alert {:?}); {remedy}", self.alert)
    }
}
