//! What is issued, and when it is issued anew.

use std::collections::HashSet;

use aegis_testing::TestCa;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};

use super::files::logged;
use super::*;
use crate::support::subject;

#[test]
fn a_certificate_says_who_the_node_is_and_nothing_more() {
    let directory = Directory::new();
    let before = SystemTime::now();
    let services = ["identity", "audit"].map(|service| service.parse().unwrap());
    let tls = directory.load(&worker("morpheus-1").services(services)).unwrap();
    assert_eq!(tls.spiffe_id().to_string(), "spiffe://dev.aegis.local/aegis/worker/morpheus-1");

    let certificate = directory.certificate("morpheus-1");
    let tbs = certificate.tbs_certificate();
    assert_eq!(tbs.subject().to_string(), "CN=morpheus-1");
    let (_, names) = tbs.get_extension::<SubjectAltName>().unwrap().unwrap();
    let names: Vec<_> = names
        .0
        .iter()
        .map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => uri.as_str(),
            GeneralName::DnsName(name) => name.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    // No localhost, no address: with them any node could pose as any other on the host.
    assert_eq!(
        names,
        [
            "spiffe://dev.aegis.local/aegis/worker/morpheus-1",
            "morpheus-1",
            "audit.svc.dev.aegis.local",
            "identity.svc.dev.aegis.local",
        ]
    );
    let (critical, usage) = tbs.get_extension::<KeyUsage>().unwrap().unwrap();
    assert!(critical && usage.digital_signature() && !usage.key_cert_sign() && !usage.crl_sign());
    let (_, usages) = tbs.get_extension::<ExtendedKeyUsage>().unwrap().unwrap();
    let usages: Vec<_> = usages.0.iter().map(ToString::to_string).collect();
    assert_eq!(usages, ["1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2"]);
    let (critical, constraints) = tbs.get_extension::<BasicConstraints>().unwrap().unwrap();
    assert!(critical && !constraints.ca);

    let validity = tbs.validity();
    let backdated = before.duration_since(validity.not_before.to_system_time()).unwrap();
    assert!((299..=305).contains(&backdated.as_secs()), "{backdated:?}");
    let life = tls.not_after().duration_since(before).unwrap();
    assert!(6 * DAY < life && life <= 7 * DAY + Duration::from_secs(5), "{life:?}");
}

#[test]
fn the_ca_says_that_it_is_for_development_and_lives_a_month() {
    let directory = Directory::with_ca();
    let certificate = Certificate::from_der(
        &CertificateDer::from_pem_slice(&directory.read("ca-cert.pem")).unwrap(),
    )
    .unwrap();
    let tbs = certificate.tbs_certificate();
    assert!(tbs.subject().to_string().contains("aegis development CA"), "{}", tbs.subject());
    let (_, constraints) = tbs.get_extension::<BasicConstraints>().unwrap().unwrap();
    assert_eq!((constraints.ca, constraints.path_len_constraint), (true, Some(0)));
    let life = tbs.validity().not_after.to_system_time().duration_since(SystemTime::now()).unwrap();
    assert!(29 * DAY < life && life <= 30 * DAY, "{life:?}");
}

#[test]
fn serial_numbers_are_random() {
    let directory = Directory::with_ca();
    let ca = DevCa::open_or_create(&directory.path).unwrap();
    let mut serials = HashSet::new();
    for _ in 0..20 {
        ca.issue(&worker("morpheus-1")).unwrap();
        let serial = directory
            .certificate("morpheus-1")
            .tbs_certificate()
            .serial_number()
            .as_bytes()
            .to_vec();
        // 128 random bits start with seven zero bytes once in 2^56.
        assert!((10..=17).contains(&serial.len()), "{serial:?}");
        assert!(serials.insert(serial));
    }
}

#[test]
fn every_other_source_refuses_a_development_ca() {
    let directory = Directory::new();
    directory.load(&worker("morpheus-1")).unwrap();
    let files = || {
        TlsOptions::files(
            directory.join("morpheus-1-cert.pem"),
            directory.join("morpheus-1-key.pem"),
            directory.join("ca-cert.pem"),
        )
    };
    let memory = || {
        TlsOptions::pem(
            directory.read("morpheus-1-cert.pem"),
            directory.read("morpheus-1-key.pem"),
            directory.read("ca-cert.pem"),
        )
    };
    for options in [files(), memory()] {
        let error = options.load(&worker("morpheus-1")).unwrap_err();
        assert!(matches!(error, LoadError::DevelopmentCa { .. }), "{error}");
    }
    for options in [files(), memory()] {
        options.allow_development().load(&worker("morpheus-1")).unwrap();
    }
    // Nor does it slip into the bundle of a real one.
    let ca = TestCa::new();
    let cert = ca.issue("vicky", "worker");
    let bundle = [ca.root_pem().as_bytes(), &directory.read("ca-cert.pem")].concat();
    let error = TlsOptions::pem(cert.certificate_pem, cert.key_pem, bundle)
        .load(&worker("vicky"))
        .unwrap_err();
    assert!(matches!(error, LoadError::DevelopmentCa { .. }), "{error}");
}

