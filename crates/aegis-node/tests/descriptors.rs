//! A process without a descriptor left neither ends nor spins, and recovers.

use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aegis_core::Address;
use aegis_node::Limits;
use aegis_testing::eventually;
use aegis_transport::{BoxFuture, BoxIo, Listener, Network, Tcp};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::{Child, LIMIT, Peer, dial, node_with};

const DESCRIPTORS: usize = 64;

fn start() -> Child {
    Child::start_with(&format!("ulimit -n {DESCRIPTORS}"))
}

/// Sockets whose accept fails so many times before each that is good.
#[derive(Debug)]
struct Failing(io::ErrorKind, u32);

impl Network for Failing {
    fn connect(&self, address: &Address) -> BoxFuture<'static, io::Result<BoxIo>> {
        Tcp::default().connect(address)
    }

    fn bind(&self, address: &Address) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        let (listening, kind, times) = (Tcp::default().bind(address), self.0, self.1);
        Box::pin(async move {
            let listener = listening.await?;
            Ok(Box::new(FailingListener { listener, kind, times, left: times })
                as Box<dyn Listener>)
        })
    }
}

struct FailingListener {
    listener: Box<dyn Listener>,
    kind: io::ErrorKind,
    times: u32,
    left: u32,
}

impl Listener for FailingListener {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<BoxIo>> {
        if 0 < self.left {
            self.left -= 1;
            return Box::pin(ready(Err(self.kind.into())));
        }
        Box::pin(async {
            let io = self.listener.accept().await?;
            self.left = self.times;
            Ok(io)
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

#[tokio::test]
async fn an_accept_that_fails_is_tried_again_and_a_peer_that_left_delays_nobody() {
    for (kind, times, limit) in [
        (io::ErrorKind::ConnectionAborted, 1_000, Duration::from_millis(500)),
        (io::ErrorKind::OutOfMemory, 4, Duration::from_secs(3)),
    ] {
        let network = Arc::new(Failing(kind, times));
        let (mesh, server, _lab) = node_with(Limits::default(), |node| node.network(network)).await;
        let began = Instant::now();
        for name in ["a", "b", "c"] {
            Peer::connect(mesh.ca(), name, server.local_addr()).await.ask().await;
        }
        assert!(began.elapsed() < limit, "{kind}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn silent_peers_give_their_descriptors_to_honest_ones() {
    let child = start();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(child.address).await.unwrap());
    }
    eventually(LIMIT, || match child.descriptors() {
        DESCRIPTORS.. => Ok(()),
        open => Err(format!("{open} are open")),
    })
    .await;
    // Sooner than any of the silent handshakes times out.
    let connecting = Peer::connect(&child.ca, "honest", child.address);
    let peer = timeout(Duration::from_secs(4), connecting).await.expect("the honest peer is out");
    peer.ask().await;
    drop(silent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_full_of_good_peers_waits_and_recovers() {
    let mut child = start();
    let early = Peer::connect(&child.ca, "early", child.address).await;
    let mut peers = JoinSet::new();
    for index in 0..100 {
        // So many that each has fewer connections than it may.
        let (tls, address) = (child.ca.tls(&format!("c{}", index % 10), "test"), child.address);
        peers.spawn(async move {
            let peer = Peer::over(dial(&tls, address).await.ok()?).await.ok()?;
            peer.ask().await;
            std::future::pending::<Option<()>>().await
        });
    }
    eventually(LIMIT, || match child.descriptors() {
        DESCRIPTORS.. => Ok(()),
        open => Err(format!("{open} are open")),
    })
    .await;
    let before = child.ticks();
    sleep(Duration::from_secs(1)).await;
    let ticks = child.ticks() - before;
    assert!(ticks < 30, "it computed for {ticks} of 100 ticks");
    assert_eq!(child.ended(), None);
    early.ask().await;

    peers.abort_all();
    let connecting = Peer::connect(&child.ca, "late", child.address);
    timeout(Duration::from_secs(3), connecting).await.expect("it does not recover").ask().await;
}
