//! Several providers, one after another killed, stopped, drained and restarted, and one consumer that joins only one of them.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use crate::process::{Consumer, Provider, Report, scaled};

/// Three providers that know each other through the first.
fn three(cert_dir: &std::path::Path, more: &[&str]) -> [Provider; 3] {
    let a = Provider::start("morpheus-1", cert_dir, &[], more);
    let b = Provider::start("morpheus-2", cert_dir, &[&a.address], more);
    let c = Provider::start("morpheus-3", cert_dir, &[&a.address], more);
    [a, b, c]
}

#[track_caller]
fn check_all_ok(report: &Report) {
    println!("{report:?}");
    assert_eq!((report.ok, report.failed.len()), (report.calls, 0), "{report:?}");
}

#[test]
fn calls_are_shared_evenly_by_providers_found_through_one() {
    let dir = tempfile::tempdir().unwrap();
    let [a, _b, _c] = three(dir.path(), &[]);
    let report = Consumer::run(
        dir.path(),
        &a.address,
        &["--wait-for", "3", "--calls", "3000", "--concurrency", "16"],
    );
    check_all_ok(&report);
    assert_eq!(report.by_provider.len(), 3, "{report:?}");
    for (provider, calls) in &report.by_provider {
        assert!((999..=1001).contains(calls), "{provider} got {calls} of 3,000 calls");
    }
}

#[test]
fn a_consumer_explains_each_provider_when_it_is_asked_to() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c] = three(dir.path(), &[]);
    let load = ["--wait-for", "3", "--calls", "30", "--explain", "--json"];
    let report = Consumer::run(dir.path(), &a.address, &load);
    check_all_ok(&report);
    for (id, provider) in [("morpheus-1", &a), ("morpheus-2", &b), ("morpheus-3", &c)] {
        let line = report.explanation.lines().find(|line| line.contains(id)).unwrap();
        assert!(line.contains(&provider.address) && line.contains("10 picks"), "{line}");
    }
    let silent = Consumer::run(dir.path(), &a.address, &["--json"]);
    assert_eq!((silent.explanation.as_str(), silent.remarks.as_str()), ("", ""));
}

#[test]
fn a_consumer_balances_by_the_rule_that_it_is_given() {
    let dir = tempfile::tempdir().unwrap();
    let a = Provider::start("morpheus-1", dir.path(), &[], &[]);
    let slow = ["--delay", "200ms", "--weight", "300"];
    let _slow = Provider::start("morpheus-2", dir.path(), &[&a.address], &slow);
    let share = |rule: &str| {
        let load = ["--wait-for", "2", "--calls", "200", "--concurrency", "10", "--balance", rule];
        let report = Consumer::run(dir.path(), &a.address, &load);
        check_all_ok(&report);
        report.by_provider.get("morpheus-2").copied().unwrap_or_default()
    };
    assert_eq!((share("round-robin"), share("weighted")), (100, 150));
    let slow = share("least-loaded");
    assert!(slow < 40, "the slow one got {slow} of 200 calls");
}

#[test]
fn a_killed_provider_costs_only_the_calls_on_its_wire_and_serves_again_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, _c] = three(dir.path(), &[]);
    let load = [
        "--wait-for",
        "3",
        "--rate",
        "600",
        "--duration",
        "6",
        "--calls",
        "3000",
        "--concurrency",
        "8",
    ];
    let begun = std::time::Instant::now();
    let consumer = Consumer::start(dir.path(), &a.address, &load);
    std::thread::sleep(Duration::from_millis(1_500));
    let address = b.address.clone();
    b.kill();
    let killed = u32::try_from(begun.elapsed().as_millis()).unwrap();
    let _again = Provider::start_at("morpheus-2", &address, dir.path(), &[&a.address], &[]);
    let report = consumer.report(Duration::from_secs(30));
    println!("{report:?}");
    // At most the calls in flight on the killed node: one for each worker.
    assert!(report.calls - report.ok <= 8, "{report:?}");
    assert!(report.failed.keys().all(|code| code == "UNAVAILABLE"), "{report:?}");
    let said = report.remarks.lines().filter(|line| line.starts_with("first UNAVAILABLE"));
    assert!(said.clone().all(|line| line.contains("node morpheus-2")), "{report:?}");
    assert_eq!(said.count(), report.failed.len());
    assert_eq!(report.failed_elsewhere("morpheus-2"), 0, "{report:?}");
    // Whatever failed was in flight when the node died: nothing failed later, while it was away.
    assert!(report.last_failed_ms < f64::from(killed) + 300.0, "{report:?}");
    assert_eq!(report.by_provider.len(), 3, "{report:?}");
    // It was one of three for about 1.5 s, away for at most 3 s, and one of three again.
    assert!(500 < report.by_provider["morpheus-2"], "{report:?}");
}

