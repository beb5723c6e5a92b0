//! A provider that takes no connection, or no call.

use aegis::client::Verdict;
use aegis_testing::{Direction, TestMesh};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tonic::Status;

use super::load::{Call, Load, Trio, none_failed, request, send, shares};
use crate::service::{LIMIT, SECOND};

const CALLS: usize = 10_000;
const CALLERS: usize = 20;

/// From a cold start, while the directory still lists it as active.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_refuses_connections_costs_none_of_ten_thousand_calls() {
    let mesh = TestMesh::loopback();
    mesh.faults().between("v", "b").refuse();
    let trio = Trio::start(mesh).await;
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let identity = trio.identity.clone();
        callers.spawn(async move {
            let mut ends = Vec::new();
            for _ in 0..CALLS / CALLERS {
                ends.push(send(&identity, request("1")).await);
            }
            ends
        });
    }
    let ends = callers.join_all().await.concat();
    let failed: Vec<_> = ends.iter().filter_map(|end| end.as_ref().err()).collect();
    assert!(failed.is_empty(), "{} failed: {}", failed.len(), failed[0]);
    assert_eq!((ends.len(), trio.servers[1].1.seen.calls()), (CALLS, 0));
    assert!(0 < trio.mesh.faults().between("v", "b").dials(), "it was not even tried");
    trio.until("b", |verdict| {
        matches!(verdict, Verdict::Backoff { .. } | Verdict::Connecting { .. })
    })
    .await;
}

/// A process that accepts connections and dies of the first request, again and again.
#[tokio::test(start_paused = true)]
async fn a_provider_that_breaks_each_connection_at_the_handshake_costs_no_call() {
    let trio = Trio::start(TestMesh::in_memory()).await;
    trio.mesh.faults().between("v", "c").cut_after(Direction::FromNode, 500);
    trio.identity.wait_ready(2, LIMIT).await.unwrap();
    let load = Load::start(&trio.identity, CALLERS, SECOND / 10, || request("1"));
    sleep(SECOND * 10).await;
    let calls = load.stop().await;
    none_failed(&calls);
    assert_eq!(shares(&calls).keys().copied().collect::<Vec<_>>(), ["a", "b"]);
    // Its dials back off.
    let dials = trio.mesh.faults().between("v", "c").dials();
    assert!((2..12).contains(&dials), "{dials} dials in ten seconds");
}

/// Accepted late is not refused: what waits for the first byte holds nobody up.
#[tokio::test(start_paused = true)]
async fn a_provider_that_accepts_late_is_called_when_it_has() {
    let mesh = TestMesh::in_memory();
    mesh.faults().between("v", "a").slow_accept(SECOND * 3);
    let began = Instant::now();
    let trio = Trio::start(mesh).await;
    trio.identity.wait_ready(2, LIMIT).await.unwrap();
    let load = Load::start(&trio.identity, CALLERS, SECOND / 10, || request("1"));
    trio.identity.wait_ready(3, LIMIT).await.unwrap();
    let accepted = began.elapsed();
    assert!(SECOND * 3 <= accepted && accepted < SECOND * 4, "after {accepted:?}");
    sleep(SECOND).await;
    let calls = load.stop().await;
    none_failed(&calls);
    let by_a = |call: &&Call| call.answer.as_deref().is_ok_and(|it| it == "a");
    let first = calls.iter().filter(by_a).map(|call| call.began).min().unwrap();
    assert!(began + SECOND * 3 <= first, "it was called after {:?}", first - began);
    assert!(calls.iter().any(|call| call.began < began + SECOND), "nobody called meanwhile");
}

/// What its handlers answer is an answer, whoever else there is.
#[tokio::test(start_paused = true)]
async fn an_error_of_a_handler_goes_to_its_caller() {
    let trio = Trio::connected(TestMesh::in_memory()).await;
    let faults = trio.mesh.faults().at("a");
    faults.fail(Status::not_found("no such user"));
    let mut failed = 0;
    for _ in 0..300 {
        failed += u64::from(send(&trio.identity, request("1")).await.is_err());
    }
    // An answer of this kind is no failure of the provider: it keeps its share.
    assert_eq!((failed, faults.met()), (100, 100));
}
