//! The development CA of a directory.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use aegis_core::NodeId;
use aegis_testing::TestCa;
use aegis_tls::dev::{DevCa, DevCaError};
use aegis_tls::{Expected, LoadError, Subject, Tls, TlsOptions};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tempfile::TempDir;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage, SubjectAltName};

use crate::support::subject;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A directory that does not exist yet.
struct Directory {
    _parent: TempDir,
    path: PathBuf,
}

impl Directory {
    fn new() -> Self {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("a/certs");
        Self { _parent: parent, path }
    }

    fn with_ca() -> Self {
        let directory = Self::new();
        DevCa::open_or_create(&directory.path).unwrap();
        directory
    }

    fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.join(name)).unwrap()
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.join(name)).unwrap();
    }

    fn load(&self, subject: &Subject) -> Result<Tls, LoadError> {
        TlsOptions::cert_dir(&self.path).load(subject)
    }

    fn load_at(&self, subject: &Subject, time: SystemTime) -> Result<Tls, LoadError> {
        TlsOptions::cert_dir(&self.path).clock(move || time).load(subject)
    }

    fn certificate(&self, id: &str) -> Certificate {
        let pem = self.read(&format!("{id}-cert.pem"));
        Certificate::from_der(&CertificateDer::from_pem_slice(&pem).unwrap()).unwrap()
    }

    fn modes(&self) -> Vec<(String, u32)> {
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let mut modes: Vec<_> = fs::read_dir(&self.path)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), mode(&entry.path())))
            .chain([(".".to_owned(), mode(&self.path))])
            .collect();
        modes.sort();
        modes
    }
}

fn worker(id: &str) -> Subject {
    subject(id, "worker")
}

