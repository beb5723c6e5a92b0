//! A node that is gone for half a day, seen from those that only gossip with it and from those that call it.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aegis_core::Address;
use aegis_testing::TestMesh;
use aegis_transport::{BoxFuture, BoxIo, Listener, Network};
use tokio::time::{Instant, sleep};

use crate::log::listen;
use crate::service::{Identity, SECOND, ask, ready};

const HOUR: Duration = Duration::from_secs(3_600);

/// A process's network that notes when an address is dialled.
#[derive(Debug)]
struct Noting {
    network: Arc<dyn Network>,
    dials: Mutex<Vec<(Address, Instant)>>,
}

impl Noting {
    fn over(mesh: &TestMesh) -> Arc<Self> {
        Arc::new(Self { network: mesh.network(), dials: Mutex::default() })
    }

    fn dials(&self, of: &Address, since: Instant) -> usize {
        let dials = self.dials.lock().unwrap();
        dials.iter().filter(|(address, at)| address == of && since <= *at).count()
    }
}

impl Network for Noting {
    fn connect(&self, address: &Address) -> BoxFuture<'static, io::Result<BoxIo>> {
        self.dials.lock().unwrap().push((address.clone(), Instant::now()));
        self.network.connect(address)
    }

    fn bind(&self, address: &Address) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.network.bind(address)
    }
}

#[tokio::test(start_paused = true)]
async fn a_crashed_node_is_two_warnings_in_twelve_hours_whoever_wants_it_and_is_back_at_once() {
    let (lines, _listening) = listen();
    let mesh = TestMesh::in_memory();
    let [by_member, by_client] = [(); 2].map(|()| Noting::over(&mesh));
    // One that calls nobody: it dials the node to compare directories.
    let a = mesh.start(mesh.builder("a").network(Arc::clone(&by_member) as Arc<dyn Network>)).await;
    // One that is no member: it dials the node to call it, and to follow the directory there.
    let c = mesh.builder("c").network(Arc::clone(&by_client) as Arc<dyn Network>).build().unwrap();
    let b = mesh.serve("b", |node| Identity::new("b").on(node)).await;
    let identity = ready(&c.pool(), 1).await;
    assert_eq!(ask(&identity, "1").await.unwrap().name, "b");
    sleep(60 * SECOND).await;

    let address = Address::from(b.local_addr());
    let crashed = Instant::now();
    drop(b);
    sleep(12 * HOUR).await;
    for (who, network) in [("the member", &by_member), ("the client", &by_client)] {
        let dials = network.dials(&address, crashed);
        println!("{who} dialled it {dials} times in 12 h");
        assert!((39..=77).contains(&dials), "{who}: {dials} dials");
    }
    // Each process says it once at the start and once when it gives up.
    for said in ["cannot connect to node", "could not be reached for long"] {
        let warnings = lines.warnings(said);
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings.iter().all(|it| it.contains("node=b")), "{warnings:?}");
    }
    let warnings = lines.warnings("WARN");
    assert_eq!(warnings.len(), 4, "{warnings:?}");

    // Nobody waits for it, until its record says that it is back.
    let asked = Instant::now();
    ask(&identity, "1").await.unwrap_err();
    assert_eq!(asked.elapsed(), Duration::ZERO);
    let back = Identity::new("b").on(mesh.builder("b").address(address.to_string()));
    let _b = mesh.start(back.join([a.local_addr().to_string()])).await;
    identity.wait_ready(1, SECOND).await.unwrap();
    assert_eq!(ask(&identity, "1").await.unwrap().name, "b");
    assert_eq!(lines.warnings("WARN").len(), 4);
}
