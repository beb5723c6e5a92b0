//! When a node counts as connected, and what is said and done when it does not.

use std::time::Duration;

use aegis_testing::TestCa;
use aegis_tls::AcceptError;
use aegis_transport::{DialError, Link, LinkStatus, Target, Unavailable};
use tokio::net::TcpListener;

use crate::support::{
    Client, Kind, Server, assert_connected, collect, eventually, full, request, slot,
};

#[track_caller]
fn backoff(status: LinkStatus) -> (u32, std::sync::Arc<DialError>) {
    match status {
        LinkStatus::Backoff { failures, error, .. } => (failures, error),
        other => panic!("{other:?}"),
    }
}

async fn failures(link: &Link, count: u32) -> std::sync::Arc<DialError> {
    eventually(|| match link.status() {
        LinkStatus::Backoff { failures, error, .. } if count <= failures => Some(error),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn a_node_is_connected_when_its_settings_have_come() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let link = Client::new(&ca).connections.link(server.target());
    assert_eq!(link.try_acquire().unwrap_err(), Unavailable::Closed);

    let client = Client::new(&ca);
    let link = client.link(&server);
    let mut raw = server.raw().await;
    // TLS is done and our SETTINGS are there, so the client believes all is well; but it has no proof.
    raw.next(Kind::Settings).await;
    assert!(matches!(link.status(), LinkStatus::Connecting { failures: 0, error: None, .. }));
    assert_eq!(link.try_acquire().unwrap_err(), Unavailable::NotConnected);
    assert!(!link.is_connected());

    raw.settings(10).await;
    match link.settled().await {
        LinkStatus::Connected {
            connections: 1, in_flight: 0, slots: 10, stalled: false, ..
        } => {}
        other => panic!("{other:?}"),
    }
    assert!(link.is_connected());
    let counters = link.counters();
    assert_eq!((counters.dials, counters.connected, counters.dial_failures), (1, 1, 0));
}

#[tokio::test]
async fn a_server_that_sends_no_settings_is_not_connected() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| settings.dial_limit = Duration::from_millis(200));
    let link = client.link(&server);
    let _raw = server.raw().await;
    let (count, error) = backoff(link.settled().await);
    assert_eq!(count, 1);
    assert!(matches!(*error, DialError::NoSettings { .. }), "{error}");
}

#[tokio::test]
async fn a_listener_that_says_nothing_is_given_up_within_the_limit() {
    let ca = TestCa::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().into();
    let client = Client::with(&ca, |settings| settings.dial_limit = Duration::from_millis(100));
    let link = client.connections.link(Target::new("mute".parse().unwrap(), vec![address]));
    let (_, error) = backoff(link.settled().await);
    assert!(matches!(*error, DialError::NoHandshake { .. }), "{error}");
}

