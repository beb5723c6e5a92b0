//! The examples that check themselves: they show what they say, and notice when a step is spoilt.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

use crate::process::example;

/// What an example printed.
struct Ran {
    output: Output,
    text: String,
    error: String,
}

impl Ran {
    fn new(name: &str, options: &[&str]) -> Self {
        let output = Command::new(example(name)).args(options).output().unwrap();
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let error = String::from_utf8(output.stderr.clone()).unwrap();
        Self { output, text, error }
    }

    /// The text of a step's line.
    #[track_caller]
    fn step(&self, step: &str) -> &str {
        let line = self.text.lines().find(|line| line.split_at(12).0.trim_end() == step);
        line.unwrap_or_else(|| panic!("no step {step} in {}", self.text)).split_at(12).1
    }
}

/// Runs an example and expects these steps, in this order.
#[track_caller]
fn check_steps(name: &str, steps: &[&str]) -> Ran {
    let ran = Ran::new(name, &[]);
    assert!(ran.output.status.success(), "{}{}", ran.text, ran.error);
    let printed: Vec<_> = ran.text.lines().map(|line| line.split_at(12).0.trim_end()).collect();
    assert_eq!(printed, steps, "{}", ran.text);
    ran
}

/// Spoils a step of an example and expects the reason.
#[track_caller]
fn check_broken(name: &str, step: &str, reason: &str) {
    let began = Instant::now();
    let ran = Ran::new(name, &["--break", step]);
    assert_eq!(ran.output.status.code(), Some(1), "{}{}", ran.text, ran.error);
    let last = ran.error.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: ") && last.contains(reason), "{}", ran.error);
    assert!(began.elapsed() < Duration::from_secs(30), "{step} took {:?}", began.elapsed());
}

#[test]
fn each_step_of_the_tour_comes_true() {
    let calls = ["call 1", "call 2", "call 3", "call 4"];
    let (before, after) =
        (["dev CA", "morpheus-1", "morpheus-2", "vicky-1"], ["drain", "intruder", "done"]);
    let ran = check_steps("quickstart", &[&before[..], &calls, &after].concat());
    let directory =
        ran.text.split_whitespace().find(|word| word.contains("aegis-quickstart-")).unwrap();
    assert!(!std::path::Path::new(directory).exists(), "{directory} was left behind");
}

#[test]
fn a_spoilt_step_ends_the_tour_with_its_reason() {
    check_broken("quickstart", "ca", "no CA at");
    check_broken("quickstart", "discovery", "did not find both providers");
    check_broken("quickstart", "drain", "calls were lost");
    check_broken("quickstart", "intruder", "the intruder was let in");
}

#[test]
fn no_call_fails_while_a_service_moves_to_its_second_version() {
    let steps = ["start", "both", "move", "remove", "definitions", "", "", "done"];
    let ran = check_steps("versions", &steps);
    for (step, in_use, idle) in [
        ("start", &["v1"][..], &["v2"][..]),
        ("both", &["v1"], &["v2"]),
        ("move", &["v1", "v2"], &[]),
        ("remove", &["v2"], &["v1"]),
        ("definitions", &["v2"], &["v1"]),
        ("done", &["v1", "v2"], &[]),
    ] {
        let text = ran.step(step);
        assert!(text.contains(" calls, 0 failed; "), "{text}");
        for version in idle {
            assert!(text.contains(&format!(" {version} 0")), "{text}");
        }
        for version in in_use {
            // `v1 41 (morpheus-1 14, morpheus-2 14, morpheus-3 13)`
            let (_, counts) = text.rsplit_once(&format!(" {version} ")).unwrap();
            let (_, shares) = counts.split_once('(').unwrap();
            let (shares, _) = shares.split_once(')').unwrap();
            assert_eq!(shares.split(", ").count(), 3, "{text}");
        }
    }
    assert!(ran.text.contains("0 of 3 nodes advertise identity/v1; v2 is"), "{}", ran.text);
    assert!(ran.text.contains("from each provider itself Unimplemented"), "{}", ran.text);
}

#[test]
fn a_migration_done_wrong_is_noticed() {
    check_broken("versions", "both", "calls failed, the first: Unavailable: the connection to");
    check_broken("versions", "move", "v1 was called");
    check_broken("versions", "remove", "no provider of identity/v1 can be called");
    check_broken("versions", "definitions", "morpheus-3 still serves v1");
}

#[test]
fn who_may_not_call_is_refused() {
    let steps = ["morpheus-1", "allowed", "refused", "type", "", "", "no cert", "other CA", "done"];
    let ran = check_steps("authorization", &steps);
    for (step, text) in [
        ("allowed", "it is of user 7"),
        ("refused", "PermissionDenied: node oscar-1 may not validate sessions"),
        ("type", "user-7@example.com"),
        ("no cert", "CertificateRequired"),
        ("other CA", "it does not know our CA (alert UnknownCA)"),
    ] {
        assert!(ran.step(step).contains(text), "no `{text}` in {}", ran.step(step));
    }
    let of_type = "PermissionDenied: nodes of type storage may not read users";
    assert!(ran.text.contains(of_type), "{}", ran.text);
}

#[test]
fn a_wrong_decision_on_a_caller_is_noticed() {
    check_broken("authorization", "allowed", "vicky-1 reads PermissionDenied");
    check_broken("authorization", "refused", "oscar-1 is not on the list and was answered");
    check_broken("authorization", "type", "gate-1 reads PermissionDenied");
    check_broken("authorization", "no-certificate", "whom nobody knows was let in");
    check_broken("authorization", "other-ca", "a certificate of another CA was believed");
}

#[test]
fn a_process_that_is_no_node_calls_a_mesh() {
    let steps = ["provider", "mesh", "call", "call", "call", "version", "close", "done"];
    let ran = check_steps("client_only", &steps);
    assert!(ran.step("mesh").ends_with("knows of morpheus-1, and of no client"), "{}", ran.text);
    assert_eq!(ran.step("call"), "identity/v1 of morpheus-1: user-1@example.com");
    assert!(ran.step("version").ends_with("0 of 1 nodes advertise identity/v9; v1 is"));
    assert_eq!(ran.step("close"), "the pool is closed");
}

#[test]
fn a_client_whose_calls_go_wrong_ends_with_the_reason() {
    check_broken("client_only", "mesh", "no seed could be reached");
    check_broken("client_only", "call", "call: Unavailable: ");
    check_broken("client_only", "version", "identity/v1 is served");
    check_broken("client_only", "close", "the pool is closed and takes calls");
}

#[test]
fn every_example_says_what_it_takes() {
    let names = [
        "authorization",
        "client_only",
        "consumer",
        "directory",
        "issue",
        "provider",
        "quickstart",
        "versions",
    ];
    for name in names {
        let help = Ran::new(name, &["--help"]);
        assert!(help.output.status.success(), "{name}: {}", help.error);
        assert!(help.text.contains(&format!("usage: {name} ")), "{name}: {}", help.text);
        let unknown = Ran::new(name, &["--nonsense"]);
        assert_eq!(unknown.output.status.code(), Some(1), "{name}");
        assert!(unknown.error.contains("--nonsense"), "{name}: {}", unknown.error);
    }
}
