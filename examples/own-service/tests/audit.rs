//! Provider and consumer as processes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// Killed when dropped.
struct Provider {
    child: Child,
    address: String,
}

impl Provider {
    fn start(certs: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_audit-provider"))
            .arg("127.0.0.1:0")
            .arg(certs)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, address }
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn consume(provider: &Provider, certs: &Path, event: [&str; 2]) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_audit-consumer"))
        .args(event)
        .arg(&provider.address)
        .arg(certs)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

#[test]
fn events_are_kept_with_the_node_that_recorded_them() {
    let certs = tempfile::tempdir().unwrap();
    let provider = Provider::start(certs.path());

    let (output, text) = consume(&provider, certs.path(), ["login", "user-7"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(text, "recorded as 1\n1 login user-7 by vicky-1\n");

    let (_, text) = consume(&provider, certs.path(), ["logout", "user-7"]);
    assert_eq!(text, "recorded as 2\n1 login user-7 by vicky-1\n2 logout user-7 by vicky-1\n");
}

#[test]
fn what_the_service_refuses_ends_the_consumer_with_its_reason() {
    let certs = tempfile::tempdir().unwrap();
    let provider = Provider::start(certs.path());
    let (output, _) = consume(&provider, certs.path(), ["", "user-7"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("an event needs an action"), "{error}");
}
