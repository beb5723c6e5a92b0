//! Providers that fall silent: a process that is stopped, a firewall that drops packets, a host without power.

use std::time::Duration;

use aegis::client::{RequestExt as _, Verdict};
use aegis_proto::identity::v1::SubscribeSessionEventsRequest;
use aegis_testing::{TestMesh, eventually};
use tokio::time::{Instant, sleep, timeout};
use tonic::Code;

use super::load::{Load, Trio, failures, none_failed, request, send, shares, timed};
use crate::service::{IDENTITY_V1, Identity, LIMIT, SECOND, client, ready};

const CALLERS: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);

fn stalled(verdict: &Verdict) -> bool {
    matches!(verdict, Verdict::Stalled)
}

#[tokio::test(start_paused = true)]
async fn a_stopped_provider_keeps_those_who_are_with_it_and_gets_nobody_new() {
    let trio = Trio::connected(TestMesh::in_memory()).await;
    let load = Load::start(&trio.identity, CALLERS, PAUSE, || timed("1", SECOND * 5));
    sleep(SECOND).await;
    let (stopped, before) = (Instant::now(), trio.picks("b"));
    trio.mesh.faults().to("b").hang();
    trio.until("b", stalled).await;
    let took = stopped.elapsed();
    assert!(took < SECOND * 2 + SECOND / 10, "it took {took:?} to find out");
    let picked = trio.picks("b");
    sleep(SECOND * 8).await;
    assert_eq!(trio.picks("b"), picked, "it was called after it was found out");
    let calls = load.stop().await;
    let failures = failures(&calls);
    // Each caller can be stuck once.
    assert!(!failures.is_empty() && failures.len() <= CALLERS, "{} failed", failures.len());
    assert!(picked - before <= CALLERS as u64 + 1, "{} picks", picked - before);
    for status in failures {
        assert_eq!(status.code(), Code::DeadlineExceeded);
        assert!(status.message().contains("node b at"), "{status}");
    }

    // It goes on, and is called again.
    trio.mesh.faults().heal();
    trio.until("b", Verdict::is_eligible).await;
    let load = Load::start(&trio.identity, CALLERS, PAUSE, || request("1"));
    sleep(SECOND).await;
    let calls = load.stop().await;
    none_failed(&calls);
    assert_eq!(shares(&calls).len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_stopped_provider_costs_no_call_that_may_be_made_twice() {
    let trio = Trio::connected(TestMesh::in_memory()).await;
    let load = Load::start(&trio.identity, CALLERS, PAUSE, || timed("1", SECOND * 5).idempotent());
    sleep(SECOND).await;
    let before = trio.picks("b");
    trio.mesh.faults().to("b").hang();
    trio.until("b", stalled).await;
    let picked = trio.picks("b");
    assert!(before < picked, "nobody was with it");
    sleep(SECOND * 8).await;
    assert_eq!(trio.picks("b"), picked, "it was called after it was found out");
    let calls = load.stop().await;
    none_failed(&calls);
    let slowest = calls.iter().map(|call| call.took).max().unwrap();
    println!("{} calls, none failed, the slowest took {slowest:?}", calls.len());
    assert!(SECOND / 2 < slowest, "none was stuck: the test shows nothing");
}

/// SIGSTOP for five seconds, then SIGCONT.
#[tokio::test(start_paused = true)]
async fn calls_without_a_deadline_outlive_a_stop_of_five_seconds() {
    let trio = Trio::connected(TestMesh::in_memory()).await;
    let load = Load::start(&trio.identity, CALLERS, PAUSE, || request("1"));
    sleep(SECOND).await;
    let stopped = Instant::now();
    trio.mesh.faults().to("b").hang();
    trio.until("b", stalled).await;
    let picked = trio.picks("b");
    tokio::time::sleep_until(stopped + SECOND * 5).await;
    assert_eq!(trio.picks("b"), picked);
    trio.mesh.faults().to("b").heal();
    trio.until("b", Verdict::is_eligible).await;
    sleep(SECOND).await;
    let calls = load.stop().await;
    none_failed(&calls);
    let waited = calls.iter().filter(|call| SECOND * 2 < call.took).count();
    assert!((1..=CALLERS).contains(&waited), "{waited} calls waited for it");
    assert!(picked < trio.picks("b"));
}

/// It accepts connections, and never says a word.
#[tokio::test(start_paused = true)]
async fn a_provider_that_is_silent_from_the_start_costs_no_call() {
    let mesh = TestMesh::in_memory();
    mesh.faults().between("v", "b").hang();
    let trio = Trio::start(mesh).await;
    let load = Load::start(&trio.identity, CALLERS, PAUSE, || timed("1", SECOND * 5));
    sleep(SECOND * 20).await;
    let calls = load.stop().await;
    none_failed(&calls);
    assert_eq!((trio.picks("b"), shares(&calls).len()), (0, 2));
    let slowest = calls.iter().map(|call| call.took).max().unwrap();
    assert!(slowest < SECOND, "a call waited for {slowest:?}");
    assert!(1 < trio.mesh.faults().between("v", "b").dials(), "it was given up");
}

/// A client that knows the mesh by three addresses, of which the first two lead to processes that hang.
#[tokio::test(start_paused = true)]
async fn seeds_that_say_nothing_hold_no_call_up() {
    let mesh = TestMesh::in_memory();
    mesh.faults().between("v", "a").hang();
    mesh.faults().between("v", "b").hang();
    let trio = Trio::start(mesh).await;
    let began = Instant::now();
    assert_eq!(send(&trio.identity, request("1")).await.unwrap(), "c");
    assert!(began.elapsed() < SECOND, "it took {:?}", began.elapsed());
}

/// A stream idles and a call waits when packets are lost from one moment on.
#[tokio::test(start_paused = true)]
async fn a_dead_host_is_noticed_in_two_seconds_and_its_streams_end_after_twenty() {
    let trio = Trio::connected(TestMesh::in_memory()).await;
    // A client of b alone: which provider one is pinned to, a call tells.
    let mut pinned = loop {
        let mut pinned = trio.identity.pinned().unwrap();
        let answer = pinned.get_user(request("1")).await.unwrap().into_inner();
        if answer.name == "b" {
            break pinned;
        }
    };
    let mut events = pinned
        .subscribe_session_events(SubscribeSessionEventsRequest {})
        .await
        .unwrap()
        .into_inner();
    let waiting =
        tokio::spawn(
            async move { pinned.get_user(timed("forever", SECOND * 60)).await.unwrap_err() },
        );
    sleep(SECOND).await;

    let lost = Instant::now();
    trio.mesh.faults().to("b").black_hole();
    trio.until("b", stalled).await;
    let took = lost.elapsed();
    assert!(took <= SECOND * 2 + SECOND / 10, "noticed after {took:?}");
    let load = Load::start(&trio.identity, CALLERS, PAUSE, || request("1"));
    let end = async {
        loop {
            match events.message().await {
                Ok(Some(_)) => {}
                other => break other,
            }
        }
    };
    let status = timeout(SECOND * 60, end).await.unwrap().unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert!(status.message().contains("node b at"), "{status}");
    let took = lost.elapsed();
    assert!(SECOND * 19 < took && took < SECOND * 23, "the stream ended after {took:?}");
    let status = waiting.await.unwrap();
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    let calls = load.stop().await;
    none_failed(&calls);
    assert_eq!(shares(&calls).len(), 2);

    // The firewall is open again.
    trio.mesh.faults().heal();
    trio.identity.wait_ready(3, SECOND * 60).await.unwrap();
}

/// A host lost power and came back: it knows none of the connections, and nobody told their other ends.
#[tokio::test(start_paused = true)]
async fn half_open_connections_are_found_out_and_replaced() {
    let trio = Trio::connected(TestMesh::in_memory()).await;
    let load = Load::start(&trio.identity, CALLERS, PAUSE, || timed("1", SECOND * 5));
    sleep(SECOND).await;
    let (began, link) = (Instant::now(), trio.mesh.faults().between("v", "b"));
    let dials = link.dials();
    link.half_open();
    // Beside the lost connection another one is tried, which is well.
    eventually(SECOND * 3, || if dials < link.dials() { Ok(()) } else { Err("no dial") }).await;
    trio.until("b", Verdict::is_eligible).await;
    sleep(SECOND * 25).await;
    let calls = load.stop().await;
    let failures = failures(&calls);
    assert!(failures.len() <= CALLERS, "{} failed", failures.len());
    assert!(failures.iter().all(|status| status.message().contains("node b at")));
    let late: Vec<_> = calls.iter().filter(|call| began + SECOND * 3 < call.began).collect();
    assert!(late.iter().all(|call| call.answer.is_ok()), "a call failed after that");
    assert!(late.iter().any(|call| call.answer.as_deref().is_ok_and(|it| it == "b")));
}

/// The defaults of both ends fit each other: nobody is thrown out for asking, or for not asking.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_lives_for_half_an_hour_by_the_defaults_of_both_ends() {
    let mesh = TestMesh::in_memory();
    let a = Identity::new("a");
    let server = mesh.serve("a", |node| a.on(node)).await;
    let pool = aegis::ServicePool::builder()
        .tls(mesh.ca().options("v", "test"))
        .network(mesh.network())
        .provider("a", server.local_addr().to_string(), [IDENTITY_V1])
        .build()
        .unwrap();
    let identity = ready(&pool, 1).await;
    // Alone, and with a call under way that waits for long.
    sleep(SECOND * 900).await;
    identity.get().unwrap().get_user(timed("sleep 900000", SECOND * 1_000)).await.unwrap();
    let connections = mesh.faults().to("a");
    assert_eq!((connections.dials(), connections.connections()), (1, 1));
    send(&client(&pool), request("1")).await.unwrap();
    assert_eq!(connections.dials(), 1);
}

/// Latency alone is no fault: every provider is a tenth of a second away, give or take.
#[tokio::test(start_paused = true)]
async fn a_slow_network_costs_time_and_no_call() {
    let mesh = TestMesh::in_memory();
    let slow = Duration::from_millis(80)..=Duration::from_millis(120);
    for id in ["a", "b", "c"] {
        mesh.faults().between("v", id).delay(slow.clone());
    }
    let trio = Trio::start(mesh).await;
    trio.identity.wait_ready(3, LIMIT).await.unwrap();
    let load = Load::start(&trio.identity, CALLERS, PAUSE, || timed("1", SECOND));
    sleep(SECOND * 30).await;
    let calls = load.stop().await;
    none_failed(&calls);
    let (least, most) = calls.iter().fold((LIMIT, Duration::ZERO), |(least, most), call| {
        (least.min(call.took), most.max(call.took))
    });
    assert!(
        Duration::from_millis(160) <= least && most < Duration::from_millis(500),
        "{least:?} to {most:?}"
    );
    let explanation = trio.identity.explain();
    assert!(explanation.candidates.iter().all(|it| it.verdict.is_eligible()), "{explanation}");
}