#[test]
fn a_certificate_that_is_good_is_kept() {
    let directory = Directory::new();
    let subject = worker("morpheus-1").services(["identity".parse().unwrap()]);
    directory.load(&subject).unwrap();
    let before = directory.read("morpheus-1-cert.pem");
    for _ in 0..3 {
        directory.load(&subject).unwrap();
        assert_eq!(directory.read("morpheus-1-cert.pem"), before);
    }
}

/// Whether a certificate of `morpheus-1`, a worker, is replaced after `change`, when `wanted` loads at `time`.
#[track_caller]
fn check_renewed(renewed: bool, wanted: &Subject, time: SystemTime, change: impl Fn(&Directory)) {
    let directory = Directory::new();
    directory.load(&worker("morpheus-1")).unwrap();
    let before = directory.read("morpheus-1-cert.pem");
    change(&directory);
    directory.load_at(wanted, time).unwrap();
    assert_eq!(directory.read("morpheus-1-cert.pem") != before, renewed);
}

#[test]
fn a_certificate_that_no_longer_fits_the_node_is_renewed() {
    let now = SystemTime::now();
    let subject = worker("morpheus-1");
    let gateway = crate::support::subject("morpheus-1", "gateway");
    let granted = subject.clone().services(["identity".parse().unwrap()]);
    check_renewed(false, &subject, now, |_| {});
    check_renewed(true, &gateway, now, |_| {});
    check_renewed(true, &granted, now, |_| {});
    // A third of its seven days is left.
    check_renewed(false, &subject, now + 4 * DAY, |_| {});
    check_renewed(true, &subject, now + 5 * DAY, |_| {});
    check_renewed(true, &subject, now + 8 * DAY, |_| {});
    check_renewed(true, &subject, now, |directory| {
        fs::copy(directory.join("ca-key.pem"), directory.join("morpheus-1-key.pem")).unwrap();
    });
    check_renewed(true, &subject, now, |directory| {
        for name in ["ca-key.pem", "ca-cert.pem"] {
            fs::remove_file(directory.join(name)).unwrap();
        }
        let other = Directory::with_ca();
        for name in ["ca-key.pem", "ca-cert.pem"] {
            fs::copy(other.join(name), directory.join(name)).unwrap();
        }
    });
}

/// What is said when `morpheus-1`, a worker, loads at `time` after `change` of its directory.
#[track_caller]
fn check_announced(level: &str, expected: &str, time: SystemTime, change: impl Fn(&Directory)) {
    let directory = Directory::new();
    directory.load(&worker("morpheus-1")).unwrap();
    change(&directory);
    let text = logged(|| drop(directory.load_at(&worker("morpheus-1"), time).unwrap()));
    let line = text.lines().find(|line| line.contains("certificate")).unwrap_or_default();
    assert!(line.contains(level) && line.contains(expected), "{expected}: {text}");
    let file = directory.join("morpheus-1-cert.pem");
    assert!(line.contains(&format!("file={}", file.display())), "{line}");
    assert!(line.contains("id=morpheus-1"), "{line}");
}

#[test]
fn no_certificate_is_replaced_without_a_word_that_says_why() {
    let now = SystemTime::now();
    let replaced = |reason: &str, change: &dyn Fn(&Directory)| {
        let text = format!("replaced the development certificate of this node: {reason}");
        check_announced("WARN", &text, now, change);
    };
    let write = |directory: &Directory, name: &str, text: &str| {
        fs::write(directory.join(name), text).unwrap();
    };
    let issue_as = |directory: &Directory, subject: &Subject| {
        let ca = DevCa::open_or_create(&directory.path).unwrap();
        let issued = ca.issue(subject).unwrap();
        for (from, to) in [(issued.certificate, "cert"), (issued.key, "key")] {
            // Not `fs::copy`, which empties a file that is copied onto itself.
            let text = fs::read(from).unwrap();
            fs::write(directory.join(&format!("morpheus-1-{to}.pem")), text).unwrap();
        }
    };
    replaced("it was issued for buyer-1, type web", &|directory| {
        issue_as(directory, &subject("buyer-1", "web"));
    });
    replaced("it was issued for morpheus-1, type web", &|directory| {
        issue_as(directory, &subject("morpheus-1", "web"));
    });
    replaced("it was issued for other services", &|directory| {
        issue_as(directory, &worker("morpheus-1").services(["identity".parse().unwrap()]));
    });
    replaced("it belongs to the trust domain mesh.test", &|directory| {
        let cert = TestCa::new().issue("morpheus-1", "worker");
        write(directory, "morpheus-1-cert.pem", &cert.certificate_pem);
        write(directory, "morpheus-1-key.pem", &cert.key_pem);
    });
    replaced("it was issued by another CA", &|directory| {
        let ca = DevCa::open_or_create(&Directory::with_ca().path).unwrap();
        let other = Directory::new();
        let issued = ca.issue_into(&worker("morpheus-1"), &other.path).unwrap();
        fs::copy(issued.certificate, directory.join("morpheus-1-cert.pem")).unwrap();
        fs::copy(issued.key, directory.join("morpheus-1-key.pem")).unwrap();
    });
    replaced("its key does not fit", &|directory| {
        fs::copy(directory.join("ca-key.pem"), directory.join("morpheus-1-key.pem")).unwrap();
    });
    replaced("its key cannot be read", &|directory| {
        write(directory, "morpheus-1-key.pem", "garbage");
    });
    replaced("it cannot be read", &|directory| {
        write(directory, "morpheus-1-cert.pem", "garbage");
    });
    replaced("its key is missing", &|directory| directory.remove("morpheus-1-key.pem"));
    replaced("only its key was there", &|directory| directory.remove("morpheus-1-cert.pem"));
}