/// It ended without a word: who joins now finds it in the directory, and its port refuses.
#[test]
fn a_killed_provider_that_stays_away_costs_no_call_of_one_who_joins() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, _c] = three(dir.path(), &[]);
    let address = b.address.clone();
    b.kill();
    let calls = scaled(3_000, 10_000).to_string();
    let load = ["--calls", &calls, "--concurrency", "20", "--explain"];
    let report = Consumer::run(dir.path(), &a.address, &load);
    check_all_ok(&report);
    assert_eq!(report.calls.to_string(), calls);
    let share = report.calls / 2 - 20..=report.calls / 2 + 20;
    for provider in ["morpheus-1", "morpheus-3"] {
        assert!(share.contains(&report.by_provider[provider]), "{report:?}");
    }
    // It was dialled, or nothing is shown.
    let line = report.explanation.lines().find(|line| line.contains("morpheus-2"));
    let line = line.unwrap_or_else(|| panic!("it was not known: {report:?}"));
    println!("{line}");
    assert!(line.contains(&address) && line.contains("refused"), "{line}");
}

#[test]
fn a_drained_provider_costs_nothing_and_exits_with_zero() {
    let dir = tempfile::tempdir().unwrap();
    let [a, mut b, _c] = three(dir.path(), &["--delay", "20ms"]);
    let consumer = Consumer::start(
        dir.path(),
        &a.address,
        &["--wait-for", "3", "--duration", "4", "--concurrency", "16"],
    );
    std::thread::sleep(Duration::from_millis(1_500));
    b.signal("TERM");
    assert!(b.wait(Duration::from_secs(10)).success());
    let report = consumer.report(Duration::from_secs(30));
    check_all_ok(&report);
    assert_eq!(report.by_provider.len(), 3, "{report:?}");
}

#[test]
fn a_stopped_provider_gets_no_new_calls_and_no_call_outlives_its_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, _c] = three(dir.path(), &[]);
    let load = [
        "--wait-for",
        "3",
        "--duration",
        "6",
        "--rate",
        "300",
        "--concurrency",
        "200",
        "--deadline",
        "1s",
        "--explain",
    ];
    let consumer = Consumer::start(dir.path(), &a.address, &load);
    std::thread::sleep(Duration::from_millis(1_500));
    b.signal("STOP");
    let report = consumer.report(Duration::from_secs(30));
    b.signal("CONT");
    println!("{report:?}");
    assert!(
        report.failed.keys().all(|code| code == "DEADLINE_EXCEEDED" || code == "UNAVAILABLE"),
        "{report:?}"
    );
    // It is found out after 1 s of silence and 1 s without an answer. Until then it is given a third of 300 calls a second;
    // the other callers are free, so nobody else's calls wait for it.
    let failed = report.calls - report.ok;
    assert_eq!(report.failed_elsewhere("morpheus-2"), 0, "{report:?}");
    assert!((100..=240).contains(&failed), "{report:?}");
    assert!(1_700 < report.calls, "{report:?}");
    // Stopped 1.5 s after the consumer's start at the latest, and each call had 1 s.
    assert!(report.last_failed_ms < 5_000.0, "{report:?}");
    let line = report.explanation.lines().find(|line| line.contains("morpheus-2")).unwrap();
    let picks = report.by_provider["morpheus-2"] + failed;
    assert!(line.contains("stalled") && line.contains(&format!("({picks} picks")), "{line}");
    // A second, and what a loaded machine needs to notice.
    assert!(report.slowest_ms() < 1_500.0, "{report:?}");
}

/// SIGSTOP for five seconds, then SIGCONT.
#[test]
fn calls_without_a_deadline_outlive_a_provider_that_stands_still_for_five_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, _c] = three(dir.path(), &[]);
    let load = ["--wait-for", "3", "--duration", "9", "--rate", "300", "--concurrency", "20"];
    let consumer = Consumer::start(dir.path(), &a.address, &load);
    std::thread::sleep(Duration::from_millis(1_500));
    b.signal("STOP");
    std::thread::sleep(Duration::from_secs(5));
    b.signal("CONT");
    let report = consumer.report(Duration::from_secs(30));
    check_all_ok(&report);
    // Some waited for it, and the others were not sent there.
    assert!(2_500.0 < report.slowest_ms() && report.slowest_ms() < 6_500.0, "{report:?}");
    assert!(1_800 < report.calls, "{report:?}");
    assert_eq!(report.by_provider.len(), 3, "{report:?}");
}

