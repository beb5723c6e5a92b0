//! Connections end with the wish for them, in order, and never under a running call.

use std::time::{Duration, Instant};

use aegis_testing::TestCa;
use aegis_transport::{DialError, LinkStatus, Unavailable};
use tonic::Code;

use crate::support::{
    Client, Kind, Server, assert_connected, collect, eventually, full, request, slot,
};

#[tokio::test]
async fn an_idle_connection_closes_with_the_last_link() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let link = client.link(&server);
    let clone = link.clone();
    let mut raw = server.greeted(10).await;
    assert_connected(&link.settled().await);
    drop(link);
    let early = tokio::time::timeout(Duration::from_millis(50), raw.next(Kind::GoAway)).await;
    assert!(early.is_err(), "a clone is still there");
    let start = Instant::now();
    drop(clone);
    assert_eq!(raw.next(Kind::GoAway).await.payload[4..8], [0; 4], "NO_ERROR");
    raw.closed().await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_busy_connection_closes_when_its_streams_have_ended() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let link = client.link(&server);
    let mut raw = server.greeted(10).await;
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    let stream = raw.opened().await;
    drop(link);
    raw.head(stream).await;
    raw.data(stream, b"late").await;
    raw.trailers(stream).await;
    let (data, _) = collect(sent.await.unwrap().unwrap().into_body()).await.unwrap();
    assert_eq!(data, b"late");
    raw.next(Kind::GoAway).await;
    raw.closed().await;
}

#[tokio::test]
async fn a_node_that_is_wanted_again_is_dialled_again() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    for _ in 0..3 {
        let link = client.link(&server);
        let mut raw = server.greeted(10).await;
        assert_connected(&link.settled().await);
        drop(link);
        raw.closed().await;
    }
    assert_eq!(server.dials(), 3);
}

#[tokio::test]
async fn close_waits_for_open_streams_and_takes_no_new_ones() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let link = client.link(&server);
    let mut raw = server.greeted(10).await;
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    let stream = raw.opened().await;

    let connections = client.connections.clone();
    let closing = tokio::spawn(async move { connections.close(Duration::from_secs(5)).await });
    eventually(|| matches!(link.status(), LinkStatus::Closed).then_some(())).await;
    assert_eq!(link.try_acquire().unwrap_err(), Unavailable::Closed);
    assert!(!closing.is_finished());
    raw.answer(stream).await;
    collect(sent.await.unwrap().unwrap().into_body()).await.unwrap();
    closing.await.unwrap();
    raw.closed().await;

    let late = client.link(&server);
    assert!(matches!(late.settled().await, LinkStatus::Closed));
    let error = client.connections.dial_seed(&server.address()).await.unwrap_err();
    assert!(matches!(error, DialError::Closed));
    assert_eq!(server.dials(), 1);
}

#[tokio::test]
async fn close_cuts_what_is_still_open_after_the_grace() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let link = client.link(&server);
    let mut raw = server.greeted(10).await;
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    raw.opened().await;
    client.connections.close(Duration::from_millis(50)).await;
    let error = sent.await.unwrap().unwrap_err();
    assert_eq!((error.code(), error.never_sent()), (Code::Unavailable, None), "{error}");
    raw.closed().await;
}

#[tokio::test]
async fn dropping_the_connections_cuts_them() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let link = client.link(&server);
    let mut raw = server.greeted(10).await;
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    raw.opened().await;
    drop(client);
    assert_eq!(sent.await.unwrap().unwrap_err().code(), Code::Unavailable);
    raw.closed().await;
    assert!(matches!(link.settled().await, LinkStatus::Closed));
    assert_eq!(link.try_acquire().unwrap_err(), Unavailable::Closed);
}

#[tokio::test]
async fn a_peer_that_does_not_read_cannot_hold_a_goodbye_up() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let link = client.link(&server);
    let _raw = server.greeted(10).await;
    assert_connected(&link.settled().await);
    let start = Instant::now();
    client.connections.close(Duration::from_secs(30)).await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn closing_twice_at_once_takes_no_longer_than_the_streams() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let link = client.link(&server);
    let mut raw = server.greeted(10).await;
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    let stream = raw.opened().await;
    let connections = client.connections.clone();
    let first = tokio::spawn(async move { connections.close(Duration::from_secs(60)).await });
    eventually(|| client.connections.is_closed().then_some(())).await;
    client.connections.close(Duration::from_secs(60)).await;
    raw.answer(stream).await;
    collect(sent.await.unwrap().unwrap().into_body()).await.unwrap();
    raw.closed().await;
    tokio::time::timeout(Duration::from_secs(5), first).await.unwrap().unwrap();
}
