//! The quickstart tour: it shows what it says, and notices when a step is spoilt.

use std::process::Command;

use crate::process::example;

#[test]
fn each_step_of_the_tour_comes_true() {
    let output = Command::new(example("quickstart")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let steps: Vec<_> = text.lines().map(|line| line.split_at(12).0.trim_end()).collect();
    let calls = ["call 1", "call 2", "call 3", "call 4"];
    let (before, after) =
        (["dev CA", "morpheus-1", "morpheus-2", "vicky-1"], ["drain", "intruder", "done"]);
    assert_eq!(steps, [&before[..], &calls, &after].concat());
    let directory =
        text.split_whitespace().find(|word| word.contains("aegis-quickstart-")).unwrap();
    assert!(!std::path::Path::new(directory).exists(), "{directory} was left behind");
}

#[track_caller]
fn check(step: &str, reason: &str) {
    let output = Command::new(example("quickstart")).args(["--break", step]).output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains(reason), "{error}");
}

#[test]
fn a_spoilt_step_ends_the_tour_with_its_reason() {
    check("ca", "no CA at");
    check("discovery", "did not find both providers");
    check("drain", "calls were lost");
    check("intruder", "the intruder was let in");
}