/// One is stopped and another one killed, and what was with them is made again elsewhere.
#[test]
fn calls_that_may_be_made_twice_do_not_fail_with_a_stopped_or_killed_provider() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c] = three(dir.path(), &[]);
    let load = ["--idempotent", "--deadline", "5s", "--wait-for", "3", "--duration", "8"];
    let pace = ["--concurrency", "20", "--rate", "400"];
    let consumer = Consumer::start(dir.path(), &a.address, &[&load[..], &pace[..]].concat());
    std::thread::sleep(Duration::from_millis(1_500));
    b.signal("STOP");
    std::thread::sleep(Duration::from_secs(4));
    c.kill();
    let report = consumer.report(Duration::from_secs(30));
    b.signal("CONT");
    check_all_ok(&report);
    assert_eq!(report.by_provider.len(), 3, "{report:?}");
    assert!(2_000 < report.calls, "{report:?}");
}

#[test]
fn a_deadline_ends_every_call_with_its_code() {
    let dir = tempfile::tempdir().unwrap();
    let a = Provider::start("morpheus-1", dir.path(), &[], &["--delay", "2s"]);
    let report = Consumer::run(
        dir.path(),
        &a.address,
        &["--calls", "20", "--concurrency", "20", "--deadline", "200ms"],
    );
    assert_eq!(report.failed.get("DEADLINE_EXCEEDED"), Some(&20), "{report:?}");
    assert!(report.slowest_ms() < 1_000.0, "{report:?}");
}

/// `AEGIS_SEED` replays the orders.
#[test]
fn provider_and_consumer_may_start_in_any_order() {
    let seed = std::env::var("AEGIS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("AEGIS_SEED={seed}");
    let mut random = seed;
    for round in 0..20 {
        // A linear congruential generator; its high bits are good enough to draw an order and a pause.
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let dir = tempfile::tempdir().unwrap();
        let address = free_address();
        let calls = ["--no-wait", "--calls", "20", "--concurrency", "4"];
        let pause = Duration::from_millis((random >> 33) % 500);
        let report = if random >> 63 == 0 {
            let consumer = Consumer::start(dir.path(), &address, &calls);
            std::thread::sleep(pause);
            let _provider = Provider::start_at("morpheus-1", &address, dir.path(), &[], &[]);
            consumer.report(Duration::from_secs(30))
        } else {
            let provider = Provider::begin("morpheus-1", &address, dir.path(), &[], &[]);
            std::thread::sleep(pause);
            let report = Consumer::run(dir.path(), &address, &calls);
            drop(provider);
            report
        };
        assert!(report.failed.is_empty(), "AEGIS_SEED={seed}, round {round}: {report:?}");
    }
}

#[test]
fn processes_that_start_together_in_an_empty_directory_share_one_ca() {
    for _ in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let first = free_address();
        let begin = |number: usize| {
            let (address, join) = if number == 0 {
                (first.as_str(), vec![])
            } else {
                ("127.0.0.1:0", vec![first.as_str()])
            };
            Provider::begin(&format!("node-{number}"), address, dir.path(), &join, &[])
        };
        let starting: Vec<_> = (0..16).map(begin).collect();
        let _nodes: Vec<_> = starting.into_iter().map(Provider::listening).collect();
        // Each has joined the first over mutual TLS and answers the consumer: with a CA of its own it could do neither.
        let report = Consumer::run(dir.path(), &first, &["--wait-for", "16", "--calls", "160"]);
        check_all_ok(&report);
        assert_eq!(report.by_provider.len(), 16, "{report:?}");
    }
}

/// An address that was free a moment ago: others have to know it before anybody listens there.
fn free_address() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// The hard case: few calls, one at a time, so that the connection to the stopped node is mostly idle.
#[test]
fn a_stopped_provider_is_noticed_by_a_slow_caller_too() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, _c] = three(dir.path(), &[]);
    let load = ["--wait-for", "3", "--duration", "12", "--rate", "4", "--deadline", "300ms"];
    let consumer = Consumer::start(dir.path(), &a.address, &load);
    std::thread::sleep(Duration::from_secs(1));
    b.signal("STOP");
    let report = consumer.report(Duration::from_secs(30));
    b.signal("CONT");
    println!("{report:?}");
    assert!(report.failed.keys().all(|code| code == "DEADLINE_EXCEEDED"), "{report:?}");
    // At a third of four calls a second it gets one each 750 ms: 3 s after the first, nobody calls it any more.
    assert!(report.last_failed_ms < 6_000.0, "{report:?}");
}
