//! The server in a process of its own, where its memory, its time and its descriptors can be looked at.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{self, Command, Stdio};

use aegis_core::ServiceInfo;
use aegis_node::{Node, ServeError};
use aegis_testing::TestCa;
use aegis_tls::TlsOptions;

use super::{LAB_V1, Lab};

const CERTIFICATE: &str = "AEGIS_NODE_TEST_CERTIFICATE";
const KEY: &str = "AEGIS_NODE_TEST_KEY";
const CA: &str = "AEGIS_NODE_TEST_CA";
const LISTENING: &str = "listening on ";
const PAGE: u64 = 4_096;

/// What the child runs: this binary again, with this test alone. Without its environment it has nothing to do.
///
/// It returns the outcome as a `main` would.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serve_in_a_child() -> Result<(), ServeError> {
    if std::env::var_os(KEY).is_none() {
        return Ok(());
    }
    let info: ServiceInfo = LAB_V1;
    let node = Node::builder()
        .id("server")
        .node_type("test")
        .address("127.0.0.1:0")
        .tls(TlsOptions::env(CERTIFICATE, KEY, CA))
        .service(info, Lab::default())
        .build()
        .unwrap();
    let server = node.start().await.unwrap();
    println!("\n{LISTENING}{}", server.local_addr());
    let outcome = server.run_until_signal().await;
    println!("\n{outcome:?}");
    outcome
}

/// A serving process; killed when dropped.
pub(crate) struct Child {
    process: process::Child,
    /// Open, so that what it prints at its end fails nothing.
    stdout: BufReader<process::ChildStdout>,
    pub(crate) ca: TestCa,
    pub(crate) address: SocketAddr,
}

impl Child {
    pub(crate) fn start() -> Self {
        Self::start_with("")
    }

    /// Starts the server after some shell commands, such as `ulimit -n 64`.
    pub(crate) fn start_with(first: &str) -> Self {
        let ca = TestCa::new();
        let certificate = ca.issue("server", "test");
        let mut process = Command::new("bash")
            .args(["-c", &format!("{first}\nexec \"$0\" \"$@\"")])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "support::child::serve_in_a_child", "--nocapture"])
            .env(CERTIFICATE, certificate.certificate_pem)
            .env(KEY, certificate.key_pem)
            .env(CA, certificate.ca_pem)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let address = stdout
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix(LISTENING)?.parse().ok())
            .expect("the child does not listen");
        Self { process, stdout, ca, address }
    }

    pub(crate) fn signal(&self, signal: &str) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// What it printed since it listens; waits for its end.
    pub(crate) fn rest(&mut self) -> String {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        text
    }

    /// How the process ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<process::ExitStatus> {
        self.process.try_wait().unwrap()
    }

    /// The bytes of memory it holds.
    pub(crate) fn memory(&self) -> u64 {
        self.proc("statm").split(' ').nth(1).unwrap().parse::<u64>().unwrap() * PAGE
    }

    /// The time that it has computed, in clock ticks of 10 ms.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = self.proc("stat");
        let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
        // The fields 14 and 15 of proc(5); the first two are gone here.
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.process.id())).unwrap().count()
    }

    fn proc(&self, file: &str) -> String {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.process.id())).unwrap()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
    }
}
