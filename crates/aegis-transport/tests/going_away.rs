//! A GOAWAY moves new calls to a successor and leaves the running ones alone.

use std::time::{Duration, Instant};

use aegis_testing::TestCa;

use crate::log::listen;
use crate::support::{Client, Kind, Server, collect, eventually, full, request, slot};

/// The error code (RFC 9113 §7) of a server that is asked more often than it likes.
const ENHANCE_YOUR_CALM: u32 = 11;

#[tokio::test]
async fn a_successor_is_dialled_at_once_and_the_open_stream_goes_on() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let link = client.link(&server);
    let mut old = server.greeted(100).await;
    let sent = tokio::spawn(slot(&link).await.send(request(full("one"))));
    let stream = old.opened().await;
    old.head(stream).await;
    let body = sent.await.unwrap().unwrap().into_body();

    let start = Instant::now();
    old.go_away(0x7fff_ffff, 0, "").await;
    let mut new = server.greeted(100).await;
    let sent = tokio::spawn(slot(&link).await.send(request(full("two"))));
    assert_eq!(new.opened().await, 1);
    // A handshake on a busy machine; the redial of a broken connection may wait 500 ms.
    assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
    new.answer(1).await;
    sent.await.unwrap().unwrap();

    old.data(stream, b"still here").await;
    old.go_away(stream, 0, "").await;
    old.trailers(stream).await;
    assert_eq!(collect(body).await.unwrap().0, b"still here");
    // The old connection closes when its last stream has ended.
    old.closed().await;
    let counters = link.counters();
    assert_eq!((counters.go_aways, counters.lost, counters.connected), (1, 0, 2));
}

#[tokio::test]
async fn an_idle_connection_that_is_sent_away_is_succeeded_too() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let link = client.link(&server);
    let mut old = server.greeted(100).await;
    eventually(|| link.is_connected().then_some(())).await;
    old.go_away(0, 0, "").await;
    old.closed().await;
    let _new = server.greeted(100).await;
    eventually(|| (link.counters().connected == 2).then_some(())).await;
    let counters = link.counters();
    assert_eq!((counters.go_aways, counters.lost), (1, 0));
}

#[tokio::test]
async fn too_many_pings_are_halved() {
    let (lines, _guard) = listen();
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| {
        settings.keepalive.idle.silence = Duration::from_millis(200);
        settings.keepalive.idle.answer = Duration::from_millis(200);
    });
    let link = client.link(&server);
    let mut raw = server.greeted(100).await;
    let mut pauses = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        raw.next(Kind::Ping).await;
        pauses.push(start.elapsed());
    }
    // Until then it asks at the pace that it was told to keep.
    assert!(pauses.iter().any(|pause| *pause < Duration::from_millis(300)), "{pauses:?}");
    assert_eq!(lines.count("PINGs"), 0, "{}", lines.text());
    raw.go_away(0, ENHANCE_YOUR_CALM, "too_many_pings").await;

    let mut raw = server.greeted(100).await;
    let start = Instant::now();
    raw.next(Kind::Ping).await;
    assert!(start.elapsed() > Duration::from_millis(300), "{:?}", start.elapsed());
    let text = lines.text();
    assert_eq!(lines.count("node calls our PINGs too many"), 1, "{text}");
    let address = server.address().to_string();
    let said = text.lines().find(|line| line.contains("PINGs")).unwrap();
    for needed in ["INFO", "server-1", &address] {
        assert!(said.contains(needed), "{needed:?} is missing in: {said}");
    }

    let sent = tokio::spawn(slot(&link).await.send(request(full("one"))));
    let stream = raw.opened().await;
    raw.answer(stream).await;
    sent.await.unwrap().unwrap();
    let counters = link.counters();
    assert_eq!((counters.go_aways, counters.lost, counters.connected), (1, 0, 2));
}
