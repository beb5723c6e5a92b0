//! Clients and a server that are not ours, with certificates from `issue`: what a node is to the rest of the world, and the
//! world to a client.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use aegis::{ServiceChannel, ServiceInfo, ServicePool, TlsOptions};
use aegis_proto::identity::v1::SubscribeSessionEventsRequest;
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use tonic::{Code, Status};

use crate::process::{Provider, example};

const NODE: &str = "morpheus-1";
const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");

/// A certificate as files.
struct Issued {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

impl Issued {
    /// Lets the CA of `cert_dir` issue a certificate for `id`.
    fn new(cert_dir: &Path, id: &str) -> Self {
        let out = cert_dir.join("issued");
        let mut command = Command::new(example("issue"));
        command
            .args(["--id", id, "--type", "storage", "--cert-dir"])
            .arg(cert_dir)
            .arg("--out")
            .arg(&out);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Self {
            ca: out.join("ca-cert.pem"),
            certificate: out.join(format!("{id}-cert.pem")),
            key: out.join(format!("{id}-key.pem")),
        }
    }
}

/// Whether a test that needs `program` can run. It says so if it cannot, and does not accept that in CI.
fn have(program: &str, probe: &mut Command) -> bool {
    if probe.output().is_ok_and(|output| output.status.success()) {
        return true;
    }
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "CI has to install {program}");
    let test = std::thread::current();
    // Not by a macro, whose output is kept back when the test passes.
    let mut stderr = std::io::stderr();
    writeln!(stderr, "SKIPPED: {} needs {program}", test.name().unwrap_or_default()).unwrap();
    false
}

fn have_grpcio() -> bool {
    have("python3 with grpcio", Command::new("python3").args(["-c", "import grpc"]))
}

fn have_openssl() -> bool {
    have("openssl", Command::new("openssl").arg("version"))
}