#[test]
fn the_first_certificate_and_one_renewed_for_its_age_are_no_warning() {
    let now = SystemTime::now();
    check_announced("INFO", "issued a development certificate", now, |directory| {
        directory.remove("morpheus-1-cert.pem");
        directory.remove("morpheus-1-key.pem");
    });
    for age in [5, 8] {
        let text = "renewed the development certificate of this node: it ends at 20";
        check_announced("INFO", text, now + age * DAY, |_| {});
    }
    // Whose it is counts for more than its age.
    check_announced("WARN", "it was issued for buyer-1", now + 8 * DAY, |directory| {
        directory.load(&worker("buyer-1")).unwrap();
        fs::copy(directory.join("buyer-1-cert.pem"), directory.join("morpheus-1-cert.pem"))
            .unwrap();
    });
    let directory = Directory::new();
    directory.load(&worker("morpheus-1")).unwrap();
    assert_eq!(logged(|| drop(directory.load(&worker("morpheus-1")).unwrap())), "");
}

#[test]
fn no_certificate_outlives_its_ca() {
    let directory = Directory::with_ca();
    let late = SystemTime::now() + 27 * DAY;
    let tls = directory.load_at(&worker("a"), late).unwrap();
    let left = tls.not_after().duration_since(late).unwrap();
    assert!(2 * DAY < left && left <= 3 * DAY, "{left:?}");
    // It ends soon, but a new one would end no later.
    let before = directory.read("a-cert.pem");
    directory.load_at(&worker("a"), late + DAY).unwrap();
    assert_eq!(directory.read("a-cert.pem"), before);
}

#[test]
fn a_certificate_can_be_issued_into_another_directory() {
    let (home, out) = (Directory::with_ca(), Directory::new());
    let ca = DevCa::open_or_create(&home.path).unwrap();
    let issued = ca.issue_into(&worker("python-1"), &out.path).unwrap();
    assert_eq!(issued.certificate, out.join("python-1-cert.pem"));
    assert_eq!(issued.key, out.join("python-1-key.pem"));
    assert_eq!(issued.ca, out.join("ca-cert.pem"));
    assert!(!out.join("ca-key.pem").exists());
    assert_eq!(out.read("ca-cert.pem"), home.read("ca-cert.pem"));
    out.load(&worker("python-1")).unwrap();
    // A second one beside it, and the same again: made anew, since it was asked for.
    ca.issue_into(&worker("python-2"), &out.path).unwrap();
    let before = out.read("python-1-cert.pem");
    ca.issue_into(&worker("python-1"), &out.path).unwrap();
    assert_ne!(out.read("python-1-cert.pem"), before);
    out.load(&worker("python-1")).unwrap();
    ca.issue_into(&worker("python-3"), home.path.join(".")).unwrap();
    home.load(&worker("python-3")).unwrap();

    let other = DevCa::open_or_create(&Directory::with_ca().path).unwrap();
    assert!(matches!(
        other.issue_into(&worker("x"), &out.path),
        Err(DevCaError::OtherCa { path }) if path == out.join("ca-cert.pem")
    ));
    assert!(matches!(
        other.issue_into(&worker("x"), &home.path),
        Err(DevCaError::OtherCa { path }) if path == home.join("ca-key.pem")
    ));
    assert!(matches!(ca.issue(&Subject::any()), Err(DevCaError::NoSubject)));
}

#[test]
fn certificates_of_a_real_ca_in_the_directory_are_left_alone() {
    let cert = TestCa::new().issue("a", "worker");
    let directory = Directory::with_ca();
    let write = |name: &str, text: &str| fs::write(directory.join(name), text).unwrap();
    write("ca-cert.pem", &cert.ca_pem);
    write("ca-key.pem", &cert.key_pem);
    let error = refusal(directory.load(&worker("a")));
    assert!(matches!(error, DevCaError::RealCa { .. }), "{error}");
    write("a-cert.pem", &cert.certificate_pem);
    write("a-key.pem", &cert.key_pem);
    let tls = directory.load(&worker("a")).unwrap();
    assert_eq!(tls.spiffe_id().trust_domain(), "mesh.test");
    assert_eq!(directory.read("a-cert.pem"), cert.certificate_pem.as_bytes());
}
