//! Another implementation of keys, certificates and TLS.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;

/// Whether openssl is there. A test that needs it says so if it is not, and does not accept that in CI.
pub(crate) fn have_openssl() -> bool {
    if Command::new("openssl").arg("version").output().is_ok_and(|it| it.status.success()) {
        return true;
    }
    let ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!ci, "CI has to install openssl");
    let test = std::thread::current();
    // Not by a macro, whose output is kept back when the test passes.
    let mut stderr = std::io::stderr();
    writeln!(stderr, "SKIPPED: {} needs openssl", test.name().unwrap_or_default()).unwrap();
    false
}

/// Runs a command line of openssl in a directory; it has to go well.
#[track_caller]
pub(crate) fn openssl(directory: &Path, line: &str) {
    let output = Command::new("openssl")
        .args(line.split_whitespace())
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(output.status.success(), "{line}: {output:?}");
}
