//! The programs that `cargo xtask bench` starts, each once and shortly: a benchmark is run seldom, and should work then.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests, too, end a test this way"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

struct Server {
    process: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

fn program(certs: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aegis-bench"));
    command.args(arguments).arg("--certs").arg(certs);
    command
}

fn serve(certs: &Path, arguments: &[&str]) -> Server {
    let mut command = program(certs, &[&["serve"], arguments].concat());
    let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
    Server { process, address: line.trim().to_owned() }
}

/// Runs a client for a moment; what it printed, which says of no failure.
fn client(certs: &Path, servers: &[&Server], arguments: &[&str]) -> Value {
    let printed = run(certs, servers, arguments);
    assert_eq!(printed["failed"], 0, "{arguments:?}: {printed}");
    assert!(printed["calls"].as_u64() > Some(0), "{arguments:?}: {printed}");
    printed
}

fn run(certs: &Path, servers: &[&Server], arguments: &[&str]) -> Value {
    let mut arguments = [arguments, &["--seconds", "0.2"]].concat();
    for server in servers {
        arguments.extend(["--address", &server.address]);
    }
    let output = program(certs, &arguments).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_provider_that_fails_at_once_fails_each_call_that_is_sent_once() {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path();
    assert!(program(certs, &["certs"]).status().unwrap().success());
    let failing = serve(certs, &["raw", "--fail"]);
    let printed = run(certs, &[&failing], &["call", "raw"]);
    assert_eq!((&printed["calls"], &printed["attempts"]), (&0.into(), &Value::Null), "{printed}");
    assert_eq!(printed["failures"]["Unavailable"], printed["failed"], "{printed}");
    assert!(printed["failed"].as_u64() > Some(0), "{printed}");

    let good = serve(certs, &["aegis"]);
    let failing = serve(certs, &["aegis", "--number", "2", "--join", &good.address, "--fail"]);
    let printed = client(certs, &[&good, &failing], &["call", "aegis", "--idempotent"]);
    // It is ejected before or while they are counted.
    let sent = |number: &str| printed["attempts"][number].as_u64().unwrap();
    assert!(sent("2") < sent("1"), "{printed}");
}

#[test]
fn each_system_calls_connects_and_streams() {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path();
    assert!(program(certs, &["certs"]).status().unwrap().success());
    let raw = serve(certs, &["raw", "--burn", "20us@1/10"]);
    let aegis = serve(certs, &["aegis", "--delay", "0.001"]);
    for (system, server) in [("raw", &raw), ("aegis", &aegis), ("raw", &aegis)] {
        client(certs, &[server], &["call", system, "--in-flight", "4"]);
        client(certs, &[server], &["call", system, "--bulk", "1", "--deadline", "5"]);
        client(certs, &[server], &["stream", system, "--size", "64"]);
        client(certs, &[server], &["stream", system, "--size", "1048576"]);
    }
    client(certs, &[&raw], &["call", "aegis", "--foreign"]);
    client(certs, &[&raw], &["connect", "raw"]);
    client(certs, &[&aegis], &["connect", "aegis", "--fixed"]);
}

#[test]
fn each_balancer_spreads_calls_over_three_providers() {
    let directory = tempfile::tempdir().unwrap();
    let certs = directory.path();
    assert!(program(certs, &["certs"]).status().unwrap().success());
    let numbered = |system, number| serve(certs, &[system, "--number", number]);
    let raw = ["1", "2", "3"].map(|number| numbered("raw", number));
    let first = serve(certs, &["aegis"]);
    let joined = |number| serve(certs, &["aegis", "--number", number, "--join", &first.address]);
    let (second, third) = (joined("2"), joined("3"));
    let raw = raw.each_ref();
    for (system, servers) in
        [("balance-list", raw), ("p2c", raw), ("aegis", [&first, &second, &third])]
    {
        let arguments = ["call", system, "--in-flight", "8", "--idempotent", "--rate", "1000"];
        // tonic's balancers begin with whoever is connected first.
        let all = (0..20).any(|_| {
            let printed = client(certs, &servers, &arguments);
            printed["answered_by"].as_object().unwrap().len() == 3
        });
        assert!(all, "{system}");
    }
}
