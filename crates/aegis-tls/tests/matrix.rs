//! Each bad certificate, shown in each direction: refused for its reason; with that one point mended, accepted.

use std::sync::Arc;
use std::time::Duration;

use aegis_testing::{Flaw, TestCa, TestCert, Validity};
use aegis_tls::{
    AcceptError, ChainPart, ConnectError, Expected, LoadError, Purpose, RecordError, Rejection, Tls,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::AsyncReadExt as _;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::support::{TestClock, any_name, id, raw_client, raw_server, subject, trusting};

const PEER: &str = "morpheus-1";

/// Shows `cert` to `judge` as a client would.
async fn as_client(judge: &Tls, cert: &TestCert) -> Result<(), Rejection> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let client = async {
        let connector = TlsConnector::from(Arc::new(raw_client(Some(cert))));
        if let Ok(mut stream) = connector.connect(any_name(), far).await {
            // The verdict comes with the first read.
            drop(stream.read(&mut [0; 1]).await);
        }
    };
    let server = async {
        match judge.accept(near).await {
            Ok(accepted) => {
                assert_eq!(accepted.caller.node_id(), PEER);
                Ok(())
            }
            Err(AcceptError::Untrusted { reason }) => Err(reason),
            Err(error) => panic!("{error:?}"),
        }
    };
    tokio::join!(client, server).1
}

/// Shows `cert` to `judge` as a server would.
async fn as_server(judge: &Tls, cert: &TestCert) -> Result<(), Rejection> {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let server = async {
        let acceptor = TlsAcceptor::from(Arc::new(raw_server(cert)));
        if let Ok(mut stream) = acceptor.accept(far).await {
            drop(stream.read(&mut [0; 1]).await);
        }
    };
    let client = async {
        match judge.connect(Expected::Node(&id(PEER)), near).await {
            Ok(connected) => {
                assert_eq!(connected.peer.node_id(), PEER);
                Ok(())
            }
            Err(ConnectError::Untrusted { reason }) => Err(reason),
            Err(error) => panic!("{error:?}"),
        }
    };
    tokio::join!(server, client).1
}

