//! Where a node is reached is what it advertises, and not where it listens.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aegis_core::{Address, NodeId};
use aegis_testing::{MemoryNetwork, TestMesh, eventually};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::log::listen;
use crate::service::{Identity, LIMIT, SECOND, ask, ready};

/// Forwards the connections of a port to another one, as a NAT does, and counts them.
struct Nat {
    address: SocketAddr,
    to: watch::Sender<Option<SocketAddr>>,
    forwarded: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Nat {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (to, target) = watch::channel(None);
        let (forwarded, mut tasks) = (Arc::<AtomicUsize>::default(), JoinSet::new());
        let (address, counted) = (listener.local_addr().unwrap(), Arc::clone(&forwarded));
        tasks.spawn(async move {
            let mut pairs = JoinSet::new();
            loop {
                let (mut outside, _) = listener.accept().await.unwrap();
                let Some(to) = *target.borrow() else { continue };
                counted.fetch_add(1, Ordering::SeqCst);
                pairs.spawn(async move {
                    let mut inside = TcpStream::connect(to).await.unwrap();
                    tokio::io::copy_bidirectional(&mut outside, &mut inside).await.ok();
                });
            }
        });
        Self { address, to, forwarded, _tasks: tasks }
    }
}

#[tokio::test]
async fn gossip_and_calls_take_the_advertised_port_of_a_node_behind_a_nat() {
    let mesh = TestMesh::loopback();
    let a = mesh.serve("a", |node| node).await;
    let c = mesh.node("c");
    let nat = Nat::start().await;
    let identity = Identity::new("b");
    let b =
        mesh.serve("b", |node| identity.on(node).advertise_address(nat.address.to_string())).await;
    nat.to.send_replace(Some(b.local_addr()));
    assert_ne!(nat.address.port(), b.local_addr().port());
    let client = ready(&c.pool(), 1).await;
    assert_eq!(ask(&client, "1").await.unwrap().name, "b");
    for node in [a.node(), b.node(), &c] {
        let shown = node.directory().snapshot().node(b.node().id()).unwrap().addresses().to_vec();
        assert_eq!(shown, [Address::from(nat.address)]);
    }
    // The caller's connection, and the one by which `a` compares directories; none came past it.
    eventually(LIMIT, || {
        let (through, accepted) = (nat.forwarded.load(Ordering::SeqCst), b.stats().accepted);
        if 2 <= through && accepted == through as u64 {
            Ok(())
        } else {
            Err(format!("{through} came through and {accepted} were accepted"))
        }
    })
    .await;
}

fn host(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

#[tokio::test(start_paused = true)]
async fn a_remote_node_that_advertises_a_loopback_address_is_named_once_with_the_remedy() {
    let (lines, _listening) = listen();
    let mesh = TestMesh::in_memory();
    let hosts = MemoryNetwork::new();
    let on = |id: &str, last: u8, address: &str| {
        mesh.builder(id).network(Arc::new(hosts.at(host(last)))).address(address)
    };
    let a = mesh.start(on("a", 1, "10.0.0.1:0")).await;
    assert_eq!(a.local_addr().ip(), host(1));
    // Another host's own addresses mean that host to it, and something else to everybody else.
    let b = mesh.start(Identity::new("b").on(on("b", 2, "127.0.0.1:0"))).await;
    // On one's own host they are fine, and so are those of other hosts.
    let _near = mesh.start(Identity::new("near").on(on("near", 1, "127.0.0.1:0"))).await;
    let _far = mesh.start(Identity::new("far").on(on("far", 3, "10.0.0.3:0"))).await;
    a.node().directory().wait_for(|it| it.nodes().len() == 4, LIMIT).await.unwrap();
    tokio::time::sleep(600 * SECOND).await;
    let warnings = lines.warnings("advertises only addresses of its own host");
    let about = |id: &str| warnings.iter().filter(|it| it.contains(&format!("node={id}"))).count();
    // `a` and `far` cannot reach `b`; `far` cannot reach `near`, but `a` can, as it is on the same host.
    assert_eq!((about("b"), about("near"), warnings.len()), (2, 1, 3), "{warnings:?}");
    let port = b.local_addr().port();
    for warning in warnings.iter().filter(|it| it.contains("node=b")) {
        for needed in ["advertise_address", "host=10.0.0.2", &format!("127.0.0.1:{port}")] {
            assert!(warning.contains(needed), "{warning}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_moves_to_another_host_is_called_there() {
    let mesh = TestMesh::in_memory();
    let hosts = MemoryNetwork::new();
    let on = |id: &str, last: u8| {
        mesh.builder(id).network(Arc::new(hosts.at(host(last)))).address(format!("10.0.0.{last}:0"))
    };
    let a = mesh.start(on("a", 1)).await;
    let (first, second) = (on("b", 2), on("b", 3));
    let c = on("c", 4).build().unwrap();
    let b = mesh.start(Identity::new("first").on(first)).await;
    let client = ready(&c.pool(), 1).await;
    assert_eq!(ask(&client, "1").await.unwrap().name, "first");
    drop(b);
    let b = mesh.start(Identity::new("second").on(second)).await;
    eventually(3 * SECOND, || {
        let shown = c.directory().snapshot();
        let b_at = shown.node(&NodeId::from_static("b")).unwrap().addresses().to_vec();
        if b_at == [Address::from(b.local_addr())] { Ok(()) } else { Err(format!("{b_at:?}")) }
    })
    .await;
    client.wait_ready(1, 3 * SECOND).await.unwrap();
    assert_eq!(ask(&client, "1").await.unwrap().name, "second");
    drop(a);
}
