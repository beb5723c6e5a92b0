//! The likely mistakes, made for real: what each prints is what the guide shows.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use aegis::{Node, NodeBuilder, Server, ServiceClient, ServiceInfo, ServicePool, TlsOptions};
use aegis_proto::identity::v1::GetUserRequest;
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_testing::{Flaw, TestCa, TestCert, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tracing::subscriber::DefaultGuard;

use crate::service::{IDENTITY_V1, Identity, LIMIT};

const GUIDE: &str = include_str!("../src/guide/troubleshooting.md");

const DAY: Duration = Duration::from_secs(86_400);

#[tokio::test]
async fn the_port_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap();
    let ca = TestCa::new();
    let node = node(&ca, "morpheus-1").address(address.to_string()).build().unwrap();
    let error = node.start().await.map(|_| ()).unwrap_err();
    check(&printed(error), &address);
}

#[tokio::test]
async fn the_other_side_has_another_ca() {
    let (log, _guard) = Log::listen();
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [morpheus, vicky] = &directories;
    let server = Identity::new("morpheus-1")
        .on(Node::builder().id("morpheus-1").address("127.0.0.1:0").cert_dir(morpheus.path()))
        .build()
        .unwrap()
        .start()
        .await
        .unwrap();
    let address = server.local_addr();
    let vicky = Node::builder().id("vicky-1").cert_dir(vicky.path()).join([address.to_string()]);
    let error = consume(&vicky.build().unwrap().pool(), IDENTITY_V1).await;
    check(&error, &address);
    check(&log.line("a certificate is in the way").await, &address);
    check(&log.line("refused a connection").await, &address);
}

#[tokio::test]
async fn a_certificate_has_expired() {
    let ca = TestCa::new();
    let certs = Certs::of(&ca.issue_bad("vicky-1", "storage", Flaw::Expired));
    let vicky = || Node::builder().id("vicky-1").node_type("storage");
    let error = vicky().tls(certs.options()).build().map(|_| ()).unwrap_err();
    check(&certs.named(&printed(error)), &nowhere());
    // While the process runs.
    let server = serve(&ca, "morpheus-1").await;
    let days = Arc::new(AtomicU32::new(0));
    let clock = {
        let days = Arc::clone(&days);
        move || SystemTime::now() + DAY * days.load(Ordering::SeqCst)
    };
    let vicky = vicky()
        .tls(ca.options("vicky-1", "storage").clock(clock))
        .join([server.local_addr().to_string()])
        .build()
        .unwrap();
    let identity = ServiceClient::new(&vicky.pool(), IDENTITY_V1, IdentityServiceClient::new);
    identity.wait_ready(1, LIMIT).await.unwrap();
    days.store(31, Ordering::SeqCst);
    check(&printed(identity.get().unwrap_err()), &server.local_addr());
}

#[tokio::test]
async fn another_node_answers_than_was_dialled() {
    let (log, _guard) = Log::listen();
    let ca = TestCa::new();
    let server = serve(&ca, "morpheus-1").await;
    let address = server.local_addr();
    let pool = ServicePool::builder()
        .tls(ca.options("vicky-1", "storage"))
        .provider("morpheus-2", address.to_string(), [IDENTITY_V1])
        .build()
        .unwrap();
    check(&consume(&pool, IDENTITY_V1).await, &address);
    check(&log.line("refused a connection").await, &address);
}

#[tokio::test]
async fn the_certificate_is_of_another_node() {
    let certs = Certs::of(&TestCa::new().issue("morpheus-1", "identity-server"));
    let node = Node::builder().id("morpheus-2").node_type("identity-server").tls(certs.options());
    let error = node.build().map(|_| ()).unwrap_err();
    check(&certs.named(&printed(error)), &nowhere());
}

#[tokio::test]
async fn no_seed_can_be_reached() {
    let (log, _guard) = Log::listen();
    let ca = TestCa::new();
    let vicky = node(&ca, "vicky-1").join([nowhere().to_string()]).build().unwrap();
    check(&consume(&vicky.pool(), IDENTITY_V1).await, &nowhere());
    check(&log.line("cannot reach a seed yet").await, &nowhere());
}

