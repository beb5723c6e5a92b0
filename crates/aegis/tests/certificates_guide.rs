//! What the guide on certificates shows, done as it stands there.

use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use aegis::node::BuildError;
use aegis::tls::Subject;
use aegis::tls::dev::DevCa;
use aegis::{Chain, Node, Server, TlsOptions};
use aegis_testing::{Flaw, TestCa, TestCert};

use crate::guide::blocks;
use crate::service::{Identity, ask, ready};

const GUIDE: &str = include_str!("../src/guide/certificates.md");

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

#[track_caller]
fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

async fn serve(tls: TlsOptions) -> Server {
    let builder =
        Node::builder().id("morpheus-1").node_type("identity-server").address("127.0.0.1:0");
    let node = Identity::new("morpheus-1").on(builder).tls(tls).build();
    node.map_err(|error| Chain::new(&error).to_string()).unwrap().start().await.unwrap()
}

#[tokio::test]
async fn the_commands_for_openssl_make_certificates_that_nodes_call_each_other_with() {
    if !have("openssl", Command::new("openssl").arg("version")) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let script = blocks(GUIDE, "sh").join("\n");
    assert!(script.contains("openssl req -x509") && script.contains("issue vicky-1 storage"));
    let mut bash = Command::new("bash");
    let output = bash.args(["-e", "-u", "-c", &script]).current_dir(&directory).output().unwrap();
    succeeded(&output);

    let files = |id: &str| {
        let path = |name: String| directory.path().join(name);
        TlsOptions::files(
            path(format!("{id}-cert.pem")),
            path(format!("{id}-key.pem")),
            path("ca-cert.pem".to_owned()),
        )
    };
    let server = serve(files("morpheus-1")).await;
    let vicky = Node::builder()
        .id("vicky-1")
        .node_type("storage")
        .tls(files("vicky-1"))
        .join([server.local_addr().to_string()])
        .build()
        .unwrap();
    let identity = ready(&vicky.pool(), 1).await;
    let reply = ask(&identity, "7").await.unwrap();
    assert_eq!(reply.name, "morpheus-1");
    assert_eq!(reply.email, "spiffe://mesh.example/aegis/storage/vicky-1");
    server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_in_python_gets_the_health_of_a_node() {
    if !have("python3 with grpcio", Command::new("python3").args(["-c", "import grpc"])) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let ca = DevCa::open_or_create(directory.path().join("certs")).unwrap();
    let vicky = Subject::new("vicky-1".parse().unwrap(), "storage".parse().unwrap());
    ca.issue_into(&vicky, directory.path().join("vicky")).unwrap();
    let server = serve(TlsOptions::cert_dir(ca.directory())).await;

    let [script] = &blocks(GUIDE, "python")[..] else { panic!("the guide has one program") };
    let script = script.replace("127.0.0.1:8443", &server.local_addr().to_string());
    assert!(script.contains(&server.local_addr().to_string()), "{script}");
    let mut python = Command::new("python3");
    python.args(["-c", &script]).current_dir(&directory);
    let output = tokio::task::spawn_blocking(move || python.output().unwrap()).await.unwrap();
    let printed = succeeded(&output).trim().to_owned();
    assert!(GUIDE.contains(&format!("prints `{printed}`")), "it printed {printed}");
}

/// There is no step where we test, so this is as far as it goes.
#[test]
fn the_template_for_step_says_what_a_nodes_certificate_must_say() {
    let [template] = &blocks(GUIDE, "json")[..] else { panic!("the guide has one template") };
    let uri = "{{ toJson (printf \"spiffe://mesh.example/aegis/%s/%s\" .Insecure.User.type .Subject.CommonName) }}";
    let filled = template
        .replace(uri, r#""spiffe://mesh.example/aegis/identity-server/morpheus-1""#)
        .replace("{{ toJson .Subject.CommonName }}", r#""morpheus-1""#);
    let certificate: serde_json::Value = serde_json::from_str(&filled).unwrap();
    let expected = serde_json::json!({
        "subject": { "commonName": "morpheus-1" },
        "sans": [
            { "type": "uri", "value": "spiffe://mesh.example/aegis/identity-server/morpheus-1" },
            { "type": "dns", "value": "morpheus-1" },
        ],
        "keyUsage": ["digitalSignature"],
        "extKeyUsage": ["serverAuth", "clientAuth"],
        "basicConstraints": { "isCA": false },
    });
    assert_eq!(certificate, expected);
    assert!(GUIDE.contains("--set type=identity-server"), "the template has one variable of ours");
}

/// Loads these files as morpheus-1's, and returns what is printed.
fn message(certificate: &TestCert, options: impl FnOnce(&Path) -> TlsOptions) -> String {
    let directory = tempfile::tempdir().unwrap();
    let path = |name| directory.path().join(name);
    std::fs::write(path("node.pem"), &certificate.certificate_pem).unwrap();
    std::fs::write(path("node.key"), &certificate.key_pem).unwrap();
    std::fs::write(path("ca.pem"), &certificate.ca_pem).unwrap();
    std::fs::set_permissions(path("node.key"), Permissions::from_mode(0o600)).unwrap();
    let tls = options(directory.path());
    let node = Node::builder().id("morpheus-1").node_type("identity-server").tls(tls).build();
    let error: BuildError = node.map(drop).unwrap_err();
    let text = Chain::new(&error).to_string();
    text.replace(&directory.path().display().to_string(), "/etc/aegis")
}

/// The times in a message are those of the test.
fn timeless(text: &str) -> String {
    let is_time = |word: &str| word.ends_with('Z') && word.contains('T');
    let words =
        text.split(' ').map(|word| if is_time(word.trim_end_matches(',')) { "TIME" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn the_errors_of_loading_are_printed_as_the_guide_prints_them() {
    let ca = TestCa::new();
    let good = || ca.issue("morpheus-1", "identity-server");
    let files = |directory: &Path| {
        let path = |name| directory.join(name);
        TlsOptions::files(path("node.pem"), path("node.key"), path("ca.pem"))
    };
    let flawed = |flaw| ca.issue_bad("morpheus-1", "identity-server", flaw);
    let mut foreign_key = good();
    foreign_key.key_pem = good().key_pem;
    let development = {
        let directory = tempfile::tempdir().unwrap();
        let ca = DevCa::open_or_create(directory.path()).unwrap();
        String::from_utf8(ca.certificate_pem().to_vec()).unwrap()
    };
    let mut developer = good();
    developer.ca_pem = development;
    let messages = [
        message(&good(), |directory| {
            std::fs::remove_file(directory.join("node.pem")).unwrap();
            files(directory)
        }),
        message(&good(), |directory| {
            let mode = Permissions::from_mode(0o644);
            std::fs::set_permissions(directory.join("node.key"), mode).unwrap();
            files(directory)
        }),
        message(&foreign_key, files),
        message(&ca.issue("morpheus-2", "identity-server"), files),
        message(&flawed(Flaw::Expired), files),
        message(&flawed(Flaw::NoUriSan), files),
        message(&developer, files),
    ];
    let printed: Vec<_> = blocks(GUIDE, "text")
        .into_iter()
        .find(|block| block.starts_with("cannot use the certificates"))
        .map(|block| block.lines().map(timeless).collect())
        .unwrap();
    assert_eq!(messages.map(|it| timeless(&it)).to_vec(), printed);
}