#[tokio::test]
async fn a_refusal_over_tls_is_said_in_words_and_backed_off() {
    let (ca, other) = (TestCa::new(), TestCa::new());
    let server = Server::start(&ca, "server-1").await;
    // It trusts the server's CA, but the server does not know its own.
    let tls = other.issue("client-1", "client").trusting(&[&ca, &other]).options();
    let subject = aegis_tls::Subject::new("client-1".parse().unwrap(), "client".parse().unwrap());
    let mut settings = aegis_transport::Settings::default();
    settings.backoff.first = Duration::from_millis(20);
    let connections = aegis_transport::Connections::new(
        tls.load(&subject).unwrap(),
        std::sync::Arc::new(aegis_transport::Tcp::default()),
        settings,
    );
    let link = connections.link(server.target());
    let error = failures(&link, 4).await;
    match &*error {
        DialError::Refused { address, refusal } => {
            assert_eq!(*address, server.address());
            assert_eq!(refusal.reason(), "unknown_ca");
            assert!(error.to_string().contains("does not know our CA"), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(link.counters().dial_failures >= 4);
    assert_eq!(
        link.counters().connected,
        0,
        "a handshake that the server refuses is no connection"
    );
    let AcceptError::Untrusted { .. } = server.refusal().await else {
        panic!("the server did not refuse the certificate");
    };
}

#[tokio::test]
async fn another_node_at_the_address_is_no_connection() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-2").await;
    let client = Client::new(&ca);
    let target = Target::new("server-1".parse().unwrap(), vec![server.address()]);
    let link = client.connections.link(target);
    let (_, error) = backoff(link.settled().await);
    match &*error {
        DialError::WrongNode { expected, found, .. } => {
            assert_eq!((expected.as_str(), found.as_str()), ("server-1", "server-2"));
        }
        other => panic!("{other:?}"),
    }
    server.refusal().await;
}

#[tokio::test]
async fn each_address_is_tried_and_the_good_one_is_found() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let wrong = Server::start(&ca, "server-2").await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Client::with(&ca, |settings| settings.dial_limit = Duration::from_secs(2));
    let addresses = vec![
        "127.0.0.1:1".parse().unwrap(),
        silent.local_addr().unwrap().into(),
        wrong.address(),
        server.address(),
    ];
    let link = client.connections.link(Target::new(server.id(), addresses));
    let _raw = server.greeted(10).await;
    assert_connected(&link.settled().await);
}

#[tokio::test]
async fn of_several_failures_the_one_that_tells_most_is_reported() {
    let ca = TestCa::new();
    let wrong = Server::start(&ca, "server-2").await;
    let client = Client::new(&ca);
    let addresses =
        vec!["127.0.0.1:1".parse().unwrap(), wrong.address(), "127.0.0.1:2".parse().unwrap()];
    let link = client.connections.link(Target::new("server-1".parse().unwrap(), addresses));
    let (_, error) = backoff(link.settled().await);
    assert!(matches!(*error, DialError::WrongNode { .. }), "{error}");
}

#[tokio::test]
async fn a_node_without_an_address_fails_at_once() {
    let client = Client::new(&TestCa::new());
    let link = client.connections.link(Target::new("nowhere".parse().unwrap(), Vec::new()));
    let (_, error) = backoff(link.settled().await);
    assert!(matches!(*error, DialError::NoAddress), "{error}");
}

#[tokio::test]
async fn new_addresses_and_news_end_a_backoff() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |it| it.backoff.first = Duration::from_secs(60));
    let dead = vec!["127.0.0.1:1".parse().unwrap()];
    let link = client.connections.link(Target::new(server.id(), dead.clone()));
    backoff(link.settled().await);

    // The same addresses are no news ..
    link.set_addresses(dead);
    backoff(link.settled().await);
    assert_eq!(link.counters().dials, 1);
    // .. but a word of the node is.
    link.retry();
    eventually(|| (link.counters().dials == 2).then_some(())).await;

    link.set_addresses(vec![server.address()]);
    let _raw = server.greeted(10).await;
    eventually(|| link.is_connected().then_some(())).await;
}

#[tokio::test]
async fn a_node_that_restarts_is_dialled_again_soon() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let at = server.socket_addr().to_string();
    let client = Client::new(&ca);
    let link = client.link(&server);
    let raw = server.greeted(10).await;
    assert_connected(&link.settled().await);
    drop((raw, server));
    eventually(|| (link.counters().lost == 1).then_some(())).await;

    let server = Server::at(&at, &ca, "server-1").await;
    let _raw = tokio::time::timeout(Duration::from_secs(3), server.greeted(10)).await.unwrap();
    assert_connected(&link.settled().await);
}

#[tokio::test]
async fn a_server_that_drops_every_connection_is_not_dialled_in_a_loop() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |it| {
        it.backoff.redial = Duration::from_millis(10);
        it.backoff.steady = Duration::from_secs(60);
    });
    let link = client.link(&server);
    for connected in 1..=3 {
        let raw = server.greeted(10).await;
        eventually(|| (link.counters().connected == connected).then_some(())).await;
        drop(raw);
    }
    let fourth = tokio::time::timeout(Duration::from_millis(500), server.stream()).await;
    assert!(fourth.is_err(), "the fourth dial came at once");
    assert_eq!(link.counters().connected, 3);
    let (failures, error) = backoff(link.settled().await);
    assert_eq!(failures, 1);
    assert!(matches!(*error, DialError::ShortLived { .. }), "{error}");
}

