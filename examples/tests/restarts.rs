//! Three providers of which one after the other is restarted, or one is killed again and again, under twenty callers.
//!
//! Once here; 20 rounds and 50 kills, and more calls, with `AEGIS_FULL` in the environment.

use std::path::Path;
use std::time::Duration;

use crate::process::{Consumer, Provider, Report, scaled};

/// What one restart takes, and the calls after it.
const STEP: Duration = Duration::from_millis(2_500);
const BEFORE: Duration = Duration::from_millis(1_500);
const CALLERS: u64 = 20;
/// Far longer than a provider takes to end.
const LIMIT: Duration = Duration::from_secs(30);

/// Providers `morpheus-1` to `-3` and a consumer of them.
struct Story<'a> {
    dir: &'a Path,
    /// How long a call is with its provider.
    delay: String,
    providers: [Provider; 3],
    consumer: Consumer,
}

impl<'a> Story<'a> {
    /// Calls go on for so many steps.
    fn start(dir: &'a Path, steps: u32, rate: u32, delay: &str, more: &[&str]) -> Self {
        let serve = ["--delay", delay];
        let a = Provider::start("morpheus-1", dir, &[], &serve);
        let [b, c] = ["morpheus-2", "morpheus-3"].map(|id| {
            // Whoever is restarted has to find somebody who is there.
            Provider::start(id, dir, &[&a.address], &serve)
        });
        let seconds = (BEFORE + steps * STEP + BEFORE).as_secs_f64().to_string();
        let (callers, rate) = (CALLERS.to_string(), rate.to_string());
        let load = ["--wait-for", "3", "--concurrency", &callers, "--rate", &rate];
        let load = [&load[..], &["--duration", &seconds], more].concat();
        let consumer = Consumer::start(dir, &a.address, &load);
        std::thread::sleep(BEFORE);
        Self { dir, delay: delay.to_owned(), providers: [a, b, c], consumer }
    }

    /// Ends a provider, and starts it again where it was.
    fn restart(&mut self, index: usize, end: impl FnOnce(&mut Provider)) {
        let seed = self.providers[(index + 1) % 3].address.clone();
        let provider = &mut self.providers[index];
        end(provider);
        let (id, address) = (format!("morpheus-{}", index + 1), provider.address.clone());
        let serve = ["--delay", &self.delay];
        *provider = Provider::start_at(&id, &address, self.dir, &[&seed], &serve);
        std::thread::sleep(STEP * 4 / 5);
    }

    fn end(self) -> Report {
        let report = self.consumer.report(Duration::from_secs(120));
        println!("{report:?}");
        // Each was there for most of the time.
        assert_eq!(report.by_provider.len(), 3, "{report:?}");
        assert!(report.by_provider.values().all(|calls| report.calls / 6 < *calls), "{report:?}");
        report
    }
}

#[test]
fn a_rolling_restart_of_all_three_fails_no_call() {
    let (dir, rounds) = (tempfile::tempdir().unwrap(), scaled(1, 20));
    let mut story = Story::start(dir.path(), 3 * rounds, 600, "0", &[]);
    for _ in 0..rounds {
        for index in 0..3 {
            story.restart(index, |provider| {
                provider.signal("TERM");
                assert!(provider.wait(LIMIT).success());
            });
        }
    }
    let report = story.end();
    assert_eq!(report.ok, report.calls, "{report:?}");
}

fn kill_again_and_again(more: &[&str]) -> (u64, Report) {
    let (dir, kills) = (tempfile::tempdir().unwrap(), scaled(2, 50));
    // So that each has about five calls at a time, and three quarters of the callers wait for one.
    let (rate, delay) = (scaled(600, 2_000), format!("{}ms", scaled(25, 8)));
    let mut story = Story::start(dir.path(), kills, rate, &delay, more);
    for _ in 0..kills {
        story.restart(1, |provider| {
            provider.signal("KILL");
            // Its port is free when it has ended.
            assert!(!provider.wait(LIMIT).success());
        });
    }
    (kills.into(), story.end())
}

#[test]
fn a_provider_that_is_killed_again_and_again_costs_no_call_that_may_be_made_twice() {
    let (_, report) = kill_again_and_again(&["--idempotent"]);
    assert_eq!(report.ok, report.calls, "{report:?}");
}

#[test]
fn a_provider_that_is_killed_again_and_again_costs_only_the_calls_that_were_with_it() {
    let (kills, report) = kill_again_and_again(&[]);
    assert!(report.ok < report.calls, "no call was with it, which shows nothing: {report:?}");
    assert!(report.calls - report.ok <= kills * CALLERS, "{report:?}");
    assert!(report.failed.keys().all(|code| code == "UNAVAILABLE"), "{report:?}");
    assert_eq!(report.failed_elsewhere("morpheus-2"), 0, "{report:?}");
}
