//! Streams are opened only while the peer allows one more.

use std::time::Duration;

use aegis_testing::TestCa;
use aegis_transport::{Link, LinkStatus, Unavailable};

use futures_util::FutureExt as _;

use crate::support::{Client, Kind, Raw, Server, collect, empty, eventually, full, request, slot};

async fn call(link: &Link, raw: &mut Raw) {
    let call = tokio::spawn(slot(link).await.send(request(full("x"))));
    let stream = raw.opened().await;
    raw.answer(stream).await;
    collect(call.await.unwrap().unwrap().into_body()).await.unwrap();
}

#[tokio::test]
async fn no_more_slots_than_the_peer_allows_and_each_comes_back_once() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| settings.connections = 1);
    let link = client.link(&server);
    let mut raw = server.greeted(1).await;
    for _ in 0..3 {
        call(&link, &mut raw).await;
    }
    let unused = link.try_acquire().unwrap();
    assert_eq!(link.try_acquire().unwrap_err(), Unavailable::Full);
    drop(unused);

    // Dropped while the response is awaited.
    let mut waiting = Box::pin(link.try_acquire().unwrap().send(request(full("x"))));
    tokio::select! {
        _ = &mut waiting => panic!("nobody answered"),
        stream = raw.opened() => assert_eq!(stream, 7),
    }
    assert_eq!(link.try_acquire().unwrap_err(), Unavailable::Full);
    drop(waiting);
    assert_eq!(raw.next(Kind::Reset).await.word(), 8, "CANCEL");
    assert_eq!((link.in_flight(), link.counters().cancelled), (0, 1));

    // Dropped with the response half read.
    let sent = tokio::spawn(link.try_acquire().unwrap().send(request(full("x"))));
    let stream = raw.opened().await;
    raw.head(stream).await;
    let response = sent.await.unwrap().unwrap();
    assert_eq!(link.try_acquire().unwrap_err(), Unavailable::Full);
    drop(response);
    assert_eq!(raw.next(Kind::Reset).await.word(), 8, "CANCEL");
    assert_eq!((link.in_flight(), link.counters().cancelled), (0, 2));
    call(&link, &mut raw).await;
    assert_eq!(link.counters().calls, 6);
}

/// h2 counts cancelled streams until their resets are written, so the new ones wait inside it, and it refuses a handle that
/// has one waiting.
#[tokio::test]
async fn calls_that_take_the_slots_of_cancelled_ones_at_once_are_sent() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| settings.connections = 1);
    let link = client.link(&server);
    let mut raw = server.greeted(4).await;
    let send = async || link.try_acquire().unwrap().send(request(full("x"))).await;
    drop(slot(&link).await);
    let mut first = (0..4).map(|_| Box::pin(send())).collect::<Vec<_>>();
    for call in &mut first {
        assert!(call.now_or_never().is_none());
        raw.opened().await;
    }
    drop(first);
    let mut second = (0..4).map(|_| Box::pin(send())).collect::<Vec<_>>();
    for call in &mut second {
        if let Some(outcome) = call.now_or_never() {
            panic!("it failed: {outcome:?}");
        }
    }
    for _ in 0..4 {
        raw.opened().await;
    }
}

#[tokio::test]
async fn a_lane_gives_what_the_link_would_give_and_takes_it_back() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| settings.connections = 1);
    let link = client.link(&server);
    assert!(link.lane().is_none(), "not connected yet");
    let mut raw = server.greeted(2).await;
    drop(slot(&link).await);
    let lane = link.lane().unwrap();
    let (first, second) = (lane.take().unwrap(), lane.take().unwrap());
    for _ in 0..3 {
        assert!(lane.take().is_none(), "it is full");
        assert_eq!(link.in_flight(), 2);
    }
    drop(first);
    assert_eq!(link.in_flight(), 1);

    // One that is kept is in flight until its call has ended, and others who wait for it get it then.
    let kept = second.into_slot();
    assert_eq!((kept.node_id(), link.in_flight()), (link.node_id(), 1));
    let _other = lane.take().unwrap();
    let mut waiting = Box::pin(link.acquire());
    assert!(waiting.as_mut().now_or_never().is_none());
    let answered = tokio::spawn(kept.send(request(full("x"))));
    let stream = raw.opened().await;
    raw.answer(stream).await;
    collect(answered.await.unwrap().unwrap().into_body()).await.unwrap();
    let given = waiting.await;
    assert_eq!(link.in_flight(), 2);
    drop(given);

    // It leads to this connection and no other.
    drop(raw);
    let _raw = server.greeted(2).await;
    let again = slot(&link).await;
    assert!(lane.take().is_none());
    let next = link.lane().unwrap();
    assert!(next.is_same(&link.lane().unwrap()) && !next.is_same(&lane));
    drop(again);
    assert_eq!(link.in_flight(), 0);
}

