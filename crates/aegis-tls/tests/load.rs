//! What `TlsOptions::load` accepts, and what it says about everything else.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use aegis_testing::{KeyKind, TestCa, TestCert, Validity};
use aegis_tls::{LoadError, Rejection, Subject, Tls, TlsOptions};
use tempfile::TempDir;

use crate::support::{inner_key, pem, subject};

const NODE: &str = "morpheus-1";

/// The three files of a node, with a key that only its owner reads.
struct Files {
    directory: TempDir,
}

impl Files {
    fn of(cert: &TestCert) -> Self {
        let files = Self { directory: tempfile::tempdir().unwrap() };
        files.write("cert.pem", &cert.certificate_pem, 0o644);
        files.write("key.pem", &cert.key_pem, 0o600);
        files.write("ca.pem", &cert.ca_pem, 0o644);
        files
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn options(&self) -> TlsOptions {
        TlsOptions::files(self.path("cert.pem"), self.path("key.pem"), self.path("ca.pem"))
    }

    fn load(&self) -> Result<Tls, LoadError> {
        self.options().load(&subject(NODE, "worker"))
    }

    /// The refusal of a key file of this text; it has to name the file.
    fn refuse_key(&self, key: &str) -> LoadError {
        self.write("key.pem", key, 0o600);
        let error = self.load().unwrap_err();
        assert!(error.to_string().contains("key.pem"), "{error}");
        error
    }

    /// The refusal of a CA bundle of this text; it has to name the file.
    fn refuse_bundle(&self, bundle: &str) -> LoadError {
        self.write("ca.pem", bundle, 0o644);
        let error = self.load().unwrap_err();
        assert!(error.to_string().contains("ca.pem"), "{error}");
        error
    }
}

/// A node with this certificate and key loads, and others believe what it signs.
#[track_caller]
fn check_key(cert: &TestCert, key: String) {
    let tls = TlsOptions::pem(cert.certificate_pem.as_str(), key, cert.ca_pem.as_str())
        .load(&subject(NODE, "worker"))
        .unwrap();
    let signed = tls.sign_record(b"x").unwrap();
    tls.verify_record(&signed.chain, b"x", signed.scheme, &signed.signature).unwrap();
}

#[test]
fn keys_are_read_in_each_form_that_tools_write() {
    let ca = TestCa::new();
    // The named curve, as `openssl ecparam -name .. -genkey` writes it first.
    let p256: &[u8] = &[6, 8, 42, 134, 72, 206, 61, 3, 1, 7];
    let p384: &[u8] = &[6, 5, 43, 129, 4, 0, 34];
    for kind in KeyKind::ALL {
        let cert = ca.issue_with(kind, NODE, "worker");
        check_key(&cert, cert.key_pem.clone());
        check_key(&cert, cert.key_pem.replace('\n', "\r\n"));
        let curve = match kind {
            KeyKind::P256 => p256,
            KeyKind::P384 => p384,
            KeyKind::Rsa2048 | KeyKind::Rsa3072 => {
                check_key(&cert, pem("RSA PRIVATE KEY", &inner_key(&cert)));
                continue;
            }
            // It has no form of its own.
            KeyKind::Ed25519 => continue,
            kind => panic!("no forms are known for {kind:?}"),
        };
        let sec1 = pem("EC PRIVATE KEY", &inner_key(&cert));
        check_key(&cert, sec1.clone());
        check_key(&cert, pem("EC PARAMETERS", curve) + &sec1);
    }
}

#[test]
fn a_key_that_cannot_be_used_is_refused_with_its_file_and_the_reason() {
    let ca = TestCa::new();
    let cert = ca.issue(NODE, "worker");
    let files = Files::of(&cert);
    let encrypted = pem("ENCRYPTED PRIVATE KEY", b"x");
    let legacy = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
    for key in [encrypted.as_str(), legacy] {
        assert!(matches!(files.refuse_key(key), LoadError::EncryptedKey { .. }));
    }
    let certificate = files.refuse_key(&cert.certificate_pem);
    assert!(matches!(certificate, LoadError::KeyIsCertificate { .. }));
    assert!(matches!(files.refuse_key(""), LoadError::NoKey { .. }));
    assert!(matches!(files.refuse_key("no PEM at all"), LoadError::NoKey { .. }));
    let garbled = pem("PRIVATE KEY", b"no key");
    assert!(matches!(files.refuse_key(&garbled), LoadError::UnusableKey { .. }));
    let cut = &cert.key_pem[..cert.key_pem.len() / 2];
    assert!(matches!(files.refuse_key(cut), LoadError::BadPem { entry: 1, .. }));
    let other = ca.issue(NODE, "worker").key_pem;
    assert!(matches!(files.refuse_key(&other), LoadError::KeyMismatch { .. }));
    files.write("key.pem", &cert.key_pem, 0o600);
    files.load().unwrap();
}

#[test]
fn a_key_file_that_others_can_read_is_refused_unless_told() {
    let files = Files::of(&TestCa::new().issue(NODE, "worker"));
    for mode in [0o644, 0o640, 0o604] {
        fs::set_permissions(files.path("key.pem"), fs::Permissions::from_mode(mode)).unwrap();
        let error = files.load().unwrap_err();
        assert!(matches!(error, LoadError::ReadableKey { mode: found, .. } if found == mode));
        let text = error.to_string();
        for part in ["key.pem", &format!("{mode:o}"), "chmod 600", "allow_readable_key()"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        files.options().allow_readable_key().load(&subject(NODE, "worker")).unwrap();
    }
    fs::set_permissions(files.path("key.pem"), fs::Permissions::from_mode(0o400)).unwrap();
    files.load().unwrap();
}

#[test]
fn what_is_no_file_is_refused_without_waiting_for_it() {
    let files = Files::of(&TestCa::new().issue(NODE, "worker"));
    let _socket = std::os::unix::net::UnixListener::bind(files.path("socket")).unwrap();
    for path in [files.directory.path().to_owned(), files.path("socket"), files.path("missing")] {
        let error = TlsOptions::files(files.path("cert.pem"), &path, files.path("ca.pem"))
            .load(&subject(NODE, "worker"))
            .unwrap_err();
        assert!(matches!(&error, LoadError::Read { path: named, .. } if named == &path), "{error}");
    }
}

#[test]
fn the_own_certificate_has_to_come_first() {
    let root = TestCa::new();
    let cert = root.intermediate(Validity::Now).issue(NODE, "worker");
    let mut blocks: Vec<_> =
        cert.certificate_pem.split_inclusive("-----END CERTIFICATE-----\n").collect();
    blocks.push(root.root_pem());
    assert_eq!(blocks.len(), 3);

    let files = Files::of(&cert);
    files.write("cert.pem", &blocks.concat(), 0o644);
    files.load().unwrap();

    blocks.reverse();
    files.write("cert.pem", &blocks.concat(), 0o644);
    let error = files.load().unwrap_err();
    assert!(matches!(error, LoadError::KeyMismatch { .. }));
    assert!(error.to_string().contains("the own certificate has to come first"), "{error}");

    files.write("cert.pem", "", 0o644);
    assert!(matches!(files.load(), Err(LoadError::NoCertificate { .. })));
}

#[test]
fn a_cross_signed_root_of_an_expired_ca_does_no_harm() {
    let (old, new) = (TestCa::with_validity(Validity::Expired), TestCa::new());
    let mut cert = new.intermediate(Validity::Now).issue(NODE, "worker");
    cert.certificate_pem += &new.cross_signed_by(&old);
    for bundle in [vec![&new], vec![&new, &old], vec![&old, &new]] {
        cert.clone().trusting(&bundle).options().load(&subject(NODE, "worker")).unwrap();
    }
    let expired = new.intermediate(Validity::Expired).issue(NODE, "worker");
    assert!(matches!(
        expired.options().load(&subject(NODE, "worker")),
        Err(LoadError::Rejected { reason: Rejection::Expired { .. }, .. })
    ));
}

#[test]
fn a_bundle_may_hold_old_and_new_twice_and_expired_ones() {
    let old = TestCa::new();
    let (new, expired) = (old.namesake(), TestCa::with_validity(Validity::Expired));
    let bundle = [&old, &new, &old, &expired];
    let judge = old
        .issue(NODE, "worker")
        .trusting(&bundle)
        .options()
        .load(&subject(NODE, "worker"))
        .unwrap();
    for ca in [&old, &new] {
        let signed = ca.tls("vicky", "gateway").sign_record(b"x").unwrap();
        judge.verify_record(&signed.chain, b"x", signed.scheme, &signed.signature).unwrap();
    }
}

#[test]
fn a_bundle_with_a_bad_entry_is_refused_with_its_file_and_the_entry() {
    let ca = TestCa::new();
    let cert = ca.issue(NODE, "worker");
    let files = Files::of(&cert);
    let root = ca.root_pem();
    let not_base64 = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n";
    let not_der = pem("CERTIFICATE", b"no certificate");

    assert!(matches!(
        files.refuse_bundle(&format!("{root}{not_base64}{root}")),
        LoadError::BadPem { entry: 2, .. }
    ));
    for junk in [&not_der, &cert.certificate_pem] {
        assert!(matches!(
            files.refuse_bundle(&format!("{root}{junk}")),
            LoadError::BadCa { entry: 2, .. }
        ));
        assert!(matches!(files.refuse_bundle(junk), LoadError::BadCa { entry: 1, .. }));
    }
    for empty in ["", "# no certificate yet\n", &cert.key_pem] {
        assert!(matches!(files.refuse_bundle(empty), LoadError::NoCertificate { .. }));
    }
    // A bundle that is good, but not for the own certificate.
    let other = TestCa::new();
    files.write("ca.pem", other.root_pem(), 0o644);
    assert!(matches!(
        files.load(),
        Err(LoadError::Rejected { reason: Rejection::UnknownCa { .. }, .. })
    ));
    files.write("ca.pem", &format!("a comment\n{root}\n"), 0o644);
    files.load().unwrap();
}

#[test]
fn the_certificate_has_to_be_the_one_of_the_node() {
    let ca = TestCa::new();
    for (id, node_type) in [("mouse-1", "worker"), (NODE, "admin")] {
        match ca.options(NODE, "worker").load(&subject(id, node_type)) {
            Err(LoadError::WrongIdentity { expected, expected_type, found, .. }) => {
                assert_eq!((expected.as_str(), expected_type.as_str()), (id, node_type));
                assert_eq!(found.node_id(), NODE);
            }
            other => panic!("{other:?}"),
        }
    }
    let tls = ca.options(NODE, "worker").load(&Subject::any()).unwrap();
    assert_eq!(tls.spiffe_id().node_id(), NODE);
}

#[test]
fn the_environment_holds_pem() {
    // Setting a variable is racy in a threaded process, so another one loads.
    let cert = TestCa::new().issue(NODE, "worker");
    let child = |key: &str| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "load::child_that_loads_from_its_environment", "--nocapture"])
            .env("AEGIS_TEST_CERT", &cert.certificate_pem)
            .env("AEGIS_TEST_KEY", key)
            .env("AEGIS_TEST_CA", &cert.ca_pem)
            .output()
            .unwrap()
    };
    assert!(child(&cert.key_pem).status.success());
    let refused = child("");
    assert!(!refused.status.success());
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(text.contains("environment variable AEGIS_TEST_KEY"), "{text}");

    let missing = TlsOptions::env("AEGIS_TEST_NONE_1", "AEGIS_TEST_NONE_2", "AEGIS_TEST_NONE_3")
        .load(&subject(NODE, "worker"));
    assert!(
        matches!(missing, Err(LoadError::Environment { variable, .. }) if variable == "AEGIS_TEST_NONE_1")
    );
}

