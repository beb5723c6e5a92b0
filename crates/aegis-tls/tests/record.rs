//! Signatures of topology records.

use std::time::Duration;

use aegis_testing::{Flaw, TestCa};
use aegis_tls::{RecordError, RecordSignature, SignError, Tls};

use crate::support::{TestClock, subject};

const BODY: &[u8] = b"the bytes of a record";

fn check(judge: &Tls, body: &[u8], signed: &RecordSignature) -> Result<String, RecordError> {
    judge
        .verify_record(&signed.chain, body, signed.scheme, &signed.signature)
        .map(|owner| owner.spiffe_id.to_string())
}

#[test]
fn everybody_in_the_mesh_sees_who_signed() {
    let ca = TestCa::new();
    let (morpheus, vicky) = (ca.tls("morpheus-1", "worker"), ca.tls("vicky", "gateway"));
    let signed = morpheus.sign_record(BODY).unwrap();
    for judge in [&vicky, &morpheus] {
        assert_eq!(
            check(judge, BODY, &signed).as_deref(),
            Ok("spiffe://mesh.test/aegis/worker/morpheus-1")
        );
    }
    let owner = vicky.verify_record(&signed.chain, BODY, signed.scheme, &signed.signature).unwrap();
    assert_eq!(owner.not_after, morpheus.not_after());
}

#[test]
fn each_flipped_bit_of_body_or_signature_is_noticed() {
    let ca = TestCa::new();
    let tls = ca.tls("morpheus-1", "worker");
    let signed = tls.sign_record(BODY).unwrap();
    for bit in 0..BODY.len() * 8 {
        let mut body = BODY.to_vec();
        body[bit / 8] ^= 1 << (bit % 8);
        assert!(matches!(check(&tls, &body, &signed), Err(RecordError::Signature { .. })));
    }
    for bit in 0..signed.signature.len() * 8 {
        let mut forged = signed.clone();
        forged.signature[bit / 8] ^= 1 << (bit % 8);
        assert!(check(&tls, BODY, &forged).is_err(), "bit {bit}");
    }
    let mut cut = signed.clone();
    cut.signature.truncate(8);
    assert!(check(&tls, BODY, &cut).is_err());
}

#[test]
fn a_signature_of_another_context_is_no_record() {
    use rustls::SignatureScheme;
    use sha2::{Digest as _, Sha256};

    let ca = TestCa::new();
    let cert = ca.issue("morpheus-1", "worker");
    let tls = cert.options().load(&subject("morpheus-1", "worker")).unwrap();
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&cert.key()).unwrap();
    let scheme = SignatureScheme::ECDSA_NISTP256_SHA256;
    let sign = |context: &[u8], domain: &str| {
        let mut message = vec![0x20; 64];
        message.extend_from_slice(context);
        message.extend_from_slice(&Sha256::digest(domain));
        message.extend_from_slice(&Sha256::digest(BODY));
        RecordSignatureParts(key.choose_scheme(&[scheme]).unwrap().sign(&message).unwrap())
    };
    let verdict = |signature: &RecordSignatureParts| {
        tls.verify_record(&cert.chain(), BODY, scheme.into(), &signature.0).map(drop)
    };
    assert_eq!(verdict(&sign(b"aegis topology record v1\0", "mesh.test")), Ok(()));
    for (context, domain) in [
        (b"TLS 1.3, server CertificateVerify\0".as_slice(), "mesh.test"),
        (b"aegis topology record v2\0", "mesh.test"),
        (b"aegis topology record v1\0", "other.test"),
    ] {
        let refused = verdict(&sign(context, domain));
        assert!(matches!(refused, Err(RecordError::Signature { .. })), "{refused:?}");
    }
}

struct RecordSignatureParts(Vec<u8>);

#[test]
fn a_chain_that_proves_nothing_signs_nothing() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let judge = ca.tls("vicky", "gateway");
    let foreign = other.tls("morpheus-1", "worker").sign_record(BODY).unwrap();
    assert_eq!(check(&judge, BODY, &foreign).unwrap_err().reason(), "unknown_ca");

    // Another node's chain with the own signature.
    let mut borrowed = ca.tls("mouse-1", "worker").sign_record(BODY).unwrap();
    borrowed.chain = ca.issue("morpheus-1", "worker").chain();
    assert_eq!(check(&judge, BODY, &borrowed).unwrap_err().reason(), "signature");

    for flaw in Flaw::ALL {
        if flaw == Flaw::OnlyServerAuth {
            continue;
        }
        let chain = ca.issue_bad("morpheus-1", "worker", flaw).chain();
        let refused = judge.verify_record(&chain, BODY, 0x0403, b"");
        assert!(matches!(refused, Err(RecordError::Rejected(_))), "{flaw:?}: {refused:?}");
    }
    assert!(matches!(judge.verify_record(&[], BODY, 0x0403, b""), Err(RecordError::Rejected(_))));
}

#[test]
fn a_scheme_of_another_key_or_of_tls_1_2_is_refused() {
    let ca = TestCa::new();
    let tls = ca.tls("morpheus-1", "worker");
    let mut signed = tls.sign_record(BODY).unwrap();
    for scheme in [0x0000, 0x0401, 0x0201, 0x0203, 0xffff] {
        signed.scheme = scheme;
        assert_eq!(check(&tls, BODY, &signed), Err(RecordError::Scheme { scheme }));
    }
    for scheme in [0x0503, 0x0807, 0x0804] {
        signed.scheme = scheme;
        assert!(matches!(check(&tls, BODY, &signed), Err(RecordError::Signature { .. })));
    }
}

#[test]
fn an_expired_certificate_neither_signs_nor_vouches() {
    let ca = TestCa::new();
    let clock = TestClock::now();
    let reader = clock.clone();
    let tls = ca
        .options("morpheus-1", "worker")
        .clock(move || reader.read())
        .load(&subject("morpheus-1", "worker"))
        .unwrap();
    let signed = tls.sign_record(BODY).unwrap();
    clock.set(tls.not_after() + Duration::from_secs(1));
    assert_eq!(check(&tls, BODY, &signed).unwrap_err().reason(), "expired");
    assert!(matches!(tls.sign_record(BODY), Err(SignError::NoCertificate(_))));
}