#[tokio::test]
async fn a_lane_gives_nothing_beside_another_connection() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| settings.spare_idle = Duration::from_secs(3_600));
    let link = client.link(&server);
    let _first = server.greeted(2).await;
    let held = slot(&link).await;
    let lane = link.lane().unwrap();
    drop(lane.take().unwrap());
    // Three of four and more is crowded.
    let crowd = lane.take().unwrap();
    let _second = server.greeted(2).await;
    eventually(|| link.lane().is_none().then_some(())).await;
    drop(crowd);
    assert!(lane.take().is_none(), "the other connection carries less");
    drop(held);
}

#[tokio::test]
async fn a_free_slot_and_a_higher_limit_are_reported() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| settings.connections = 1);
    let link = client.link(&server);
    let mut raw = server.greeted(1).await;
    let held = slot(&link).await;

    let (mut here, mut anywhere) = (link.changes(), client.connections.changes());
    drop(held);
    here.changed().await;
    assert!(anywhere.changed().now_or_never().is_none(), "it concerns who waits for this node");

    let _held = link.try_acquire().unwrap();
    assert_eq!(link.try_acquire().unwrap_err(), Unavailable::Full);
    raw.settings(2).await;
    here.changed().await;
    anywhere.changed().await;
    let _second = slot(&link).await;
}

#[tokio::test]
async fn slots_go_to_those_who_wait_in_the_order_in_which_they_came() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| settings.connections = 1);
    let link = client.link(&server);
    let mut raw = server.greeted(2).await;
    let held = [slot(&link).await, slot(&link).await];

    let mut waiting: Vec<_> = (0..5).map(|_| Box::pin(link.acquire())).collect();
    for place in &mut waiting {
        assert!(place.as_mut().now_or_never().is_none());
    }
    // The first gives up, the third gives up with the slot in hand.
    drop(waiting.remove(0));
    let [first, second] = held;
    drop(first);
    assert_eq!(link.try_acquire().unwrap_err(), Unavailable::Full, "it came later");
    assert!(waiting[1].as_mut().now_or_never().is_none());
    let first = waiting.remove(0).now_or_never().unwrap();
    drop(second);
    drop(waiting.remove(0));
    assert!(waiting[1].as_mut().now_or_never().is_none());
    let second = waiting.remove(0).now_or_never().unwrap();
    assert_eq!(link.in_flight(), 2);

    // A higher limit is room for them too.
    raw.settings(3).await;
    let third = waiting.remove(0).await;
    drop((first, second, third));
    assert_eq!(link.in_flight(), 0);
    assert!(link.acquire().now_or_never().is_some());
}

#[tokio::test]
async fn whoever_waits_in_line_gets_a_slot_of_the_next_connection() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let link = client.link(&server);
    let waiting = tokio::spawn(link.acquire());
    let raw = server.greeted(1).await;
    let held = waiting.await.unwrap();
    let waiting = tokio::spawn(link.acquire());
    drop(raw);
    let _raw = server.greeted(1).await;
    let got = waiting.await.unwrap();
    drop(held);
    assert_eq!(link.in_flight(), 1);
    drop(got);
}

#[tokio::test]
async fn a_crowded_connection_gets_company() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| settings.connections = 3);
    let link = client.link(&server);
    let _first = server.greeted(4).await;
    let mut held = vec![slot(&link).await, slot(&link).await];
    assert_eq!(server.dials(), 1);
    // Three of four.
    held.push(slot(&link).await);
    let _second = server.greeted(4).await;
    eventually(|| match link.status() {
        LinkStatus::Connected { connections: 2, in_flight: 3, slots: 8, .. } => Some(()),
        _ => None,
    })
    .await;

    // The next ones go where there is most room.
    held.extend([slot(&link).await, slot(&link).await, slot(&link).await]);
    let _third = server.greeted(4).await;
    eventually(|| match link.status() {
        LinkStatus::Connected { connections: 3, in_flight: 6, .. } => Some(()),
        _ => None,
    })
    .await;
    for _ in 0..6 {
        held.push(slot(&link).await);
    }
    assert_eq!(link.try_acquire().unwrap_err(), Unavailable::Full);
    assert_eq!(server.dials(), 3, "the most that are allowed");
}