// Nothing here is waited for but timers, so paused time jumps from one to the next.
#[tokio::test(start_paused = true)]
async fn no_seed_can_be_reached_for_long() {
    let (log, _guard) = Log::listen();
    let vicky = node(&TestCa::new(), "vicky-1").join([nowhere().to_string()]).build().unwrap();
    let _directory = vicky.directory();
    check(&log.line("not in the mesh").await, &nowhere());
}

#[tokio::test]
async fn nobody_provides_the_service() {
    const AUDIT_V1: ServiceInfo = ServiceInfo::from_static("audit", "v1");
    let ca = TestCa::new();
    let server = serve(&ca, "morpheus-1").await;
    let address = server.local_addr();
    let vicky = node(&ca, "vicky-1").join([address.to_string()]).build().unwrap();
    check(&consume(&vicky.pool(), AUDIT_V1).await, &address);
    let alone = node(&ca, "vicky-2").build().unwrap();
    check(&consume(&alone.pool(), AUDIT_V1).await, &address);
    // A provider that is known, and does not run.
    let pool = ServicePool::builder()
        .tls(ca.options("vicky-1", "storage"))
        .provider("morpheus-1", nowhere().to_string(), [IDENTITY_V1])
        .build()
        .unwrap();
    check(&consume(&pool, IDENTITY_V1).await, &nowhere());
}

#[tokio::test]
async fn the_service_has_another_version() {
    const IDENTITY_V2: ServiceInfo = ServiceInfo::from_static("identity", "v2");
    let ca = TestCa::new();
    let server = serve(&ca, "morpheus-1").await;
    let vicky = node(&ca, "vicky-1").join([server.local_addr().to_string()]).build().unwrap();
    check(&consume(&vicky.pool(), IDENTITY_V2).await, &server.local_addr());
}

#[tokio::test]
async fn one_side_speaks_plaintext() {
    let (log, _guard) = Log::listen();
    let ca = TestCa::new();
    let server = serve(&ca, "morpheus-1").await;
    // As a client does whose address begins with `http://`.
    let mut client = TcpStream::connect(server.local_addr()).await.unwrap();
    client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    drop(client.read_to_end(&mut answer).await);
    check(&log.line("refused a connection").await, &server.local_addr());
    // And the other way round: a server of tonic's without TLS, which begins with its SETTINGS.
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = plain.local_addr().unwrap();
    let answering = async {
        loop {
            let (mut io, _) = plain.accept().await.unwrap();
            io.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
            drop(io.read_to_end(&mut Vec::new()).await);
        }
    };
    let vicky = node(&ca, "vicky-1").join([address.to_string()]).build().unwrap();
    let pool = vicky.pool();
    let error = tokio::select! {
        () = answering => unreachable!("the loop does not end"),
        error = consume(&pool, IDENTITY_V1) => error,
    };
    check(&error, &address);
}

#[tokio::test]
async fn a_clock_is_wrong() {
    let (log, _guard) = Log::listen();
    let ca = TestCa::new();
    let server = serve(&ca, "morpheus-1").await;
    let address = server.local_addr();
    // By the clock of vicky-1, and of whoever issued its certificate, it is a day and a half later.
    let certs = Certs::of(&ca.issue_bad("vicky-1", "storage", Flaw::NotYetValid));
    let ahead = certs.options().clock(|| SystemTime::now() + DAY + DAY / 2);
    let vicky = Node::builder().id("vicky-1").node_type("storage").join([address.to_string()]);
    let error = consume(&vicky.tls(ahead).build().unwrap().pool(), IDENTITY_V1).await;
    check(&error, &address);
    check(&log.line("refused a connection").await, &address);
    let late = Node::builder().id("vicky-1").node_type("storage").tls(certs.options());
    check(&certs.named(&printed(late.build().map(|_| ()).unwrap_err())), &address);
}

/// Asserts that the guide shows this line, whatever varies in it made equal.
#[track_caller]
fn check(line: &str, provider: &SocketAddr) {
    let line = normal(line, provider);
    assert!(GUIDE.lines().any(|shown| shown == line), "the guide does not show\n{line}");
}

