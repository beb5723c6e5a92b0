//! Providers that come and go under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use aegis::Server;
use aegis::client::RequestExt as _;
use aegis_proto::identity::v1::{GetUserRequest, SubscribeSessionEventsRequest};
use aegis_testing::TestMesh;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::{Code, Request, Status};

use super::load::{Call, Load, Trio, failures, none_failed, request, shares};
use crate::service::{Identity, LIMIT, SECOND, scaled};

const CALLERS: usize = 20;
/// Each makes nearly nine calls a second, of 5 to 200 ms and with a pause of 10 ms.
const MANY_CALLERS: usize = 80;
const WATCHERS: usize = 20;

/// Starts a provider again where it was.
async fn restart(mesh: &TestMesh, server: Server, identity: &Identity) -> Server {
    let (id, address) = (server.node().id().to_string(), server.local_addr().to_string());
    server.shutdown().await.unwrap();
    let builder = mesh.builder(&id).address(address).drain_timeout(SECOND / 2);
    mesh.start(identity.on(builder)).await
}

/// What a watcher saw.
#[derive(Default)]
struct Watched {
    events: usize,
    ends: Vec<Status>,
}

/// Calls of 5 to 200 ms and streams that never end, while node after node is restarted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_fails_no_call_and_streams_resume_elsewhere() {
    let mesh = TestMesh::loopback();
    let mut trio = Trio::connected(mesh).await;
    // Their first run too must not wait for streams for long.
    for index in 0..3 {
        let (server, identity) = trio.servers.remove(index);
        let server = restart(&trio.mesh, server, &identity).await;
        trio.servers.insert(index, (server, identity));
        trio.identity.wait_ready(3, LIMIT).await.unwrap();
    }
    let numbers = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let load = Load::start(&trio.identity, MANY_CALLERS, SECOND / 100, move || {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        request(&format!("sleep {}", 5 + number * 31 % 196))
    });
    let stop = Arc::new(AtomicBool::new(false));
    let mut watchers = JoinSet::new();
    for _ in 0..WATCHERS {
        let (identity, stop) = (trio.identity.clone(), Arc::clone(&stop));
        watchers.spawn(async move {
            let mut watched = Watched::default();
            while !stop.load(Ordering::Relaxed) {
                let subscribe = SubscribeSessionEventsRequest {};
                let events = identity.get().unwrap().subscribe_session_events(subscribe).await;
                let mut events = events.unwrap().into_inner();
                loop {
                    match events.message().await {
                        Ok(Some(_)) => watched.events += 1,
                        Ok(None) => panic!("an endless stream has ended"),
                        Err(status) => break watched.ends.push(status),
                    }
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
            }
            watched
        });
    }
    sleep(SECOND / 2).await;
    for index in 0..3 {
        let (server, identity) = trio.servers.remove(index);
        let before = identity.seen.calls();
        let server = restart(&trio.mesh, server, &identity).await;
        trio.servers.insert(index, (server, identity.clone()));
        trio.identity.wait_ready(3, LIMIT).await.unwrap();
        sleep(SECOND / 2).await;
        assert!(before < identity.seen.calls(), "nobody calls it any more");
    }
    stop.store(true, Ordering::Relaxed);
    let calls = load.stop().await;
    let rate = calls.len() as u128 * 1_000 / began.elapsed().as_millis();
    none_failed(&calls);
    // The case asks for 500 a second.
    assert!(500 <= rate, "{rate} calls a second");
    assert_eq!(shares(&calls).len(), 3);
    let watched = watchers.join_all().await;
    let ends: Vec<_> = watched.iter().flat_map(|watched| &watched.ends).collect();
    println!(
        "{} calls at {rate} a second, none failed; {} streams were ended and resumed",
        calls.len(),
        ends.len()
    );
    // Each watcher sat on some node that was restarted.
    assert!(WATCHERS <= ends.len(), "{} streams were ended", ends.len());
    for status in ends {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
    }
    assert!(watched.iter().all(|watched| 20 < watched.events));
}

/// What `kill -9` looks like from outside: every connection breaks, and no new one is taken.
async fn kill_again_and_again(
    kills: usize,
    make: fn() -> Request<GetUserRequest>,
) -> (TestMesh, Vec<Call>) {
    let trio = Trio::connected(TestMesh::in_memory()).await;
    // A third of them is under way at a time: with more, it would be left out for a while, for failing several in a row.
    let load = Load::start(&trio.identity, CALLERS, SECOND / 10, make);
    for _ in 0..kills {
        // Long enough for a connection not to count as one that breaks at once.
        sleep(SECOND).await;
        trio.mesh.faults().to("b").refuse().cut();
        sleep(SECOND / 3).await;
        trio.mesh.faults().heal();
        trio.identity.wait_ready(3, LIMIT).await.unwrap();
    }
    let calls = load.stop().await;
    assert_eq!(shares(&calls).len(), 3);
    (trio.mesh, calls)
}

#[tokio::test(start_paused = true)]
async fn a_killed_provider_costs_only_the_calls_that_were_with_it() {
    let kills = scaled(10, 50);
    let (_mesh, calls) = kill_again_and_again(kills, || request("sleep 50")).await;
    let failures = failures(&calls);
    println!("{} of {} calls failed in {kills} kills", failures.len(), calls.len());
    assert!(!failures.is_empty(), "no call was under way with it: the test shows nothing");
    assert!(failures.len() <= kills * CALLERS / 4, "{} failed", failures.len());
    for status in failures {
        assert_eq!(status.code(), Code::Unavailable, "{status}");
        assert!(status.message().contains("node b at"), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_killed_provider_costs_no_call_that_may_be_made_twice() {
    let kills = scaled(10, 50);
    let (mesh, calls) = kill_again_and_again(kills, || request("sleep 50").idempotent()).await;
    none_failed(&calls);
    assert!(kills as u64 <= mesh.faults().between("v", "b").dials());
}
