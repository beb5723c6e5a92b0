//! A process that is told to end.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use aegis_testing::eventually;
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::{Child, LIMIT, Peer, post};

async fn ended(child: &mut Child) -> ExitStatus {
    eventually(LIMIT, || child.ended().ok_or("it still runs")).await
}

#[tokio::test]
async fn one_signal_ends_an_idle_server() {
    for signal in ["-TERM", "-INT"] {
        let mut child = Child::start();
        let peer = Peer::connect(&child.ca, "peer", child.address).await;
        peer.ask().await;
        let began = Instant::now();
        child.signal(signal);
        let status = ended(&mut child).await;
        assert!(status.success(), "{status}");
        assert!(began.elapsed() < Duration::from_secs(3), "{signal}: {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_calls_and_the_exit_status_tells() {
    let mut child = Child::start();
    let peer = Peer::connect(&child.ca, "peer", child.address).await;
    let (running, mut stream) = peer.open(post("Forever")).await.unwrap();
    stream.send_data(Bytes::new(), true).unwrap();
    peer.ask().await;
    child.signal("-TERM");
    // It drains: nobody new is let in, and the call goes on.
    let closing = async { while TcpStream::connect(child.address).await.is_ok() {} };
    timeout(LIMIT, closing).await.expect("it does not drain");
    let mut running = std::pin::pin!(running);
    assert!(timeout(Duration::from_millis(200), &mut running).await.is_err(), "the call ended");
    assert!(child.ended().is_none());

    let began = Instant::now();
    child.signal("-TERM");
    // Not cancelled: nobody has given the call up.
    let answer = timeout(LIMIT, running).await.expect("the call goes on").unwrap();
    assert_eq!(answer.headers()["grpc-status"], "14", "{answer:?}");
    let status = ended(&mut child).await;
    assert!(!status.success(), "{status}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    let text = child.rest();
    assert!(text.contains("calls cut: 1"), "{text}");
}