#[tokio::test]
async fn a_seed_teaches_its_id_and_is_kept_under_it() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let (seed, address) = (client.connections.clone(), server.address());
    let dial = tokio::spawn(async move { seed.dial_seed(&address).await });
    let mut raw = server.greeted(10).await;
    let seed = dial.await.unwrap().unwrap();
    assert_eq!(seed.node_id(), &server.id());
    assert_connected(&seed.settled().await);

    // The data plane finds the same connection.
    let link = client.link(&server);
    let call = tokio::spawn(slot(&link).await.send(request(full("x"))));
    let stream = raw.opened().await;
    raw.answer(stream).await;
    call.await.unwrap().unwrap();
    assert_eq!((server.dials(), seed.in_flight()), (1, 0));
}

#[tokio::test]
async fn a_seed_that_leads_home_or_nowhere_is_an_error() {
    let ca = TestCa::new();
    let client = Client::new(&ca);
    let own = Server::start(&ca, "client-1").await;
    let (seed, address) = (client.connections.clone(), own.address());
    let dial = tokio::spawn(async move { seed.dial_seed(&address).await });
    let _raw = own.greeted(10).await;
    let error = dial.await.unwrap().unwrap_err();
    assert!(matches!(error, DialError::OwnNode { .. }), "{error}");

    let error = client.connections.dial_seed(&"127.0.0.1:1".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, DialError::Unreachable { .. }), "{error}");
}

#[tokio::test]
async fn two_links_to_one_node_share_its_connection() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    let (one, two) = (client.link(&server), client.link(&server));
    let _raw = server.greeted(10).await;
    assert_connected(&one.settled().await);
    assert_connected(&two.settled().await);
    drop(one);
    tokio::task::yield_now().await;
    let held = two.try_acquire().unwrap();
    assert_eq!((server.dials(), two.in_flight()), (1, 1));
    drop(held);
}

#[tokio::test]
async fn the_longest_durations_are_for_ever() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |settings| {
        let longest = Duration::MAX;
        for it in [
            &mut settings.dial_limit,
            &mut settings.spare_idle,
            &mut settings.wait,
            &mut settings.keepalive.dead_after,
            &mut settings.backoff.first,
            &mut settings.backoff.limit,
            &mut settings.backoff.redial,
            &mut settings.backoff.steady,
            &mut settings.backoff.give_up_after,
            &mut settings.backoff.give_up_pace,
        ] {
            *it = longest;
        }
        for pace in [
            &mut settings.keepalive.busy,
            &mut settings.keepalive.idle,
            &mut settings.keepalive.foreign,
        ] {
            (pace.silence, pace.answer) = (longest, longest);
        }
    });
    let link = client.link(&server);
    let mut raw = server.greeted(10).await;
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    let stream = raw.opened().await;
    raw.answer(stream).await;
    collect(sent.await.unwrap().unwrap().into_body()).await.unwrap();
    // One that breaks is not dialled for long, and one that cannot be reached neither.
    drop(raw);
    eventually(|| (!link.is_connected()).then_some(())).await;
    let dead = vec!["127.0.0.1:1".parse().unwrap()];
    let link = client.connections.link(Target::new("dead".parse().unwrap(), dead));
    assert_eq!(backoff(link.settled().await).0, 1);

    let client = Client::with(&ca, |it| {
        it.backoff.give_up_after = Duration::ZERO;
        it.backoff.give_up_pace = Duration::MAX;
    });
    let dead = vec!["127.0.0.1:1".parse().unwrap()];
    let link = client.connections.link(Target::new("dead".parse().unwrap(), dead));
    assert_eq!(backoff(link.settled().await).0, 1);
}

#[tokio::test]
async fn a_seed_is_connected_when_it_is_there_whatever_was_thought_of_the_node() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |it| it.backoff.first = Duration::from_secs(60));
    let dead = vec!["127.0.0.1:1".parse().unwrap()];
    let link = client.connections.link(Target::new(server.id(), dead));
    backoff(link.settled().await);
    let address = server.address();
    let seed = async {
        let link = client.connections.dial_seed(&address).await.unwrap();
        (link.try_acquire().map(drop), link)
    };
    let ((slot, seed), mut raw) = tokio::join!(seed, server.greeted(10));
    assert_eq!(slot, Ok(()));
    assert_connected(&link.status());
    // It is one more attempt that went well.
    drop(link);
    raw.ping().await;
    assert_connected(&seed.status());
}