fn node(ca: &TestCa, id: &str) -> NodeBuilder {
    Node::builder().id(id).node_type("test").tls(ca.options(id, "test"))
}

/// A provider of `identity/v1`.
async fn serve(ca: &TestCa, id: &str) -> Server {
    let node = Identity::new(id).on(node(ca, id).address("127.0.0.1:0"));
    node.build().unwrap().start().await.unwrap()
}

/// Where nobody listens.
fn nowhere() -> SocketAddr {
    "127.0.0.1:1".parse().unwrap()
}

/// What the `main` of a consumer prints that makes one call and returns the error of it.
async fn consume(pool: &ServicePool, service: ServiceInfo) -> String {
    let identity = ServiceClient::new(pool, service, IdentityServiceClient::new);
    let call = async {
        identity.get()?.get_user(GetUserRequest::default()).await?;
        Ok::<_, Box<dyn Error>>(())
    };
    format!("Error: {:?}", call.await.unwrap_err())
}

/// What a `main` prints that returns an error.
fn printed(error: impl Into<Box<dyn Error>>) -> String {
    format!("Error: {:?}", error.into())
}

/// A certificate as files, in a directory that stands for `./certs`.
struct Certs {
    directory: tempfile::TempDir,
}

impl Certs {
    fn of(cert: &TestCert) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, pem) in [
            ("cert.pem", &cert.certificate_pem),
            ("key.pem", &cert.key_pem),
            ("ca.pem", &cert.ca_pem),
        ] {
            std::fs::write(directory.path().join(name), pem).unwrap();
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let key = directory.path().join("key.pem");
            std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        Self { directory }
    }

    fn options(&self) -> TlsOptions {
        let path = self.directory.path();
        TlsOptions::files(path.join("cert.pem"), path.join("key.pem"), path.join("ca.pem"))
    }

    fn named(&self, text: &str) -> String {
        text.replace(self.directory.path().to_str().unwrap(), "certs")
    }
}

/// Makes equal what differs from run to run: the provider listens on 8443, other ports are 50000, and so on.
fn normal(line: &str, provider: &SocketAddr) -> String {
    let line = line.replace(&provider.to_string(), "127.0.0.1:8443");
    let line = each_word(&line, |word| match word.strip_prefix("127.0.0.1:") {
        Some(port) if port != "8443" && port.bytes().all(|it| it.is_ascii_digit()) => {
            Some("127.0.0.1:50000".to_owned())
        }
        _ if is_time(word) => Some("2026-01-31T12:00:00Z".to_owned()),
        _ => None,
    });
    let line = after(&line, "next attempt in ", "1.0s");
    after(&line, "CN=aegis development CA ", "0123abcd")
}

fn is_time(word: &str) -> bool {
    word.len() == 20 && word.ends_with('Z') && word.as_bytes()[10] == b'T'
}

/// Replaces words, which end at spaces and punctuation.
fn each_word(line: &str, replace: impl Fn(&str) -> Option<String>) -> String {
    line.split_inclusive([' ', ',', ';', ')', '"', '=', ']'])
        .map(|piece| {
            let word = piece.trim_end_matches([' ', ',', ';', ')', '"', '=', ']']);
            let word = word.trim_end_matches(':');
            match replace(word) {
                Some(new) => new + &piece[word.len()..],
                None => piece.to_owned(),
            }
        })
        .collect()
}

/// Replaces the word behind each `mark`.
fn after(line: &str, mark: &str, new: &str) -> String {
    let mut pieces = line.split(mark);
    let mut text = pieces.next().unwrap().to_owned();
    for piece in pieces {
        let end = piece.find([' ', ',', ';', ')', '"']).unwrap_or(piece.len());
        text = text + mark + new + &piece[end..];
    }
    text
}

/// What was logged on this thread, without times.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// Collects while the guard lives.
    fn listen() -> (Self, DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || writer.clone())
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    /// Waits for a line with this text.
    async fn line(&self, text: &str) -> String {
        eventually(LIMIT * 2, || {
            let all = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            let found = all.lines().find(|line| line.contains(text)).map(|it| it.trim().to_owned());
            found.ok_or_else(|| format!("{text:?} is not in\n{all}"))
        })
        .await
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