/// The verdict in both directions, which has to be the same.
#[track_caller]
fn verdict(judge: &Tls, cert: &TestCert) -> Result<(), Rejection> {
    block_on(async {
        let client = as_client(judge, cert).await;
        let server = as_server(judge, cert).await;
        let plain = |verdict: &Result<(), Rejection>| match verdict {
            Ok(()) => "accepted",
            Err(rejection) => rejection.reason(),
        };
        assert_eq!(plain(&client), plain(&server), "{client:?} / {server:?}");
        client
    })
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn a_flaw_is_refused_for_its_reason_in_both_directions() {
    let ca = TestCa::new();
    let judge = ca.tls("judge-1", "worker");
    for flaw in Flaw::ALL {
        let bad = ca.issue_bad(PEER, "worker", flaw);
        let (client, server) = block_on(async {
            (as_client(&judge, &bad).await.err(), as_server(&judge, &bad).await.err())
        });
        let both = |wanted: fn(&Rejection) -> bool| {
            for rejection in [&client, &server] {
                assert!(rejection.as_ref().is_some_and(wanted), "{flaw:?}: {rejection:?}");
            }
        };
        for rejection in [&client, &server].into_iter().flatten() {
            check_text(rejection);
        }
        match flaw {
            Flaw::CaLeaf => both(|it| *it == Rejection::CaCertificate),
            Flaw::CommonName => {
                both(
                    |it| matches!(it, Rejection::CommonName { found, .. } if found == "not-morpheus-1"),
                );
            }
            Flaw::CrlSign | Flaw::KeyCertSign => both(|it| *it == Rejection::CertificateSigner),
            Flaw::Expired => {
                both(
                    |it| matches!(it, Rejection::Expired { part: ChainPart::Leaf, not_after, now } if not_after < now),
                );
            }
            Flaw::ForeignPath => both(|it| matches!(it, Rejection::Identity { .. })),
            Flaw::ForeignTrustDomain => {
                both(
                    |it| matches!(it, Rejection::ForeignTrustDomain { expected, found } if expected == "mesh.test" && found == "other.test"),
                );
            }
            Flaw::HostileCommonName => both(|it| matches!(it, Rejection::CommonName { .. })),
            Flaw::InvalidDnsName => both(|it| matches!(it, Rejection::Malformed { .. })),
            Flaw::NoDigitalSignature | Flaw::NoKeyUsage => {
                both(|it| *it == Rejection::NoDigitalSignature);
            }
            Flaw::NoExtendedKeyUsage => {
                assert_eq!(client, Some(Rejection::WrongPurpose { purpose: Purpose::Client }));
                assert_eq!(server, Some(Rejection::WrongPurpose { purpose: Purpose::Server }));
            }
            Flaw::NoUriSan => both(|it| *it == Rejection::NoIdentity),
            Flaw::NotYetValid => {
                both(
                    |it| matches!(it, Rejection::NotYetValid { part: ChainPart::Leaf, not_before, now } if now < not_before),
                );
            }
            Flaw::OnlyClientAuth => {
                assert_eq!(client, None);
                assert_eq!(server, Some(Rejection::WrongPurpose { purpose: Purpose::Server }));
            }
            Flaw::OnlyServerAuth => {
                assert_eq!(client, Some(Rejection::WrongPurpose { purpose: Purpose::Client }));
                assert_eq!(server, None);
            }
            Flaw::Oversize => {
                both(
                    |it| matches!(it, Rejection::Oversize { bytes } if *bytes > aegis_tls::MAX_CERTIFICATE_BYTES),
                );
            }
            Flaw::TooManyCertificates => {
                both(|it| *it == Rejection::TooManyCertificates { count: 5 });
            }
            Flaw::TwoUriSans => both(|it| *it == Rejection::SeveralIdentities { count: 2 }),
            flaw => panic!("no expectation for {flaw:?}"),
        }
    }
    assert_eq!(verdict(&judge, &ca.issue(PEER, "worker")), Ok(()));
}

/// Certificates are written by strangers: what is said about one fits on a screen and leaves the terminal as it is.
#[track_caller]
fn check_text(rejection: &Rejection) {
    for text in [rejection.to_string(), format!("{rejection:?}")] {
        assert!(text.len() <= 2048, "{} bytes: {text:?}", text.len());
        let is_hostile = |char: char| char.is_control() || char == '\u{202e}';
        assert!(!text.contains(is_hostile), "{text:?}");
    }
}

#[test]
fn hostile_names_of_cas_are_shown_escaped_and_short() {
    let judge = TestCa::new().tls("judge-1", "worker");
    for name in ["\u{1b}[31m\r\n\u{202e}\u{7f}\u{9b}".repeat(100), "\u{10ffff}".repeat(2_000)] {
        let cert = TestCa::named(&name).issue(PEER, "worker");
        let rejection = verdict(&judge, &cert).unwrap_err();
        assert!(
            matches!(&rejection, Rejection::UnknownCa { issuer, .. } if issuer.contains("\\u{")),
            "{rejection:?}"
        );
        check_text(&rejection);
        let error = cert.trusting(&[&TestCa::new()]).options().load(&subject(PEER, "worker"));
        assert!(error.is_err_and(|error| !error.to_string().contains(char::is_control)));
    }
}

#[test]
fn a_hostile_identity_is_shown_escaped_and_short() {
    let ca = TestCa::new();
    let judge = ca.tls("judge-1", "worker");
    for id in ["\u{1b}[31m\r\n\u{7f}".repeat(100), "a".repeat(10_000)] {
        let cert = ca.issue_as(&format!("spiffe://mesh.test/aegis/worker/{id}"));
        let rejection = verdict(&judge, &cert).unwrap_err();
        assert_eq!(rejection.reason(), "identity");
        check_text(&rejection);
        let cert = ca.issue_as(&format!("spiffe://{id}/aegis/worker/x"));
        check_text(&verdict(&judge, &cert).unwrap_err());
    }
}

#[test]
fn no_node_starts_with_a_certificate_that_the_others_would_refuse() {
    let ca = TestCa::new();
    for flaw in Flaw::ALL {
        if flaw == Flaw::ForeignTrustDomain {
            // Foreign to the others, but a node's own domain is the one that its certificate names.
            continue;
        }
        let error = ca.issue_bad(PEER, "worker", flaw).options().load(&subject(PEER, "worker"));
        assert!(matches!(error, Err(LoadError::Rejected { .. })), "{flaw:?}: {error:?}");
    }
    ca.issue(PEER, "worker").options().load(&subject(PEER, "worker")).unwrap();
}

#[test]
fn a_certificate_of_another_ca_is_refused_until_that_ca_is_in_the_bundle() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let cert = other.issue(PEER, "worker");
    assert!(matches!(
        verdict(&ca.tls("judge-1", "worker"), &cert),
        Err(Rejection::UnknownCa { namesake: false, issuer }) if issuer.contains("test CA")
    ));
    assert_eq!(verdict(&trusting(&ca, "judge-1", &[&other]), &cert), Ok(()));
}

