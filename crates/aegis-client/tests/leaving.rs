//! When a call leaves a provider that does not answer, and when it stays.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aegis_client::{
    CallPolicy, Failure, PoolOptions, RequestExt as _, ServiceClient, ServicePool, Stopped,
};
use aegis_proto::identity::v1::SubscribeSessionEventsRequest;
use aegis_testing::eventually;
use aegis_tls::Subject;
use aegis_topology::{Description, Label, NodeEntry, Publisher, ServiceEntry};
use aegis_transport::{Connections, Tcp};
use h2::Reason;
use tonic::{Code, Status};

use crate::mesh::{Client, IDENTITY, Mesh, PATIENCE, assert_status, call, identity, send, timed};
use crate::provider::{Act, Provider};
use crate::raw::{Raw, RawPeer};
use crate::retries::{call_idempotent, with_policy};

const UNAVAILABLE: Act = Act::Fail(14);
const SHORT: Duration = Duration::from_millis(100);

/// A client that is connected to a provider and to one that answers nothing.
async fn good_and_silent() -> (ServiceClient<Client>, Provider, RawPeer) {
    let mesh = Mesh::new();
    let silent = RawPeer::start(&mesh, "silent", Raw::Silence { streams: 100 }).await;
    let good = Provider::start(&mesh, "good").await;
    let addresses = [("good", good.address), ("silent", silent.address)];
    let client = identity(&mesh.builder(&addresses).build().unwrap());
    client.wait_ready(2, PATIENCE).await.unwrap();
    (client, good, silent)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_provider_is_left_after_the_try_timeout() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (pool, _client) = mesh.connected(&[&a, &b]).await;
    a.always(Act::Hang);
    let client = with_policy(&pool, CallPolicy::new().idempotent().try_timeout(SHORT * 3));
    for _ in 0..4 {
        assert_eq!(call(&client).await.unwrap(), "b");
    }
    assert_eq!((a.requests(), b.requests(), client.explain().try_timeouts), (2, 4, 2));
    // The slow one learns that nobody waits for it.
    eventually(PATIENCE, || match a.reset() {
        2 => Ok(()),
        some => Err(format!("{some} of 2 streams were reset")),
    })
    .await;
    // When both are slow, the deadline has the last word, and the failure tells of both.
    b.always(Act::Hang);
    let status = send(&client, timed(SHORT * 15)).await.unwrap_err();
    assert_status(&status, Code::DeadlineExceeded, &["attempt 3 of identity/v1, after"]);
    let failure = Failure::from_status(&status).unwrap();
    assert_eq!((failure.attempts_made(), failure.stopped()), (3, Stopped::Deadline));
    assert!(failure.attempts()[0].cause.contains("try_timeout of 300ms"), "{failure}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_may_not_be_sent_again_waits_beyond_its_try_timeout() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (pool, _client) = mesh.connected(&[&a, &b]).await;
    a.always(Act::AnswerAfter(SHORT * 3));
    b.always(Act::AnswerAfter(SHORT * 3));
    let policy = CallPolicy::new().try_timeout(SHORT);
    for policy in [policy, policy.idempotent().attempts(1)] {
        call(&with_policy(&pool, policy)).await.unwrap();
    }
    assert_eq!((a.requests() + b.requests(), a.reset() + b.reset()), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idempotent_calls_leave_a_stalled_connection_and_others_stay() {
    let (client, _good, silent) = good_and_silent().await;
    let began = Instant::now();
    let calls = (0..8).map(|index| {
        let client = &client;
        async move {
            let request = timed(PATIENCE);
            // In pairs, since of two calls one is with the silent one.
            let idempotent = index % 4 < 2;
            let outcome =
                send(client, if idempotent { request.idempotent() } else { request }).await;
            (idempotent, outcome, began.elapsed())
        }
    });
    let outcomes = futures_util::future::join_all(calls).await;
    assert!(outcomes.iter().filter(|(idempotent, ..)| *idempotent).all(|it| it.1.is_ok()));
    let late: Vec<_> = outcomes.iter().filter(|it| Duration::from_secs(1) < it.2).collect();
    // It stops reading with the first of them.
    assert_eq!((late.len(), silent.requests()), (4, 1));
    for (idempotent, outcome, elapsed) in late {
        if *idempotent {
            // A PING after 1 s of silence, 1 s for the answer.
            assert!(*elapsed < PATIENCE, "{elapsed:?}");
        } else {
            assert_eq!(outcome.as_ref().unwrap_err().code(), Code::DeadlineExceeded);
        }
    }
    assert_eq!(client.explain().stalls_left, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_has_failed_a_call_is_better_than_one_that_is_silent() {
    let (client, good, _silent) = good_and_silent().await;
    // One of the two makes the silent one show itself.
    for _ in 0..2 {
        call_idempotent(&client).await.unwrap();
    }
    let before = client.explain();
    assert_eq!(before.stalls_left, 1);
    good.once(UNAVAILABLE);
    assert_eq!(call_idempotent(&client).await.unwrap(), "good");
    let after = client.explain();
    assert_eq!((after.stalls_left, after.attempts), (1, before.attempts + 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_we_close_ourselves_is_no_cancellation() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    provider.always(Act::Hang);
    let tls = mesh.options().load(&Subject::any()).unwrap();
    let settings = aegis_client::Settings::default();
    let connections = Connections::new(tls.clone(), Arc::new(Tcp::default()), settings);
    let description = Description::new(
        Label::default(),
        [provider.address.into()],
        [ServiceEntry::new(IDENTITY)],
    );
    let entry = NodeEntry::fixed(provider.id.parse().unwrap(), description.unwrap());
    let pool = ServicePool::for_node(
        Publisher::fixed([entry]).directory(),
        connections.clone(),
        tls,
        Arc::new(()),
        PoolOptions::default(),
    );
    let client = identity(&pool);
    client.wait_ready(1, PATIENCE).await.unwrap();
    let closing = async {
        eventually(PATIENCE, || match provider.requests() {
            2 => Ok(()),
            some => Err(format!("{some} requests")),
        })
        .await;
        connections.close(Duration::ZERO).await;
    };
    let (one, two, ()) = tokio::join!(call(&client), call_idempotent(&client), closing);
    for outcome in [one, two] {
        let status = outcome.unwrap_err();
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn behind_a_black_hole_a_stream_ends_and_new_calls_go_elsewhere() {
    let mesh = Mesh::new();
    let silent = RawPeer::start(&mesh, "silent", Raw::Silence { streams: 100 }).await;
    let mut settings = aegis_client::Settings::default();
    settings.keepalive.dead_after = Duration::from_secs(3);
    settings.keepalive.idle.answer = Duration::from_secs(1);
    let good = Provider::start(&mesh, "good").await;
    let addresses = [("good", good.address), ("silent", silent.address)];
    let client = identity(&mesh.builder(&addresses).settings(settings).build().unwrap());
    client.wait_ready(2, PATIENCE).await.unwrap();
    let mut streams = Vec::new();
    for _ in 0..2 {
        let client = client.clone();
        streams.push(tokio::spawn(async move {
            client
                .get()?
                .subscribe_session_events(SubscribeSessionEventsRequest::default())
                .await?;
            Ok::<_, Status>(())
        }));
    }
    eventually(PATIENCE, || match silent.requests() {
        1 => Ok(()),
        some => Err(format!("{some} streams")),
    })
    .await;
    let mut ends = Vec::new();
    for stream in streams {
        ends.extend(stream.await.unwrap().err());
    }
    let [status] = ends.as_slice() else { panic!("{ends:?}") };
    assert_status(status, Code::Unavailable, &["node silent at", "has not answered for too long"]);
    for _ in 0..10 {
        assert_eq!(call(&client).await.unwrap(), "good");
    }
    assert_eq!(silent.requests(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_cancels_for_the_deadline_is_no_cancellation() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (_pool, client) = mesh.connected(&[&provider]).await;
    // A little before our own clock says so.
    provider.always(Act::ResetAfter(Duration::from_millis(98), Reason::CANCEL));
    for _ in 0..20 {
        let status = send(&client, timed(SHORT)).await.unwrap_err();
        assert_status(&status, Code::DeadlineExceeded, &["node a at"]);
    }
    provider.always(Act::ResetAfter(SHORT, Reason::CANCEL));
    let status = send(&client, timed(PATIENCE)).await.unwrap_err();
    assert_status(&status, Code::Cancelled, &["node a at"]);
}
