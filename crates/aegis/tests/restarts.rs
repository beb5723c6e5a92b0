//! A node that comes back is one node, whatever its clock says; two processes with one id are told of each other.

use std::time::{Duration, Instant, SystemTime};

use aegis::node::MemberStatus;
use aegis::{Node, NodeBuilder, Server, ServiceInfo};
use aegis_core::{Address, NodeId};
use aegis_testing::{TestMesh, eventually};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::log::listen;
use crate::service::{Identity, LIMIT, SECOND, ask, ready};

const HOUR: Duration = Duration::from_secs(3_600);
const B: NodeId = NodeId::from_static("b");
const SESSION_V1: ServiceInfo = ServiceInfo::from_static("session", "v1");

/// The node with its clock so far behind.
fn behind(builder: NodeBuilder, mesh: &TestMesh, id: &str, by: Duration) -> NodeBuilder {
    builder.tls(mesh.ca().options(id, "test").clock(move || SystemTime::now() - by))
}

/// Waits until a node's directory holds `b` once, at this address.
async fn shows_b_at(node: &Node, address: &Address) {
    let is_there = |it: &aegis::Snapshot| {
        let b: Vec<_> = it.nodes().iter().filter(|node| *node.node_id() == B).collect();
        b.len() == 1 && b[0].addresses() == std::slice::from_ref(address)
    };
    let shown = node.directory().wait_for(is_there, 3 * SECOND).await;
    assert!(shown.is_ok(), "{}: {:?}", node.id(), node.directory().snapshot().node(&B));
}

/// Where nodes of other tests, which may look for one of theirs that was killed at the same port, do not dial.
const OF_ITS_OWN: &str = if cfg!(target_os = "linux") { "127.0.0.7:0" } else { "127.0.0.1:0" };

#[tokio::test]
async fn a_node_that_was_killed_serves_again_within_three_seconds_even_with_its_clock_set_back() {
    for back in [Duration::ZERO, HOUR] {
        let mesh = TestMesh::loopback();
        let a = mesh.serve("a", |node| node).await;
        let d = mesh.serve("d", |node| node).await;
        // They know `a` and `d`, and nobody is told to look for `b` at its first address.
        let (first, second) = (mesh.builder("b").address(OF_ITS_OWN), mesh.builder("b"));
        let c = mesh.node("c");
        let b = mesh.start(Identity::new("first").on(first)).await;
        let identity = ready(&c.pool(), 1).await;
        assert_eq!(ask(&identity, "1").await.unwrap().name, "first");
        for node in [a.node(), d.node(), &c] {
            shows_b_at(node, &b.local_addr().into()).await;
        }
        let old = b.local_addr();
        drop(b);

        let killed = Instant::now();
        let second = behind(Identity::new("second").on(second), &mesh, "b", back);
        let b = mesh.start(second).await;
        // Who listens at the old port now hears of nobody.
        let abandoned = eventually(LIMIT, || {
            let listener = std::net::TcpListener::bind(old).map_err(|error| error.to_string())?;
            listener.set_nonblocking(true).map_err(|error| error.to_string())?;
            Ok::<_, String>(TcpListener::from_std(listener).unwrap())
        })
        .await;
        while !ask(&identity, "1").await.is_ok_and(|it| it.name == "second") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let took = killed.elapsed();
        println!("with its clock {back:?} behind it served after {took:?}");
        assert!(took < 3 * SECOND, "{back:?}: {took:?}");
        for node in [a.node(), d.node(), &c, b.node()] {
            shows_b_at(node, &b.local_addr().into()).await;
        }
        // Dials that began before the news are over by now.
        while timeout(Duration::ZERO, abandoned.accept()).await.is_ok() {}
        for _ in 0..200 {
            assert_eq!(ask(&identity, "1").await.unwrap().name, "second");
        }
        let dialled = timeout(SECOND, abandoned.accept()).await;
        assert!(dialled.is_err(), "somebody dials the old port: {dialled:?}");
    }
}

