//! What nodes say in the log.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aegis_core::Address;
use aegis_gossip::{Member, Observer, Settings};
use aegis_testing::{TestCa, eventually};
use aegis_tls::{Subject, Tls};
use aegis_topology::{Directory, SyncState};
use tokio::time::sleep;
use tracing_subscriber::fmt::MakeWriter;

use crate::mesh::{Node, SOON, connections, describe, observe, shows};

#[tokio::test(start_paused = true)]
async fn a_process_that_reaches_no_seed_for_ten_seconds_warns_and_again_each_minute() {
    let (lines, _listening) = listen();
    let ca = TestCa::new();
    let nobody: Address = "127.0.0.1:1".parse().unwrap();
    let (_member, _observer) = start_both(&ca.tls("b", "worker"), &nobody);
    let warnings = || lines.of("WARN", "not in the mesh: no seed can be reached; trying on").len();
    sleep(Duration::from_secs(9)).await;
    assert_eq!(warnings(), 0);
    assert_eq!(lines.of("INFO", "cannot reach a seed yet; trying on").len(), 2);
    for (seconds, expected) in [(2, 2), (57, 2), (3, 4), (56, 4), (4, 6)] {
        sleep(Duration::from_secs(seconds)).await;
        assert_eq!(warnings(), expected);
    }
    for line in lines.of("WARN", "aegis_gossip") {
        assert!(line.contains("127.0.0.1:1") && line.contains("cannot reach"), "{line}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_in_the_way_is_a_warning_at_once_and_only_one() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let a = Node::start(&ca, "a", &[]).await;
    let worker = || Subject::new("b".parse().unwrap(), "worker".parse().unwrap());
    check_warned(&other.tls("b", "worker"), &a, "the peer's certificate is refused").await;
    let trusting = other.issue("b", "worker").trusting(&[&ca, &other]);
    check_warned(&trusting.options().load(&worker()).unwrap(), &a, "it does not know our CA").await;
    let elsewhere = ca.issue_as("spiffe://elsewhere.test/aegis/worker/b").options();
    check_warned(&elsewhere.load(&Subject::any()).unwrap(), &a, "the trust domain mesh.test").await;
}

async fn check_warned(tls: &Tls, seed: &Node, reason: &str) {
    let (lines, _listening) = listen();
    let (member, observer) = start_both(tls, &seed.address);
    for directory in [member.directory(), observer.directory()] {
        for _ in 0..3 {
            fails_again(&directory).await;
        }
    }
    let warnings = lines.of("WARN", "waiting does not mend it");
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    for warning in warnings {
        let seed = seed.address.to_string();
        assert!(warning.contains(reason) && warning.contains(&seed), "{warning}");
    }
}

#[tokio::test]
async fn a_node_says_when_it_has_joined_and_when_it_lost_its_seed() {
    let (lines, _listening) = listen();
    let ca = TestCa::new();
    let a = Node::start(&ca, "a", &[]).await;
    let mut settings = Settings::default();
    settings.seed_every = Duration::from_millis(100);
    let b = Node::start_with(&ca, "b", "127.0.0.1:0", &[&a.address], settings).await;
    shows(&a.directory(), &["a", "b"]).await;
    let _observer = observe(&ca, "c", &[&a.address]);
    said(&lines, "joined the mesh", 3).await;
    for (node, line) in [("b", "node=b nodes=2 through=a"), ("c", "node=c nodes=2 through=")] {
        assert_eq!(lines.of("INFO", line).len(), 1, "{node}: {:?}", lines.of("", "joined"));
    }
    drop(a);
    said(&lines, "lost the seed; trying on", 2).await;
    shows(&b.directory(), &["a", "b"]).await;
    assert_eq!(lines.of("", "joined the mesh").len(), 3);
    assert_eq!(lines.of("WARN", "aegis_gossip"), [""; 0]);
}

/// A member and an observer that know one seed. Nobody reaches them.
fn start_both(tls: &Tls, seed: &Address) -> (Member, Observer) {
    let member = Member::new(tls.clone(), connections(tls), Settings::default());
    member.start(describe(&"127.0.0.1:2".parse().unwrap()), [seed.clone()]).unwrap();
    let observer =
        Observer::start(tls.clone(), connections(tls), [seed.clone()], Settings::default());
    (member, observer)
}

/// Waits until one more attempt to reach a seed has failed.
async fn fails_again(directory: &Directory) {
    let last = |state: &SyncState| match state {
        SyncState::Failing(failures) => Some(failures[0].at),
        _ => None,
    };
    let before = last(directory.snapshot().sync_state());
    let again = |it: &aegis_topology::Snapshot| before < last(it.sync_state());
    directory.wait_for(again, SOON).await.unwrap();
}

async fn said(lines: &Lines, text: &str, count: usize) {
    eventually(SOON, || {
        let found = lines.of("INFO", text);
        if found.len() == count { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

/// What was logged on this thread.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    /// The lines of a level that hold a text.
    pub(crate) fn of(&self, level: &str, text: &str) -> Vec<String> {
        let all = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let found = all.lines().filter(|line| line.contains(level) && line.contains(text));
        found.map(str::to_owned).collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Collects what is logged on this thread while the guard lives: by all nodes of a test with one thread.
pub(crate) fn listen() -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .with_writer(lines.clone())
        .finish();
    (lines, tracing::subscriber::set_default(subscriber))
}