#[test]
fn a_ca_of_the_same_name_is_another_ca() {
    let ca = TestCa::new();
    let other = ca.namesake();
    let cert = other.issue(PEER, "worker");
    assert!(matches!(
        verdict(&ca.tls("judge-1", "worker"), &cert),
        Err(Rejection::UnknownCa { namesake: true, .. })
    ));
    // During a rollover both are in the bundle (C04).
    let both = trusting(&ca, "judge-1", &[&other]);
    assert_eq!(verdict(&both, &cert), Ok(()));
    assert_eq!(verdict(&both, &ca.issue(PEER, "worker")), Ok(()));
}

#[test]
fn a_root_outside_its_dates_vouches_for_nobody() {
    let ca = TestCa::new();
    for (validity, reason) in [(Validity::Expired, "expired"), (Validity::NotYet, "not_yet_valid")]
    {
        let stale = TestCa::with_validity(validity);
        let rejection = verdict(&trusting(&ca, "judge-1", &[&stale]), &stale.issue(PEER, "worker"))
            .unwrap_err();
        assert_eq!(rejection.reason(), reason);
        assert!(matches!(
            rejection,
            Rejection::Expired { part: ChainPart::Root, .. }
                | Rejection::NotYetValid { part: ChainPart::Root, .. }
        ));
    }
    let fresh = TestCa::new();
    let judge = trusting(&ca, "judge-1", &[&fresh]);
    assert_eq!(verdict(&judge, &fresh.issue(PEER, "worker")), Ok(()));
}

#[test]
fn a_copied_certificate_is_worth_nothing_without_its_key() {
    let ca = TestCa::new();
    let judge = ca.tls("judge-1", "worker");
    let mut copied = ca.issue(PEER, "worker");
    let own_key = std::mem::replace(&mut copied.key_pem, ca.issue("mouse-1", "worker").key_pem);
    assert_eq!(verdict(&judge, &copied), Err(Rejection::ForeignKey));
    copied.key_pem = own_key;
    assert_eq!(verdict(&judge, &copied), Ok(()));
}

#[test]
fn an_intermediate_has_to_be_within_its_dates() {
    let ca = TestCa::new();
    let judge = ca.tls("judge-1", "worker");
    for (validity, reason) in
        [(Validity::Expired, "expired"), (Validity::NotYet, "not_yet_valid"), (Validity::Now, "")]
    {
        let cert = ca.intermediate(validity).issue(PEER, "worker");
        match verdict(&judge, &cert) {
            Ok(()) => assert_eq!(validity, Validity::Now),
            Err(rejection) => assert_eq!(rejection.reason(), reason),
        }
    }
}

#[test]
fn an_intermediate_has_to_be_allowed_to_sign() {
    let ca = TestCa::new();
    let judge = ca.tls("judge-1", "worker");
    let cert = ca.intermediate_that_may_not_sign().issue(PEER, "worker");
    assert_eq!(verdict(&judge, &cert).unwrap_err().reason(), "unknown_ca");
    let cert = ca.intermediate(Validity::Now).issue(PEER, "worker");
    assert_eq!(verdict(&judge, &cert), Ok(()));
}

