//! A peer that does not answer gets no new calls; it is closed only much later, and any byte brings it back.

use std::time::{Duration, Instant};

use aegis_testing::TestCa;
use aegis_transport::{LinkStatus, Settings, Unavailable};

use crate::support::{Client, Kind, Server, collect, eventually, full, request, slot};

fn quick(settings: &mut Settings) {
    settings.keepalive.busy.silence = Duration::from_millis(50);
    settings.keepalive.busy.answer = Duration::from_millis(50);
    settings.keepalive.dead_after = Duration::from_secs(60);
}

#[tokio::test]
async fn an_unanswered_ping_stalls_and_any_byte_ends_it() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, quick);
    let link = client.link(&server);
    let mut raw = server.greeted(100).await;
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    let stream = raw.opened().await;

    // The test does not read now, as a stopped process would not.
    eventually(|| {
        matches!(link.status(), LinkStatus::Connected { stalled: true, .. }).then_some(())
    })
    .await;
    assert_eq!(link.try_acquire().unwrap_err(), Unavailable::Stalled);
    assert!(link.lane().unwrap().take().is_none());
    drop(link.try_acquire_stalled().unwrap());
    assert_eq!(link.counters().stalls, 1);

    raw.answer(stream).await;
    sent.await.unwrap().unwrap();
    eventually(|| {
        matches!(link.status(), LinkStatus::Connected { stalled: false, .. }).then_some(())
    })
    .await;
    drop(link.try_acquire().unwrap());
    drop(link.lane().unwrap().take().unwrap());
    // The PING was there all the time.
    raw.next(Kind::Ping).await;
}

#[tokio::test]
async fn a_call_is_told_that_its_connection_stalls() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, quick);
    let link = client.link(&server);
    let mut raw = server.greeted(100).await;
    let slot = slot(&link).await;
    let pulse = slot.pulse();
    assert!(!pulse.is_stalled());
    let sent = tokio::spawn(slot.send(request(full("x"))));
    let stream = raw.opened().await;
    tokio::time::timeout(Duration::from_secs(5), pulse.stalled()).await.expect("it stalls");
    // Whoever asks later is told as well.
    assert!(pulse.is_stalled());
    pulse.stalled().await;
    raw.answer(stream).await;
    sent.await.unwrap().unwrap();
    eventually(|| (!pulse.is_stalled()).then_some(())).await;
}

#[tokio::test]
async fn a_peer_that_answers_pings_does_not_stall() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| {
        quick(settings);
        settings.keepalive.busy.answer = Duration::from_secs(2);
    });
    let link = client.link(&server);
    let mut raw = server.greeted(100).await;
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    let stream = raw.opened().await;
    for _ in 0..4 {
        raw.next(Kind::Ping).await;
    }
    assert_eq!(link.counters().stalls, 0);
    raw.answer(stream).await;
    collect(sent.await.unwrap().unwrap().into_body()).await.unwrap();
}

#[tokio::test]
async fn a_call_on_a_connection_that_was_idle_finds_out_as_soon() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, quick);
    let link = client.link(&server);
    let _raw = server.greeted(100).await;
    let slot = slot(&link).await;
    let start = Instant::now();
    let _sent = tokio::spawn(slot.send(request(full("x"))));
    eventually(|| (link.try_acquire().err() == Some(Unavailable::Stalled)).then_some(())).await;
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn short_calls_to_a_stopped_peer_do_not_keep_it_from_being_found_out() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| {
        // Longer than any of the calls.
        settings.keepalive.busy.silence = Duration::from_millis(250);
        settings.keepalive.busy.answer = Duration::from_millis(250);
        settings.keepalive.dead_after = Duration::from_secs(60);
    });
    let link = client.link(&server);
    let _raw = server.greeted(100).await;
    let mut next = Some(slot(&link).await);
    let mut calls = 0;
    while let Some(slot) = next {
        let call = slot.send(request(full("x")));
        tokio::time::timeout(Duration::from_millis(100), call).await.unwrap_err();
        calls += 1;
        assert!(calls < 20, "the peer has been silent for 2 s");
        // The connection is seen without a stream in between.
        tokio::time::sleep(Duration::from_millis(20)).await;
        next = link.try_acquire().ok();
    }
    assert_eq!(link.try_acquire().unwrap_err(), Unavailable::Stalled);
    assert!(2 < calls, "{calls}");
}

#[tokio::test]
async fn a_stopped_provider_gets_no_new_call_after_two_seconds() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let link = client.link(&server);
    let _raw = server.greeted(100).await;
    let slot = slot(&link).await;
    let start = Instant::now();
    let _sent = tokio::spawn(slot.send(request(full("x"))));
    eventually(|| (link.try_acquire().err() == Some(Unavailable::Stalled)).then_some(())).await;
    let took = start.elapsed();
    assert!(Duration::from_millis(1_900) < took && took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test]
async fn a_peer_that_stays_silent_is_closed_and_the_reason_told() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| {
        quick(settings);
        settings.keepalive.dead_after = Duration::from_millis(200);
        settings.keepalive.idle.answer = Duration::from_millis(50);
        settings.dial_limit = Duration::from_millis(300);
    });
    let link = client.link(&server);
    let _raw = server.greeted(100).await;
    let error = slot(&link).await.send(request(full("x"))).await.unwrap_err();
    assert_eq!(error.never_sent(), None);
    assert!(error.to_string().contains("has not answered for too long"), "{error}");
    assert_eq!(tonic::Status::from(error).code(), tonic::Code::Unavailable);
    assert_eq!(link.counters().lost, 1);
}

#[tokio::test]
async fn beside_a_stalled_connection_another_is_tried() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, quick);
    let link = client.link(&server);
    let mut stuck = server.greeted(100).await;
    let _sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    stuck.opened().await;
    // Only the path of the first connection is dead.
    let mut fresh = server.greeted(100).await;
    let sent = tokio::spawn(slot(&link).await.send(request(full("y"))));
    let stream = fresh.opened().await;
    fresh.answer(stream).await;
    sent.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_foreign_server_is_left_in_peace() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, quick);
    let link = client.connections.link(server.target().foreign());
    let mut raw = server.greeted(100).await;
    let _sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    raw.opened().await;
    let ping = tokio::time::timeout(Duration::from_millis(400), raw.next(Kind::Ping)).await;
    assert!(ping.is_err(), "it was asked whether it lives");
}

#[tokio::test]
async fn an_idle_peer_is_asked_too_and_closed_when_it_does_not_answer() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| {
        settings.keepalive.idle.silence = Duration::from_millis(50);
        settings.keepalive.idle.answer = Duration::from_millis(100);
        settings.keepalive.dead_after = Duration::ZERO;
    });
    let link = client.link(&server);
    let mut raw = server.greeted(100).await;
    for _ in 0..3 {
        raw.next(Kind::Ping).await;
    }
    assert_eq!(link.counters().lost, 0);
    // From here on the test does not answer.
    eventually(|| (link.counters().lost == 1).then_some(())).await;
    raw.closed().await;
}
