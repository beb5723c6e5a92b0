//! The development CA of a directory.

mod certificate;
mod files;
mod race;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use aegis_tls::dev::{DevCa, DevCaError};
use aegis_tls::{LoadError, Subject, Tls, TlsOptions};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tempfile::TempDir;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

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

    /// The files of a node as they are, with nothing made anew.
    fn load_as_files(&self, id: &str) -> Tls {
        let path = |name: &str| self.join(&format!("{id}-{name}.pem"));
        TlsOptions::files(path("cert"), path("key"), self.join("ca-cert.pem"))
            .allow_development()
            .load(&worker(id))
            .unwrap()
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

/// This test binary once more, as a process of its own that loads a node from a directory, after `limits` of the shell.
fn child(directory: &Directory, id: &str, limits: &str) -> Child {
    Command::new("sh")
        .arg("-c")
        .arg(format!("{limits}; exec \"$0\" --exact dev_ca::child_that_loads_from_a_directory"))
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