/// Starts a node at an address that another one is just leaving.
async fn start_at(builder: impl Fn() -> NodeBuilder) -> Server {
    let starting = async {
        loop {
            match builder().build().unwrap().start().await {
                Ok(server) => return server,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    timeout(LIMIT, starting).await.unwrap()
}

#[tokio::test]
async fn a_node_whose_past_only_a_consumer_knows_is_told_of_it() {
    let mesh = TestMesh::loopback();
    let alone = || Identity::new("b").on(mesh.builder("b"));
    let b = mesh.start(alone()).await;
    let address = b.local_addr().to_string();
    // Nobody but this one has its record, and it only follows.
    let c = mesh.builder("c").join([&address]).build().unwrap();
    let identity = ready(&c.pool(), 1).await;
    drop(b);
    let killed = Instant::now();
    let _b = start_at(|| {
        let more = Identity::new("b").on(Node::builder().id("b").node_type("test"));
        let more = more.advertise(SESSION_V1, ["aegis.identity.v1.IdentityService"]);
        behind(more.address(&address), &mesh, "b", HOUR)
    })
    .await;
    c.directory().wait_for_providers(&SESSION_V1, 1, 3 * SECOND).await.unwrap();
    println!("its new record was seen after {:?}", killed.elapsed());
    identity.wait_ready(1, LIMIT).await.unwrap();
    assert_eq!(ask(&identity, "1").await.unwrap().name, "b");
}

#[tokio::test(start_paused = true)]
async fn of_two_processes_with_one_id_one_is_called_and_both_name_both_addresses() {
    // The one whose clock says that it started later stays.
    for (back, winner) in [(Duration::ZERO, "second"), (HOUR, "first")] {
        let (lines, _listening) = listen();
        let mesh = TestMesh::in_memory();
        let a = mesh.serve("a", |node| node).await;
        let (one, two) = (mesh.builder("b"), mesh.builder("b"));
        let c = mesh.node("c");
        let first = mesh.start(Identity::new("first").on(one)).await;
        let identity = ready(&c.pool(), 1).await;
        let second = mesh.start(behind(Identity::new("second").on(two), &mesh, "b", back)).await;
        let (stays, yields) = if winner == "first" { (&first, &second) } else { (&second, &first) };
        let displaced = MemberStatus::Displaced { address: stays.local_addr().into() };
        eventually(LIMIT, || match yields.membership() {
            status if status == displaced => Ok(()),
            status => Err(format!("{status:?}")),
        })
        .await;
        for node in [a.node(), &c, first.node(), second.node()] {
            // A clock that is behind takes nobody's word but its own.
            if back == Duration::ZERO || node.id() != &B {
                shows_b_at(node, &stays.local_addr().into()).await;
            }
        }
        let warnings = lines.warnings("two processes use this node id");
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        for warning in &warnings {
            for server in [&first, &second] {
                assert!(warning.contains(&server.local_addr().to_string()), "{warning}");
            }
        }
        eventually(LIMIT, || match c.pool().explain(identity.info()) {
            now if now.candidates.iter().all(|it| it.verdict.is_eligible()) => Ok(()),
            now => Err(now.to_string()),
        })
        .await;

        // And so it stays: nothing flaps while both live.
        let shown = c.directory().snapshot().node(&B).unwrap().incarnation();
        let mut watch = c.directory().watch();
        for _ in 0..600 {
            assert_eq!(ask(&identity, "1").await.unwrap().name, winner);
            tokio::time::sleep(SECOND).await;
        }
        while let Ok(snapshot) = timeout(Duration::ZERO, watch.changed()).await {
            assert_eq!(snapshot.node(&B).unwrap().incarnation(), shown);
        }
        assert_eq!(yields.membership(), displaced);
        assert_eq!(lines.warnings("two processes use this node id").len(), 2);
    }
}