/// The lines that the Python client prints, calls that failed included.
fn grpcio(provider: &Provider, ca: &Path, identity: Option<&Issued>) -> Vec<String> {
    let mut command = Command::new("python3");
    command
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign.py"))
        .args([&provider.address, NODE])
        .arg(ca);
    if let Some(issued) = identity {
        command.args([&issued.certificate, &issued.key]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[track_caller]
fn check_answers(lines: &[String]) {
    let expected = [
        r#"/aegis.identity.v1.IdentityService/ValidateSession {"1": 1, "2": "7","#,
        r#"/aegis.identity.v1.IdentityService/GetUser {"1": "7","#,
        "/aegis.identity.v1.IdentityService/Unheard UNIMPLEMENTED",
        r#"/grpc.health.v1.Health/Check {"1": 1}"#,
        r#"/grpc.health.v1.Health/Check {"1": 1}"#,
        "/grpc.health.v1.Health/Check NOT_FOUND",
        r#"/aegis.MeshService/Ping {"1": "morpheus-1","#,
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:#?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(expected), "expected `{expected}` in {lines:#?}");
    }
    assert!(lines[1].contains(r#""3": "morpheus-1""#), "the name is the provider's: {lines:#?}");
    assert!(lines[6].contains(r#""3": 1"#), "a ping succeeds: {lines:#?}");
}

#[track_caller]
fn check_refused(lines: &[String]) {
    assert!(!lines.is_empty());
    assert!(lines.iter().all(|line| line.contains(" UNAVAILABLE ")), "{lines:#?}");
}

#[test]
fn grpcio_with_an_issued_certificate_gets_typed_answers() {
    if !have_grpcio() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(NODE, dir.path(), &[], &[]);
    let vicky = Issued::new(dir.path(), "vicky-1");
    check_answers(&grpcio(&provider, &vicky.ca, Some(&vicky)));
}

#[test]
fn grpcio_without_a_certificate_of_this_mesh_is_refused() {
    if !have_grpcio() {
        return;
    }
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let provider = Provider::start(NODE, dir.path(), &[], &[]);
    let vicky = Issued::new(dir.path(), "vicky-1");
    // The same name, from a CA that this mesh does not know.
    let intruder = Issued::new(elsewhere.path(), "vicky-1");
    check_refused(&grpcio(&provider, &vicky.ca, None));
    check_refused(&grpcio(&provider, &vicky.ca, Some(&intruder)));
    // Nothing else was wrong with those calls.
    check_answers(&grpcio(&provider, &vicky.ca, Some(&vicky)));
}

#[test]
fn grpcio_that_trusts_another_ca_refuses_the_node() {
    if !have_grpcio() {
        return;
    }
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let provider = Provider::start(NODE, dir.path(), &[], &[]);
    let vicky = Issued::new(dir.path(), "vicky-1");
    let other = Issued::new(elsewhere.path(), "vicky-1");
    check_refused(&grpcio(&provider, &other.ca, Some(&vicky)));
}

/// A server on grpcio whose streams begin after so long; it ends when this is dropped.
struct GrpcioServer {
    child: Child,
    address: String,
}

impl GrpcioServer {
    fn start(issued: &Issued, delay: Duration) -> Self {
        let mut command = Command::new("python3");
        command
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/foreign_server.py"))
            .arg(delay.as_secs_f64().to_string())
            .args([&issued.ca, &issued.certificate, &issued.key]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Self { child, address: format!("127.0.0.1:{}", port.trim()) }
    }
}

impl Drop for GrpcioServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Whose session the first event is about, and after how long it came.
async fn first_event(channel: ServiceChannel) -> (Result<String, Status>, Duration) {
    let began = Instant::now();
    let event = async {
        let request = SubscribeSessionEventsRequest::default();
        let mut client = IdentityServiceClient::new(channel);
        let mut events = client.subscribe_session_events(request).await?.into_inner();
        Ok(events.message().await?.unwrap().user_id)
    };
    (event.await, began.elapsed())
}

#[test]
fn a_stream_of_grpcio_whose_first_message_comes_after_12_s_is_delivered() {
    const DELAY: Duration = Duration::from_secs(12);
    const SECOND: Duration = Duration::from_secs(1);
    if !have_grpcio() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [server, client] = [NODE, "vicky-1"].map(|id| Issued::new(dir.path(), id));
    let server = GrpcioServer::start(&server, DELAY);
    let Issued { ca, certificate, key } = &client;
    let tls = TlsOptions::files(certificate, key, ca).allow_development();
    let pool = ServicePool::builder().tls(tls);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let pool = pool.foreign_provider(NODE, &server.address, [IDENTITY_V1]).build().unwrap();
        let channel = pool.channel(IDENTITY_V1);
        channel.wait_ready(1, 10 * SECOND).await.unwrap();
        let (event, limited) = tokio::join!(
            first_event(channel.clone()),
            first_event(channel.clone().response_limit(2 * SECOND)),
        );
        assert_eq!(event.0.unwrap(), "7");
        assert!(DELAY <= event.1, "{:?}", event.1);
        // Until then there is nothing of an answer, not even its headers.
        let status = limited.0.unwrap_err();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!(status.message().contains("response_limit of 2s"), "{status}");
        assert!((2 * SECOND..DELAY / 2).contains(&limited.1), "{:?}", limited.1);
    });
}

/// A handshake, and nothing more.
fn openssl(provider: &Provider, issued: &Issued, more: &[&str]) -> (Output, String) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-connect", &provider.address, "-servername", NODE, "-alpn", "h2"]);
    command.args(["-verify_return_error", "-CAfile"]).arg(&issued.ca);
    command.arg("-cert").arg(&issued.certificate).arg("-key").arg(&issued.key).args(more);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output, String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn openssl_is_refused_with_tls_1_2() {
    if !have_openssl() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(NODE, dir.path(), &[], &[]);
    let vicky = Issued::new(dir.path(), "vicky-1");

    let (output, text) = openssl(&provider, &vicky, &["-tls1_2"]);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("alert protocol version"), "{text}");

    let (output, text) = openssl(&provider, &vicky, &["-tls1_3"]);
    assert!(output.status.success(), "{text}");
    for expected in ["New, TLSv1.3", "ALPN protocol: h2", "Verification: OK"] {
        assert!(text.contains(expected), "no `{expected}` in {text}");
    }
}

#[test]
fn openssl_is_refused_without_http_2() {
    if !have_openssl() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let provider = Provider::start(NODE, dir.path(), &[], &[]);
    let vicky = Issued::new(dir.path(), "vicky-1");
    let (output, text) = openssl(&provider, &vicky, &["-tls1_3", "-alpn", "http/1.1"]);
    assert!(!output.status.success(), "{text}");
    assert!(text.contains("alert no application protocol"), "{text}");
}