#[tokio::test]
async fn connections_that_break_together_count_once() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |it| {
        it.connections = 4;
        it.backoff.redial = Duration::from_millis(10);
        it.backoff.steady = Duration::from_secs(60);
        it.backoff.first = Duration::from_secs(60);
    });
    let link = client.link(&server);
    let (mut raws, mut held) = (Vec::new(), Vec::new());
    for connections in 1..=4 {
        raws.push(server.greeted(1).await);
        eventually(|| (link.counters().connected == connections).then_some(())).await;
        held.push(slot(&link).await);
    }
    drop(raws);
    let mut raw = tokio::time::timeout(Duration::from_secs(2), server.greeted(10)).await.unwrap();
    raw.ping().await;
    assert_connected(&link.settled().await);
    assert_eq!(link.counters().lost, 4);
}

#[tokio::test]
async fn a_node_that_greets_and_leaves_in_one_breath_is_not_a_failed_dial() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::with(&ca, |it| {
        it.backoff.first = Duration::from_secs(60);
        it.backoff.redial = Duration::from_millis(10);
    });
    let link = client.link(&server);
    server.raw().await.settings_and_go_away(10).await;
    let _raw = tokio::time::timeout(Duration::from_secs(2), server.greeted(10)).await.unwrap();
    eventually(|| link.is_connected().then_some(())).await;
    let counters = link.counters();
    assert_eq!((counters.dial_failures, counters.dials), (0, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_seed_is_not_dialled_a_second_time_by_its_keeper() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    for round in 1..=20 {
        let client = Client::new(&ca);
        let address = server.address();
        let (seed, mut raw) =
            tokio::join!(client.connections.dial_seed(&address), server.greeted(10));
        let seed = seed.unwrap();
        raw.ping().await;
        assert_eq!((server.dials(), seed.counters().dials), (round, 0));
    }
}

#[tokio::test]
async fn a_dial_to_where_the_node_was_does_not_delay_the_one_to_where_it_is() {
    let ca = TestCa::new();
    let server = Server::start(&ca, "server-1").await;
    let client = Client::new(&ca);
    // It takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let old = vec![silent.local_addr().unwrap().into()];
    let link = client.connections.link(Target::new(server.id(), old));
    let _dialled = silent.accept().await.unwrap();
    link.set_addresses(vec![server.address()]);
    let _raw = tokio::time::timeout(Duration::from_secs(2), server.greeted(10)).await.unwrap();
    assert_connected(&link.settled().await);
}

#[tokio::test]
async fn a_later_run_at_another_address_replaces_the_connection_to_the_one_before() {
    let ca = TestCa::new();
    let (first, second) =
        (Server::start(&ca, "server-1").await, Server::start(&ca, "server-1").await);
    let client = Client::new(&ca);
    let link = client.connections.link(first.target().record(1, 1));
    let mut old = first.greeted(10).await;
    assert_connected(&link.settled().await);
    let sent = tokio::spawn(slot(&link).await.send(request(full("x"))));
    let stream = old.opened().await;
    // Another record of the same run, wherever that is now, leaves the connection alone.
    link.set_record(vec![second.address()], 1, 2);
    old.ping().await;
    assert_eq!(second.dials(), 0);
    link.set_record(vec![second.address()], 2, 1);
    let mut new = tokio::time::timeout(Duration::from_secs(2), second.greeted(10)).await.unwrap();
    new.ping().await;
    let call = tokio::spawn(slot(&link).await.send(request(full("y"))));
    let other = tokio::time::timeout(Duration::from_secs(2), new.opened()).await.unwrap();
    new.answer(other).await;
    call.await.unwrap().unwrap();
    // What was open on the old one is brought to its end.
    old.answer(stream).await;
    collect(sent.await.unwrap().unwrap().into_body()).await.unwrap();
    old.closed().await;
}
