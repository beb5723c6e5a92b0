//! The examples as processes: started, watched and signalled as a script would.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde::Deserialize;

/// So many here; all of them with `AEGIS_FULL` in the environment.
pub(crate) fn scaled(here: u32, all: u32) -> u32 {
    if std::env::var_os("AEGIS_FULL").is_some() { all } else { here }
}

/// The built example of a name; `cargo test` builds all of them.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().join("examples").join(name)
}

/// A provider process; killed when dropped.
pub(crate) struct Provider {
    child: Child,
    pub(crate) address: String,
}

impl Provider {
    /// Starts a provider on a port of its own, or on a given address, and waits until it listens.
    pub(crate) fn start(id: &str, cert_dir: &Path, join: &[&str], more: &[&str]) -> Self {
        Self::begin(id, "127.0.0.1:0", cert_dir, join, more).listening()
    }

    pub(crate) fn start_at(
        id: &str,
        address: &str,
        cert_dir: &Path,
        join: &[&str],
        more: &[&str],
    ) -> Self {
        Self::begin(id, address, cert_dir, join, more).listening()
    }

    /// Starts a provider without waiting.
    pub(crate) fn begin(
        id: &str,
        address: &str,
        cert_dir: &Path,
        join: &[&str],
        more: &[&str],
    ) -> Self {
        let mut command = Command::new(example("provider"));
        command
            .args(["--id", id, "--type", "identity-server", "--address", address, "--cert-dir"])
            .arg(cert_dir);
        for seed in join {
            command.args(["--join", seed]);
        }
        let child = command.args(more).stdout(Stdio::piped()).spawn().unwrap();
        Self { child, address: address.to_owned() }
    }

    /// Waits for the line that says it listens.
    pub(crate) fn listening(mut self) -> Self {
        let mut line = String::new();
        BufReader::new(self.child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let words: Vec<_> = line.split_whitespace().collect();
        let ["listening", _, address] = words[..] else {
            panic!("expected `listening ID HOST:PORT`, got {line:?}")
        };
        address.clone_into(&mut self.address);
        self
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", signal, &pid]).status().unwrap().success());
    }

    /// Waits for the process to end.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        wait(&mut self.child, limit)
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a consumer reports.
#[derive(Debug, Deserialize)]
pub(crate) struct Report {
    pub(crate) calls: u64,
    pub(crate) ok: u64,
    pub(crate) failed: BTreeMap<String, u64>,
    pub(crate) by_provider: BTreeMap<String, u64>,
    pub(crate) failed_by_provider: BTreeMap<String, u64>,
    pub(crate) last_failed_ms: f64,
    /// What it says for people: the slowest call, and the first failure of each code.
    #[serde(skip)]
    pub(crate) remarks: String,
    /// What it prints before the JSON object.
    #[serde(skip)]
    pub(crate) explanation: String,
}

impl Report {
    /// How many calls failed with another provider than this one, or with none.
    pub(crate) fn failed_elsewhere(&self, than: &str) -> u64 {
        let failed: u64 = self.failed_by_provider.values().sum();
        assert_eq!(failed, self.calls - self.ok, "each failed call is counted once: {self:?}");
        failed - self.failed_by_provider.get(than).copied().unwrap_or_default()
    }

    /// How long the slowest call took, in milliseconds.
    pub(crate) fn slowest_ms(&self) -> f64 {
        let line = self.remarks.lines().find_map(|line| line.strip_prefix("slowest call: "));
        line.and_then(|line| line.strip_suffix(" ms")).unwrap().parse().unwrap()
    }
}

/// A consumer process; killed when dropped.
pub(crate) struct Consumer(Child);

impl Consumer {
    pub(crate) fn start(cert_dir: &Path, join: &str, more: &[&str]) -> Self {
        let mut command = Command::new(example("consumer"));
        command
            .args(["--id", "vicky-1", "--type", "storage", "--join", join, "--cert-dir"])
            .arg(cert_dir);
        Self(command.args(more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
    }

    /// Waits for the report.
    pub(crate) fn report(mut self, limit: Duration) -> Report {
        let stdout = read(self.0.stdout.take().unwrap());
        let stderr = read(self.0.stderr.take().unwrap());
        let status = wait(&mut self.0, limit);
        let (text, remarks) = (stdout.join().unwrap(), stderr.join().unwrap());
        let (explanation, json) = text.trim_end().rsplit_once('\n').unwrap_or(("", &text));
        let mut report: Report = serde_json::from_str(json)
            .unwrap_or_else(|error| panic!("{error} in {text:?} ({status}): {remarks}"));
        report.remarks = remarks;
        explanation.clone_into(&mut report.explanation);
        assert_eq!(
            status.success(),
            report.failed.is_empty(),
            "exit code 0 exactly if no call failed"
        );
        report
    }

    /// Starts a consumer and waits for its report.
    pub(crate) fn run(cert_dir: &Path, join: &str, more: &[&str]) -> Report {
        Self::start(cert_dir, join, more).report(Duration::from_secs(60))
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Reads a pipe to its end, aside.
fn read(mut pipe: impl std::io::Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        pipe.read_to_string(&mut text).unwrap();
        text
    })
}

pub(crate) fn wait(child: &mut Child, limit: Duration) -> ExitStatus {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(Instant::now() < end, "the process still runs after {limit:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