#[tokio::test]
async fn company_that_is_not_used_goes_again() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |it| it.spare_idle = Duration::from_millis(200));
    let link = client.link(&server);
    let _first = server.greeted(1).await;
    let held = slot(&link).await;
    let _second = server.greeted(10).await;
    eventually(|| {
        matches!(link.status(), LinkStatus::Connected { connections: 2, .. }).then_some(())
    })
    .await;
    drop(held);
    eventually(|| {
        matches!(link.status(), LinkStatus::Connected { connections: 1, .. }).then_some(())
    })
    .await;
    assert_eq!(link.counters().lost, 0);
}

#[tokio::test]
async fn a_stream_that_moves_much_gets_small_calls_out_of_its_way() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| settings.bulk = 100_000);
    let link = client.link(&server);
    let mut first = server.greeted(100).await;
    let sent = tokio::spawn(slot(&link).await.send(request(empty())));
    let stream = first.opened().await;
    first.head(stream).await;
    let body = sent.await.unwrap().unwrap().into_body();
    let reading = tokio::spawn(collect(body));
    for _ in 0..10 {
        first.data(stream, &[0; 16_000]).await;
    }
    let mut second = server.greeted(100).await;
    eventually(|| {
        matches!(link.status(), LinkStatus::Connected { connections: 2, .. }).then_some(())
    })
    .await;
    for _ in 0..3 {
        call(&link, &mut second).await;
    }
    first.trailers(stream).await;
    assert_eq!(reading.await.unwrap().unwrap().0.len(), 160_000);
}

#[tokio::test]
async fn a_connection_with_many_cancelled_streams_is_replaced_before_it_is_left() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| settings.cancelled = 3);
    let link = client.link(&server);
    let mut first = server.greeted(100).await;
    for _ in 0..3 {
        let mut waiting = Box::pin(slot(&link).await.send(request(full("x"))));
        tokio::select! {
            _ = &mut waiting => panic!("nobody answered"),
            _ = first.opened() => {}
        }
    }
    // Until the new one is there, the old one serves.
    let mut second = server.raw().await;
    call(&link, &mut first).await;
    second.greet(100).await;
    first.closed().await;
    call(&link, &mut second).await;
    assert_eq!(link.counters().lost, 0);
}

#[tokio::test]
async fn as_many_streams_as_have_a_window_each() {
    let ca = TestCa::new();
    for (stream, connection, slots) in
        [(256 << 10, 64 << 20, 256), (20_000, 70_000, 3), (100_000, 70_000, 1)]
    {
        let server = Server::start(&ca, "server-1").await;
        let client = Client::with(&ca, |settings| {
            settings.stream_window = stream;
            settings.connection_window = connection;
        });
        let link = client.link(&server);
        let mut raw = server.greeted(1_000).await;
        let found = link.settled().await;
        assert!(
            matches!(found, LinkStatus::Connected { slots: it, .. } if it == slots),
            "{found:?}"
        );
        // Nor when the peer raises its own limit.
        raw.settings(100_000).await;
        raw.ping().await;
        let found = link.status();
        assert!(
            matches!(found, LinkStatus::Connected { slots: it, .. } if it == slots),
            "{found:?}"
        );
    }
}

#[tokio::test]
async fn company_that_would_be_called_again_at_once_stays() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| {
        settings.bulk = 100_000;
        settings.spare_idle = Duration::from_millis(100);
    });
    let link = client.link(&server);
    let mut first = server.greeted(100).await;
    let sent = tokio::spawn(slot(&link).await.send(request(empty())));
    let stream = first.opened().await;
    first.head(stream).await;
    let reading = tokio::spawn(collect(sent.await.unwrap().unwrap().into_body()));
    for _ in 0..10 {
        first.data(stream, &[0; 16_000]).await;
    }
    let mut second = server.greeted(100).await;
    let gone = tokio::time::timeout(Duration::from_millis(500), second.closed()).await;
    assert!(gone.is_err(), "nobody used it, but small calls would want it");
    assert_eq!((server.dials(), link.counters().dials), (2, 2));

    first.trailers(stream).await;
    reading.await.unwrap().unwrap();
    eventually(|| {
        matches!(link.status(), LinkStatus::Connected { connections: 1, .. }).then_some(())
    })
    .await;
}
