//! Providers that answer wrongly, and at once.

use std::time::Duration;

use aegis::client::{Balancer, RequestExt as _, Verdict};
use aegis_testing::{CallFaults, TestMesh};
use tokio::time::sleep;
use tonic::{Code, Status};

use super::load::{Call, Load, Trio, failures, none_failed, request, shares};
use crate::service::SECOND;

const CALLERS: usize = 30;

/// `a` and `b` take 20 ms, `c` fails in no time: to who counts requests in hand it looks idle.
async fn beside_a_failing_one(balancer: Balancer) -> Trio {
    let trio = Trio::balanced(TestMesh::in_memory(), balancer).await;
    for id in ["a", "b"] {
        trio.mesh.faults().at(id).delay(Duration::from_millis(20));
    }
    trio
}

async fn calls(trio: &Trio, idempotent: bool, time: Duration) -> Vec<Call> {
    let load = Load::start(&trio.identity, CALLERS, Duration::ZERO, move || {
        if idempotent { request("1").idempotent() } else { request("1") }
    });
    sleep(time).await;
    load.stop().await
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_at_once_attracts_no_calls_whatever_the_balancer() {
    for balancer in [Balancer::round_robin(), Balancer::least_loaded(), Balancer::weighted()] {
        let trio = beside_a_failing_one(balancer.clone()).await;
        let faults = trio.mesh.faults().at("c");
        faults.fail(Status::internal("broken"));
        let calls = calls(&trio, false, SECOND * 18 / 5).await;
        println!("{balancer:?}: it got {} of {} calls", faults.met(), calls.len());
        assert!(5_000 <= calls.len(), "{} calls", calls.len());
        assert!(0 < faults.met() && faults.met() * 20 <= calls.len() as u64, "{}", faults.met());
        // Nobody said that these may be made twice, and the failure is told as it is.
        let failures = failures(&calls);
        assert_eq!(failures.len() as u64, faults.met());
        assert!(failures.iter().all(|status| status.code() == Code::Internal));

        // Healed it returns, by itself.
        faults.heal();
        trio.until("c", Verdict::is_eligible).await;
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_may_be_made_twice_do_not_fail_with_a_provider_that_refuses_them() {
    for balancer in [Balancer::round_robin(), Balancer::least_loaded()] {
        let trio = beside_a_failing_one(balancer).await;
        let faults = trio.mesh.faults().at("c");
        faults.fail(Status::unavailable("not now"));
        let calls = calls(&trio, true, SECOND * 2).await;
        none_failed(&calls);
        assert!(0 < faults.met() && faults.met() * 20 <= calls.len() as u64, "{}", faults.met());
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_provider_gets_a_hundredth_of_the_calls_by_load() {
    let trio = Trio::balanced(TestMesh::in_memory(), Balancer::least_loaded()).await;
    for (id, millis) in [("a", 1), ("b", 1), ("c", 50)] {
        trio.mesh.faults().at(id).delay(Duration::from_millis(millis));
    }
    let calls = calls(&trio, false, SECOND * 3 / 10).await;
    none_failed(&calls);
    let slow = shares(&calls).get("c").copied().unwrap_or_default();
    let mut took: Vec<_> = calls.iter().map(|call| call.took).collect();
    took.sort_unstable();
    let p99 = took[took.len() * 99 / 100];
    println!("the slow one answered {slow} of {} calls; p99 {p99:?}", calls.len());
    assert!(slow * 100 <= calls.len(), "{slow} of {}", calls.len());
    assert!(p99 <= Duration::from_millis(6), "{p99:?}");
}

/// What is sent again cannot help where nobody can answer, and must not make it worse.
#[tokio::test(start_paused = true)]
async fn a_service_that_is_down_gets_a_tenth_more_attempts_than_calls() {
    let trio = Trio::connected(TestMesh::in_memory()).await;
    let providers = ["a", "b", "c"].map(|id| trio.mesh.faults().at(id));
    for provider in &providers {
        provider.fail(Status::unavailable("down"));
    }
    // Some 500 a second.
    let pause = Duration::from_millis(60);
    let load = Load::start(&trio.identity, CALLERS, pause, || request("1").idempotent());
    sleep(SECOND * 10).await;
    let calls = load.stop().await;
    assert_eq!(failures(&calls).len(), calls.len());
    let attempts: u64 = providers.iter().map(CallFaults::met).sum();
    println!("{attempts} attempts for {} calls", calls.len());
    // And three for each second, those of the budget's first window included.
    let most = calls.len() + calls.len() / 10 + 3 * (10 + 10);
    assert!(calls.len() as u64 <= attempts && attempts <= most as u64, "{attempts} attempts");

    // Up again, by and by.
    trio.mesh.faults().heal();
    let load = Load::start(&trio.identity, CALLERS, pause, || request("1").idempotent());
    sleep(SECOND * 2).await;
    none_failed(&load.stop().await);
}
