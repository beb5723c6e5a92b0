//! A process without a descriptor left neither ends nor spins, and recovers.

use std::time::Duration;

use aegis_testing::eventually;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::support::{Child, LIMIT, Peer, dial};

const DESCRIPTORS: usize = 64;

fn start() -> Child {
    Child::start_with(&format!("ulimit -n {DESCRIPTORS}"))
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