fn refusal(result: Result<Tls, LoadError>) -> DevCaError {
    match result {
        Err(LoadError::Directory(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// This test binary once more, as a process of its own that loads a node from a directory.
fn child(directory: &Directory, id: &str, umask: &str) -> Child {
    Command::new("sh")
        .arg("-c")
        .arg(format!(
            "umask {umask}; exec \"$0\" --exact dev_ca::child_that_loads_from_a_directory"
        ))
        .arg(std::env::current_exe().unwrap())
        .env("AEGIS_TEST_DIRECTORY", &directory.path)
        .env("AEGIS_TEST_ID", id)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn child_that_loads_from_a_directory() {
    let Some(directory) = std::env::var_os("AEGIS_TEST_DIRECTORY") else {
        return;
    };
    let id = std::env::var("AEGIS_TEST_ID").unwrap();
    TlsOptions::cert_dir(directory).load(&worker(&id)).unwrap();
}

async fn connect(client: &Tls, server: &Tls) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let pin = server.spiffe_id().node_id().clone();
    let (connected, accepted) =
        tokio::join!(client.connect(Expected::Node(&pin), near), server.accept(far));
    connected.unwrap();
    accepted.unwrap();
}

#[test]
fn keys_are_private_from_the_first_byte_on_whatever_the_umask() {
    for (umask, public) in [("000", 0o644), ("022", 0o644), ("077", 0o600)] {
        let directory = Directory::new();
        assert!(child(&directory, "morpheus-1", umask).wait().unwrap().success());
        let expected = [
            (".", 0o700),
            (".aegis.lock", 0o600),
            ("ca-cert.pem", public),
            ("ca-key.pem", 0o600),
            ("morpheus-1-cert.pem", public),
            ("morpheus-1-key.pem", 0o600),
        ];
        assert_eq!(directory.modes(), expected.map(|(name, mode)| (name.to_owned(), mode)));
    }
}

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

#[tokio::test]
async fn sixteen_threads_at_once_end_with_one_ca() {
    {
        let directory = Directory::new();
        let nodes: Vec<Tls> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16)
                .map(|index| {
                    let directory = &directory;
                    scope.spawn(move || directory.load(&worker(&format!("node-{index}"))).unwrap())
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for client in &nodes {
            for server in &nodes {
                connect(client, server).await;
            }
        }
    }
}

#[tokio::test]
async fn sixteen_processes_at_once_end_with_one_ca() {
    for _ in 0..2 {
        let directory = Directory::new();
        let ids: Vec<_> = (0..16).map(|index| format!("node-{index}")).collect();
        let children: Vec<_> = ids.iter().map(|id| child(&directory, id, "022")).collect();
        for mut child in children {
            assert!(child.wait().unwrap().success());
        }
        let certificates: Vec<_> =
            ids.iter().map(|id| directory.read(&format!("{id}-cert.pem"))).collect();
        let nodes: Vec<_> = ids.iter().map(|id| directory.load(&worker(id)).unwrap()).collect();
        for (id, certificate) in ids.iter().zip(&certificates) {
            assert_eq!(&directory.read(&format!("{id}-cert.pem")), certificate, "issued twice");
        }
        for client in &nodes {
            connect(client, &nodes[0]).await;
        }
    }
}

#[test]
fn a_process_killed_at_any_moment_leaves_a_directory_that_works() {
    for round in 0..25 {
        let directory = Directory::new();
        let mut child = child(&directory, "morpheus-1", "000");
        // Where in its work it dies is up to chance; the pause only spreads the moments.
        std::thread::sleep(Duration::from_micros(400 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        if !directory.path.exists() {
            continue;
        }
        for (name, mode) in directory.modes() {
            assert!(!name.contains("-key.pem") || mode == 0o600, "{name}: {mode:o}");
        }
        directory.load(&worker("morpheus-1")).unwrap();
    }
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

#[test]
fn half_a_ca_is_an_error_and_never_replaced() {
    let key_only = Directory::with_ca();
    key_only.remove("ca-cert.pem");
    let key = key_only.read("ca-key.pem");
    assert!(matches!(refusal(key_only.load(&worker("a"))), DevCaError::HalfCa { .. }));
    let opened = DevCa::open_or_create(&key_only.path);
    assert!(matches!(opened, Err(DevCaError::HalfCa { .. })));
    assert_eq!(key_only.read("ca-key.pem"), key);
    assert!(!key_only.join("ca-cert.pem").exists());

    let certificate_only = Directory::with_ca();
    certificate_only.remove("ca-key.pem");
    let error = refusal(certificate_only.load(&worker("a")));
    assert!(matches!(error, DevCaError::CannotIssue { .. }), "{error}");
    let opened = DevCa::open_or_create(&certificate_only.path);
    assert!(matches!(opened, Err(DevCaError::HalfCa { .. })));
    assert!(!certificate_only.join("ca-key.pem").exists());

    // A node's pair without its CA: a new CA would make the pair worthless.
    let pair_only = Directory::new();
    pair_only.load(&worker("a")).unwrap();
    pair_only.remove("ca-cert.pem");
    pair_only.remove("ca-key.pem");
    assert!(matches!(refusal(pair_only.load(&worker("a"))), DevCaError::HalfCa { .. }));
}

#[test]
fn a_creation_cut_off_between_its_renames_is_completed() {
    let directory = Directory::with_ca();
    let certificate = directory.read("ca-cert.pem");
    fs::rename(directory.join("ca-cert.pem"), directory.join(".ca-cert.pem.new")).unwrap();
    directory.load(&worker("a")).unwrap();
    assert_eq!(directory.read("ca-cert.pem"), certificate);

    // Not with a certificate of another CA.
    let other = Directory::with_ca();
    other.remove("ca-cert.pem");
    fs::write(other.join(".ca-cert.pem.new"), &certificate).unwrap();
    assert!(matches!(refusal(other.load(&worker("a"))), DevCaError::HalfCa { .. }));
}

#[test]
fn a_ca_that_was_moved_away_after_issuing_still_works() {
    let directory = Directory::new();
    directory.load(&worker("a")).unwrap();
    directory.remove("ca-key.pem");
    directory.load(&worker("a")).unwrap();
    assert!(!directory.join("ca-key.pem").exists());
}

#[test]
fn the_halves_of_two_cas_are_no_ca() {
    let (one, other) = (Directory::with_ca(), Directory::with_ca());
    fs::copy(other.join("ca-key.pem"), one.join("ca-key.pem")).unwrap();
    let (certificate, key) = (one.read("ca-cert.pem"), one.read("ca-key.pem"));
    assert!(matches!(refusal(one.load(&worker("a"))), DevCaError::Mismatch { .. }));
    assert_eq!((one.read("ca-cert.pem"), one.read("ca-key.pem")), (certificate, key));
}

#[test]
fn an_expired_ca_is_not_replaced_but_explained() {
    let directory = Directory::with_ca();
    let certificate = directory.read("ca-cert.pem");
    let error = refusal(directory.load_at(&worker("a"), SystemTime::now() + 31 * DAY));
    assert!(matches!(error, DevCaError::Expired { .. }));
    assert!(error.to_string().contains("remove the directory to get a new one"), "{error}");
    assert_eq!(directory.read("ca-cert.pem"), certificate);
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
    // A second one beside it, and the same again.
    ca.issue_into(&worker("python-2"), &out.path).unwrap();
    ca.issue_into(&worker("python-1"), &out.path).unwrap();
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
fn a_directory_that_others_may_write_to_is_refused() {
    let directory = Directory::with_ca();
    for mode in [0o777, 0o770, 0o702, 0o1777] {
        fs::set_permissions(&directory.path, fs::Permissions::from_mode(mode)).unwrap();
        let error = refusal(directory.load(&worker("a")));
        assert!(
            matches!(error, DevCaError::Exposed { mode: found, .. } if found == mode),
            "{error}"
        );
    }
    fs::set_permissions(&directory.path, fs::Permissions::from_mode(0o755)).unwrap();
    directory.load(&worker("a")).unwrap();
}

#[test]
fn links_are_neither_followed_nor_written_through() {
    let victim = tempfile::NamedTempFile::new().unwrap();
    fs::write(victim.path(), "precious").unwrap();
    for name in [".aegis.lock", "ca-key.pem", "ca-cert.pem", "a-key.pem", "a-cert.pem"] {
        let directory = Directory::new();
        directory.load(&worker("a")).unwrap();
        directory.remove(name);
        symlink(victim.path(), directory.join(name)).unwrap();
        let error = refusal(directory.load(&worker("a")));
        assert!(
            matches!(&error, DevCaError::NotAFile { path } if path == &directory.join(name)),
            "{name}: {error}"
        );
    }
    // Where the next file is staged, a link is removed, not followed.
    for name in ["ca-key.pem", "ca-cert.pem", "a-key.pem", "a-cert.pem"] {
        let directory = Directory::new();
        fs::create_dir_all(&directory.path).unwrap();
        symlink(victim.path(), directory.join(&format!(".{name}.new"))).unwrap();
        directory.load(&worker("a")).unwrap();
    }
    assert_eq!(fs::read(victim.path()).unwrap(), b"precious");
}

#[test]
fn no_name_of_a_node_leads_out_of_the_directory() {
    for id in ["../escaped", "/etc/passwd", "a/b", "..", "ca", "a\0b", ""] {
        assert!(id.parse::<NodeId>().is_err(), "{id:?}");
    }
    let directory = Directory::new();
    for id in ["10", "node.1", "a.-b", "a_b"] {
        directory.load(&worker(id)).unwrap();
    }
    let parent = fs::read_dir(directory.path.parent().unwrap()).unwrap();
    assert_eq!(parent.count(), 1);
    assert_eq!(directory.modes().len(), 4 + 2 * 4);
}

#[test]
fn the_creation_of_a_ca_is_announced_once_with_its_directory() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_writer({
            let log = log.clone();
            move || log.clone()
        })
        .with_ansi(false)
        .finish();
    let directory = Directory::new();
    tracing::subscriber::with_default(subscriber, || {
        for id in ["a", "b", "a"] {
            directory.load(&worker(id)).unwrap();
        }
    });
    let text = log.text();
    assert_eq!(text.matches("created a development CA").count(), 1, "{text}");
    assert!(text.contains("WARN") && text.contains(directory.path.to_str().unwrap()), "{text}");
    let key = String::from_utf8(directory.read("ca-key.pem")).unwrap();
    assert!(!text.contains(key.lines().nth(1).unwrap()));
}

#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