#[test]
fn weak_keys_and_weak_signatures_are_refused() {
    let ca = TestCa::new();
    let root = include_str!("fixtures/root.pem");
    let mut cert = ca.issue("judge-1", "worker");
    cert.ca_pem.push_str(root);
    let judge = cert.options().load(&subject("judge-1", "worker")).unwrap();
    let verdict = |pem: &str| {
        let chain = [CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()];
        // No key is there to sign with: scheme 0 fails after everything else was fine.
        judge.verify_record(&chain, b"", 0, b"").unwrap_err()
    };
    assert_eq!(verdict(include_str!("fixtures/rsa-2048.pem")), RecordError::Scheme { scheme: 0 });
    assert_eq!(
        verdict(include_str!("fixtures/rsa-1024.pem")),
        RecordError::Rejected(Rejection::WeakKey { bits: 1024 })
    );
    assert_eq!(
        verdict(include_str!("fixtures/sha1.pem")),
        RecordError::Rejected(Rejection::WeakSignature)
    );
}

#[test]
fn no_flipped_bit_of_a_certificate_goes_unnoticed() {
    let ca = TestCa::new();
    let judge = ca.tls("judge-1", "worker");
    let good = ca.issue(PEER, "worker").chain().remove(0);
    let verdict = |der: &[u8]| judge.verify_record(&[CertificateDer::from(der)], b"", 0, b"");
    assert_eq!(verdict(&good), Err(RecordError::Scheme { scheme: 0 }));
    // Every bit would take seconds; this step visits each position of a byte.
    for bit in (0..good.len() * 8).step_by(5) {
        let mut der = good.to_vec();
        der[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(verdict(&der), Err(RecordError::Rejected(_))), "bit {bit}");
    }
    for end in (0..good.len()).step_by(7) {
        assert!(matches!(verdict(&good[..end]), Err(RecordError::Rejected(_))), "cut at {end}");
    }
}

proptest::proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_without_a_panic(ders in proptest::collection::vec(proptest::collection::vec(proptest::num::u8::ANY, 0..300), 0..6)) {
        let chain: Vec<_> = ders.into_iter().map(CertificateDer::from).collect();
        let judge = JUDGE.get_or_init(|| TestCa::new().tls("judge-1", "worker"));
        assert!(matches!(judge.verify_record(&chain, b"", 0, b""), Err(RecordError::Rejected(_))));
    }
}

static JUDGE: std::sync::OnceLock<Tls> = std::sync::OnceLock::new();

#[test]
fn a_node_is_no_intermediate_ca() {
    let ca = TestCa::new();
    // A stolen key of an ordinary node must not mint other nodes.
    let minted = ca.issue_by_node("mouse-1", PEER, "worker");
    let rejection = verdict(&ca.tls("judge-1", "worker"), &minted).unwrap_err();
    assert!(
        matches!(rejection, Rejection::Chain { .. } | Rejection::UnknownCa { .. }),
        "{rejection:?}"
    );
}

#[test]
fn dates_hold_to_the_second_and_are_read_at_each_handshake() {
    let ca = TestCa::new();
    let clock = TestClock::now();
    let reader = clock.clone();
    let judge = ca
        .options("judge-1", "worker")
        .clock(move || reader.read())
        .load(&subject("judge-1", "worker"))
        .unwrap();
    // All certificates of a TestCa are made within the same seconds, so let this one end first.
    let cert = ca.issue(PEER, "worker");
    let (not_before, not_after) = dates(&cert);
    let second = Duration::from_secs(1);
    for (time, reason) in [
        (not_before - second, "not_yet_valid"),
        (not_before, ""),
        (not_after, ""),
        (not_after + second, "expired"),
    ] {
        clock.set(time);
        let result = judge.verify_record(&cert.chain(), b"", 0, b"").unwrap_err().reason();
        assert_eq!(result, if reason.is_empty() { "scheme" } else { reason });
    }
    clock.set(not_after + second);
    assert_eq!(block_on(as_client(&judge, &cert)).unwrap_err().reason(), "expired");
}

fn dates(cert: &TestCert) -> (std::time::SystemTime, std::time::SystemTime) {
    use x509_cert::der::Decode as _;

    let certificate = x509_cert::Certificate::from_der(&cert.chain()[0]).unwrap();
    let validity = certificate.tbs_certificate().validity();
    (validity.not_before.to_system_time(), validity.not_after.to_system_time())
}
