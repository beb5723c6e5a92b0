//! A refusal is never silent, and never a flood.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aegis_testing::TestCa;
use aegis_transport::{Connections, Settings, Target, Tcp};
use tracing_subscriber::fmt::MakeWriter;

use crate::support::{Server, eventually};

#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    pub(crate) fn count(&self, level: &str) -> usize {
        self.text().lines().filter(|line| line.contains(level)).count()
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

pub(crate) fn listen() -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .with_writer(lines.clone())
        .finish();
    (lines, tracing::subscriber::set_default(subscriber))
}

fn settings() -> Settings {
    let mut settings = Settings::default();
    settings.backoff.first = Duration::from_millis(5);
    settings.backoff.limit = Duration::from_millis(10);
    settings
}

#[tokio::test]
async fn a_node_that_refuses_us_is_one_warning_with_all_that_is_needed() {
    let (lines, _guard) = listen();
    let (ca, other) = (TestCa::new(), TestCa::new());
    let server = Server::start(&ca, "server-1").await;
    let tls = other.issue("client-1", "client").trusting(&[&ca, &other]).options();
    let subject = aegis_tls::Subject::new("client-1".parse().unwrap(), "client".parse().unwrap());
    let tls = tls.load(&subject).unwrap();
    let connections = Connections::new(tls, Arc::new(Tcp::default()), settings());
    let link = connections.link(server.target());
    eventually(|| (3 <= link.counters().dial_failures).then_some(())).await;
    let text = lines.text();
    assert_eq!(lines.count("WARN"), 1, "{text}");
    let address = server.address().to_string();
    for needed in ["server-1", &address, "does not know our CA", "UnknownCA", "trust domain"] {
        assert!(text.contains(needed), "{needed:?} is missing in: {text}");
    }
}

#[tokio::test]
async fn a_node_that_stays_away_is_given_up_once_and_welcomed_back() {
    let (lines, _guard) = listen();
    let ca = TestCa::new();
    let mut settings = settings();
    settings.backoff.give_up_after = Duration::from_millis(50);
    settings.backoff.give_up_pace = Duration::from_millis(20);
    let tls = ca.tls("client-1", "client");
    let connections = Connections::new(tls, Arc::new(Tcp::default()), settings);
    let server = Server::start(&ca, "server-1").await;
    let nowhere = "127.0.0.1:1".parse().unwrap();
    let link = connections.link(Target::new(server.id(), vec![nowhere]));
    eventually(|| lines.text().contains("could not be reached for long").then_some(())).await;
    let failures = link.counters().dial_failures;
    eventually(|| (failures + 3 <= link.counters().dial_failures).then_some(())).await;
    assert_eq!(lines.count("WARN"), 2, "{}", lines.text());

    link.set_addresses(vec![server.address()]);
    let _raw = server.greeted(10).await;
    eventually(|| lines.text().contains("node is reachable again").then_some(())).await;
}
