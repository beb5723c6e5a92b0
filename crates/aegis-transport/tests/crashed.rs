//! A node that is gone for half a day: how often it is dialled, and what is said about it.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aegis_core::Address;
use aegis_testing::TestMesh;
use aegis_transport::{
    BoxFuture, BoxIo, Connections, Link, LinkStatus, Listener, Network, Settings, Target,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;
use tonic::body::Body;
use tower_service::Service as _;

use crate::log::{Lines, listen};
use crate::support::assert_connected;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// A network that notes when it was asked to connect.
#[derive(Debug)]
struct Noting {
    network: Arc<dyn Network>,
    dials: Mutex<Vec<Instant>>,
}

impl Network for Noting {
    fn connect(&self, address: &Address) -> BoxFuture<'static, io::Result<BoxIo>> {
        self.dials.lock().unwrap().push(Instant::now());
        self.network.connect(address)
    }

    fn bind(&self, address: &Address) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.network.bind(address)
    }
}

impl Noting {
    fn since(&self, moment: Instant) -> Vec<Instant> {
        self.dials.lock().unwrap().iter().filter(|at| moment <= **at).copied().collect()
    }
}

/// A client whose node has just crashed.
struct Crash {
    mesh: TestMesh,
    network: Arc<Noting>,
    connections: Connections,
    address: Address,
    lines: Lines,
    _listening: tracing::subscriber::DefaultGuard,
    at: Instant,
}

impl Crash {
    async fn happen(keep: bool) -> (Self, Option<Link>) {
        let (lines, listening) = listen();
        let mesh = TestMesh::in_memory();
        let server = mesh.serve("b", |node| node).await;
        let address = Address::from(server.local_addr());
        let network = Arc::new(Noting { network: mesh.network(), dials: Mutex::default() });
        let tls = mesh.ca().tls("c", "client");
        let dyn_network = Arc::clone(&network) as Arc<dyn Network>;
        let connections = Connections::new(tls, dyn_network, Settings::default());
        let link = connections.link(target(&address, 1));
        assert_connected(&link.settled().await);
        // Long enough not to be one that is ended as soon as it is made.
        sleep(MINUTE).await;
        let at = Instant::now();
        drop(server);
        let crash = Self { mesh, network, connections, address, lines, _listening: listening, at };
        (crash, keep.then_some(link))
    }

    fn target(&self, incarnation: u64) -> Target {
        target(&self.address, incarnation)
    }

    fn warnings(&self) -> usize {
        self.lines.count("WARN")
    }
}

fn target(address: &Address, incarnation: u64) -> Target {
    Target::new("b".parse().unwrap(), vec![address.clone()]).record(incarnation, 1)
}

/// The bounds of each wait: it grows to two minutes, and after ten minutes it is a quarter of an hour.
///
/// A dial that is due may have to wait for somebody who asks, for so long at most.
#[track_caller]
fn check_schedule(crashed: Instant, dials: &[Instant], until: Instant, patience: Duration) {
    let first = dials[0] - crashed;
    assert!(first <= SECOND / 2 + patience, "the first dial came after {first:?}");
    let mut due = SECOND;
    for (before, dial) in dials.iter().zip(dials.iter().skip(1).chain([&until])) {
        let wait = *dial - *before;
        let given_up = 10 * MINUTE <= *before - dials[0];
        let expected = if given_up { 15 * MINUTE } else { due.min(2 * MINUTE) };
        let bounds = expected.mul_f64(0.799)..expected.mul_f64(1.201) + patience;
        // The last one had no time to end.
        assert!(
            bounds.contains(&wait) || *dial == until && wait < bounds.end,
            "{wait:?} and not {expected:?}, {:?} after the crash",
            *before - crashed
        );
        due = due.mul_f64(1.6);
    }
}

#[tokio::test(start_paused = true)]
async fn a_crashed_node_is_dialled_by_the_schedule_for_twelve_hours_and_warned_of_twice() {
    let (crash, link) = Crash::happen(true).await;
    let link = link.unwrap();
    sleep(12 * HOUR).await;
    let dials = crash.network.since(crash.at);
    check_schedule(crash.at, &dials, Instant::now(), Duration::ZERO);
    // 14 to 17 until it is given up, 39 to 60 in the quarters of an hour after that.
    assert!((53..=77).contains(&dials.len()), "{} dials", dials.len());
    assert_eq!(crash.warnings(), 2, "{}", crash.lines.text());
    for said in ["cannot connect to node; dialling it again", "could not be reached for long"] {
        assert_eq!(crash.lines.count(said), 1, "{}", crash.lines.text());
    }

    // Nobody waits for it.
    let began = Instant::now();
    let request = http::Request::post("http://b/test.Echo/Echo").body(Body::empty()).unwrap();
    let status = link.channel().call(request).await.map(|_| ()).unwrap_err();
    assert_eq!((status.code(), began.elapsed()), (Code::Unavailable, Duration::ZERO), "{status}");

    // The same record says nothing new, a later one does: it is dialled at once.
    link.set_record(vec![crash.address.clone()], 1, 1);
    sleep(SECOND).await;
    assert_eq!(crash.network.since(began).len(), 0);
    let server = crash.mesh.start(crash.mesh.builder("b").address(crash.address.to_string())).await;
    link.set_record(vec![crash.address.clone()], 2, 1);
    timeout(SECOND, connected(&link)).await.expect("it is not dialled at once");
    assert_eq!(crash.network.since(began).len(), 1);
    assert_eq!(crash.lines.count("node is reachable again"), 1);
    assert_eq!(crash.warnings(), 2, "{}", crash.lines.text());
    drop(server);
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_a_crashed_node_now_and_then_dials_no_more_often_and_warns_no_more() {
    let (crash, _) = Crash::happen(false).await;
    let mut link = crash.connections.link(crash.target(1));
    while crash.at.elapsed() < 12 * HOUR {
        link.settled().await;
        drop(link);
        sleep(SECOND.mul_f64(0.5 + 70.0 * fastrand::f64())).await;
        link = crash.connections.link(crash.target(1));
    }
    let dials = crash.network.since(crash.at);
    check_schedule(crash.at, &dials, Instant::now(), 71 * SECOND);
    assert!((43..=77).contains(&dials.len()), "{} dials", dials.len());
    assert_eq!(crash.warnings(), 2, "{}", crash.lines.text());

    // A later record is news also to those who were not there.
    let before = dials.len();
    let status = link.settled().await;
    assert!(matches!(status, LinkStatus::Backoff { .. }), "{status:?}");
    let before = before.max(crash.network.since(crash.at).len());
    drop(link);
    sleep(SECOND).await;
    let began = Instant::now();
    let link = crash.connections.link(crash.target(2));
    assert!(matches!(link.settled().await, LinkStatus::Backoff { failures: 1, .. }));
    assert_eq!(
        (crash.network.since(crash.at).len(), began.elapsed()),
        (before + 1, Duration::ZERO)
    );
}

async fn connected(link: &Link) {
    let mut changes = link.changes();
    while !link.is_connected() {
        changes.changed().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_asks_for_a_crashed_node_and_does_not_wait_begins_no_dial_each_time() {
    let (crash, _) = Crash::happen(false).await;
    while crash.at.elapsed() < MINUTE {
        // It lets go in the midst of any dial that begins.
        drop(crash.connections.link(crash.target(1)));
        let link = crash.connections.link(crash.target(1));
        tokio::task::yield_now().await;
        drop(link);
        sleep(SECOND / 100).await;
    }
    let dials = crash.network.since(crash.at);
    check_schedule(crash.at, &dials, Instant::now(), SECOND / 50);
}
