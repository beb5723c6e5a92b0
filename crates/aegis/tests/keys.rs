//! Keys and certificates as openssl writes them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use aegis::node::BuildError;
use aegis::tls::{LoadError, TlsOptions};
use aegis::{Node, NodeBuilder};
use tempfile::TempDir;

use crate::openssl::{have_openssl, openssl};
use crate::service::{Identity, ask, ready};

/// What the CA has to write into each certificate; `ID` is the node's.
const PROFILE: &str = "subjectAltName = URI:spiffe://mesh.test/aegis/test/ID
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth, clientAuth
basicConstraints = critical, CA:FALSE
";

/// A directory with a CA of openssl's.
fn authority() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    openssl(
        directory.path(),
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 1 \
         -subj /CN=mesh -addext keyUsage=critical,keyCertSign,cRLSign",
    );
    directory
}

/// Issues `<id>.pem` for the key in `<id>.key`.
fn issue(directory: &Path, id: &str, password: &str) {
    fs::write(directory.join(format!("{id}.ext")), PROFILE.replace("ID", id)).unwrap();
    openssl(directory, &format!("req -new -key {id}.key {password} -subj /CN={id} -out {id}.csr"));
    openssl(
        directory,
        &format!(
            "x509 -req -in {id}.csr -CA ca.pem -CAkey ca.key -days 1 -extfile {id}.ext -out {id}.pem"
        ),
    );
}

fn node(directory: &Path, id: &str) -> NodeBuilder {
    let file = |end: &str| directory.join(format!("{id}.{end}"));
    fs::set_permissions(file("key"), fs::Permissions::from_mode(0o600)).unwrap();
    Node::builder().id(id).node_type("test").tls(TlsOptions::files(
        file("pem"),
        file("key"),
        directory.join("ca.pem"),
    ))
}

/// The label of the first PEM block that is not EC PARAMETERS, so that openssl wrote what the test is about.
fn form(directory: &Path, id: &str) -> String {
    let text = fs::read_to_string(directory.join(format!("{id}.key"))).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix("-----BEGIN "))
        .map(|line| line.trim_end_matches('-').to_owned())
        .collect::<Vec<_>>()
        .join(", ")
}

#[tokio::test]
async fn a_key_in_each_form_that_openssl_writes_serves_a_call() {
    if !have_openssl() {
        return;
    }
    let directory = authority();
    let path = directory.path();
    openssl(path, "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out caller.key");
    issue(path, "caller", "");
    for (id, written, make) in [
        (
            "pkcs8",
            "PRIVATE KEY",
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out pkcs8.key",
        ),
        ("sec1", "EC PARAMETERS, EC PRIVATE KEY", "ecparam -name prime256v1 -genkey -out sec1.key"),
        ("pkcs1", "RSA PRIVATE KEY", "genrsa -traditional -out pkcs1.key 2048"),
    ] {
        openssl(path, make);
        assert_eq!(form(path, id), written);
        issue(path, id, "");
        let server = Identity::new(id).on(node(path, id).address("127.0.0.1:0")).build().unwrap();
        let server = server.start().await.unwrap();
        let caller = node(path, "caller").join([server.local_addr().to_string()]).build().unwrap();
        let identity = ready(&caller.pool(), 1).await;
        let reply = ask(&identity, "1").await.unwrap();
        assert_eq!(
            (reply.name.as_str(), reply.email.as_str()),
            (id, "spiffe://mesh.test/aegis/test/caller")
        );
    }
}

#[test]
fn a_key_that_no_node_can_use_is_refused_with_its_path_and_the_reason() {
    if !have_openssl() {
        return;
    }
    let directory = authority();
    let path = directory.path();
    let encrypted: fn(&LoadError) -> bool = |it| matches!(it, LoadError::EncryptedKey { .. });
    let certificate: fn(&LoadError) -> bool = |it| matches!(it, LoadError::KeyIsCertificate { .. });
    for (id, written, make, expected, reason) in [
        (
            "encrypted",
            "ENCRYPTED PRIVATE KEY",
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes256 -pass pass:secret -out encrypted.key",
            encrypted,
            "the private key is encrypted",
        ),
        (
            "legacy",
            "RSA PRIVATE KEY",
            "genrsa -aes128 -traditional -passout pass:secret -out legacy.key 2048",
            encrypted,
            "the private key is encrypted",
        ),
        (
            "swapped",
            "CERTIFICATE",
            "x509 -in ca.pem -out swapped.key",
            certificate,
            "this is a certificate, not a private key",
        ),
    ] {
        openssl(path, make);
        assert_eq!(form(path, id), written);
        if id == "swapped" {
            fs::copy(path.join("ca.pem"), path.join("swapped.pem")).unwrap();
        } else {
            issue(path, id, "-passin pass:secret");
        }
        let error = node(path, id).build().unwrap_err();
        let text = aegis_core::Chain::new(&error).to_string();
        assert!(text.contains(&format!("{id}.key: {reason}")), "{text}");
        let BuildError::Tls { source, .. } = &error else { panic!("{error:?}") };
        assert!(expected(source), "{source:?}");
    }
}