#[test]
fn child_that_loads_from_its_environment() {
    if std::env::var_os("AEGIS_TEST_CERT").is_none() {
        return;
    }
    let options = TlsOptions::env("AEGIS_TEST_CERT", "AEGIS_TEST_KEY", "AEGIS_TEST_CA");
    if let Err(error) = options.load(&subject(NODE, "worker")) {
        panic!("{error}");
    }
}

#[test]
fn no_debug_output_holds_a_key() {
    let ca = TestCa::new();
    let cert = ca.issue(NODE, "worker");
    let options = cert.options();
    let before = format!("{options:?} {cert:?} {ca:?}");
    let tls = options.load(&subject(NODE, "worker")).unwrap();
    let key = cert.key_pem.as_str();
    let error = TlsOptions::pem(key, key, key).load(&subject(NODE, "worker")).unwrap_err();
    let output = format!("{before} {tls:?} {error:?} {error}");
    let decimal = format!("{:?}", &inner_key(&cert)[8..16]);
    for secret in cert
        .key_pem
        .lines()
        .filter(|line| !line.starts_with("---"))
        .chain([decimal.trim_matches(['[', ']'])])
    {
        assert!(!output.contains(secret), "{output}");
    }
}

#[test]
fn a_writer_between_two_renames_is_waited_for() {
    let ca = TestCa::new();
    let (old, new) = (ca.issue(NODE, "worker"), ca.issue(NODE, "worker"));
    let files = Files::of(&old);
    let replace = |name: &str, text: &str| {
        files.write("next", text, 0o600);
        fs::rename(files.path("next"), files.path(name)).unwrap();
    };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            for cert in [&new, &old].into_iter().cycle().take(60) {
                replace("key.pem", &cert.key_pem);
                replace("cert.pem", &cert.certificate_pem);
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
        });
        while !writer.is_finished() {
            files.load().unwrap();
        }
    });
}

#[test]
fn a_directory_of_issued_certificates_is_enough() {
    let cert = TestCa::new().issue(NODE, "worker");
    let files = Files::of(&cert);
    for (from, to) in [
        ("cert.pem", "morpheus-1-cert.pem"),
        ("key.pem", "morpheus-1-key.pem"),
        ("ca.pem", "ca-cert.pem"),
    ] {
        fs::rename(files.path(from), files.path(to)).unwrap();
    }
    let directory: &Path = files.directory.path();
    let tls = TlsOptions::cert_dir(directory).load(&subject(NODE, "worker")).unwrap();
    assert_eq!(tls.spiffe_id().trust_domain(), "mesh.test");
    assert!(matches!(
        TlsOptions::cert_dir(directory).load(&Subject::any()),
        Err(LoadError::NoSubject)
    ));
    // Nobody here can issue for another node.
    assert!(TlsOptions::cert_dir(directory).load(&subject("mouse-1", "worker")).is_err());
}
