//! The directory as JSON lines, alone and beside a mesh of processes.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::process::{Provider, example, wait};

fn command(options: &[&str]) -> Command {
    let mut command = Command::new(example("directory"));
    command.args(options);
    command
}

fn lines(text: &[u8]) -> Vec<Value> {
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

/// A process that follows a mesh; killed when dropped.
struct Follower {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Follower {
    fn start(seed: &str, certs: &Path) -> Self {
        let mut command = command(&["--seed", seed, "--cert-dir"]);
        let mut child = command.arg(certs).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    fn next(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"))
    }

    /// The next line that is about `node_id` and says `change`; others of that node may be skipped by the directory.
    fn until(&mut self, node_id: &str, change: &str) -> Value {
        loop {
            let line = self.next();
            assert_eq!(line["node_id"], node_id, "{line}");
            if line["change"] == change {
                return line;
            }
        }
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn a_node_that_comes_and_goes_is_seen_to() {
    let output = command(&[]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let lines = lines(&output.stdout);
    assert_eq!(lines[0]["sync"], "complete");
    assert_eq!(lines[0]["nodes"][0]["node_id"], "morpheus-1");
    let (first, last) = (&lines[1], &lines[lines.len() - 1]);
    assert_eq!((&first["change"], &first["node_id"]), (&"joined".into(), &"morpheus-2".into()));
    assert_eq!(first["services"], serde_json::json!(["identity/v1"]));
    assert_eq!((&last["change"], &last["node_id"]), (&"left".into(), &"morpheus-2".into()));
    let roots: std::collections::HashSet<_> = lines[1..].iter().map(|it| &it["root"]).collect();
    assert_eq!(roots.len(), lines.len() - 1, "each change has its root: {lines:?}");
}

#[test]
fn once_prints_the_directory_and_no_more() {
    let output = command(&["--once"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(lines(&output.stdout).len(), 1);
}

#[test]
fn a_mesh_of_processes_is_followed_until_an_interrupt() {
    let certs = tempfile::tempdir().unwrap();
    let a = Provider::start("morpheus-1", certs.path(), &[], &[]);
    let mut follower = Follower::start(&a.address, certs.path());
    let directory = follower.next();
    assert_eq!(directory["nodes"].as_array().unwrap().len(), 1, "no client is in it: {directory}");

    let mut b = Provider::start("morpheus-2", certs.path(), &[&a.address], &[]);
    assert_eq!(follower.until("morpheus-2", "joined")["state"], "active");
    b.signal("TERM");
    assert!(b.wait(Duration::from_secs(10)).success());
    follower.until("morpheus-2", "left");
    let joined = Provider::start("morpheus-2", certs.path(), &[&a.address], &[]);
    follower.until("morpheus-2", "joined");
    joined.kill();
    let _again = Provider::start("morpheus-2", certs.path(), &[&a.address], &[]);
    follower.until("morpheus-2", "restarted");

    let pid = follower.child.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &pid]).status().unwrap().success());
    assert!(wait(&mut follower.child, Duration::from_secs(5)).success());
}

#[test]
fn a_seed_that_does_not_answer_is_named() {
    let certs = tempfile::tempdir().unwrap();
    let mut command = command(&["--once", "--seed", "127.0.0.1:1", "--cert-dir"]);
    let output = command.arg(certs.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("no answer from 127.0.0.1:1: "), "{error}");
}
