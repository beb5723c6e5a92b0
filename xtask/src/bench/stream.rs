//! Streams, and small calls beside large ones.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::BenchError;
use super::call::{details, one, ratios};
use super::compare::{Arm, Compared, Load, call, table};
use super::figures::{Round, thousandths};
use super::options::Options;
use super::programs::Programs;
use super::report::{Report, print, progress};

/// Of a message, in bytes.
const SIZES: [(&str, &str); 2] = [("64B", "64"), ("1MiB", "1048576")];
/// How many are read at a time.
const STREAMS: [usize; 2] = [1, 4];
/// Streams of large messages beside a small call.
const BULK: &str = "4";
const SECONDS: f64 = 1.0;

pub(super) fn run(workspace: &Path, options: &Options) -> Result<(), BenchError> {
    let programs = Programs::build(workspace)?;
    let mut report = Report::new("stream", workspace, options);
    let rounds = options.rounds();
    let seconds = options.seconds(SECONDS);
    let arm = |system| Ok::<_, BenchError>(Arm::new(system, one(&programs, system)?));
    let (mut peer, mut aegis) = (arm("raw")?, arm("aegis")?);
    for runtime in options.runtimes() {
        let (mut throughput, mut detail) = (BTreeMap::new(), Vec::new());
        for (size, bytes) in SIZES {
            print(&format!(
                "streams of {size} messages, client on {runtime}: aegis over raw tonic, {rounds} rounds of {seconds} s, \
                 medians (least-greatest round)"
            ));
            print(&format!(
                "{:>9} {:>11} {:>11} {:>18} {:>18}",
                "streams", "peer/s", "aegis/s", "throughput", "CPU per message"
            ));
            for arm in [&mut peer, &mut aegis] {
                arm.work = "stream";
                arm.options = vec!["--size", bytes];
            }
            let load = |in_flight| Load { runtime, in_flight, seconds, rounds };
            let rows = table(&programs, [&peer, &aegis], load, options.in_flight(&STREAMS), row)?;
            throughput.insert(size, ratios(&rows, |round| round.per_second));
            detail.extend(details(&json!({ "runtime": runtime, "message": size }), &rows));
        }
        print(&format!(
            "a small call alone, and beside {BULK} streams of 1 MiB messages, client on {runtime}: p50"
        ));
        let mut beside = BTreeMap::new();
        for (system, arm) in [("raw", &mut peer), ("aegis", &mut aegis)] {
            arm.work = "call";
            let (mut alone, mut crowded) = (Vec::new(), Vec::new());
            for round in 0..rounds {
                progress(&format!("{system}: round {} of {rounds}", round + 1));
                let load = Load { runtime, in_flight: 1, seconds, rounds };
                arm.options = Vec::new();
                alone.push(call(&programs, arm, load)?);
                arm.options = vec!["--bulk", BULK];
                crowded.push(call(&programs, arm, load)?);
            }
            progress("");
            let (alone, crowded) = (Round::middle(&alone), Round::middle(&crowded));
            let ratio = thousandths(crowded.p50 / alone.p50);
            print(&format!(
                "{system:>9} {:>9.0} us alone, {:>9.0} us beside (p99 {:.0} us): {ratio:.2}",
                alone.p50, crowded.p50, crowded.p99
            ));
            beside.insert(system, ratio);
            detail.push(json!({
                "runtime": runtime,
                "system": system,
                "small_call_alone_p50_us": alone.p50.round(),
                "small_call_beside_bulk_p50_us": crowded.p50.round(),
                "small_call_beside_bulk_p99_us": crowded.p99.round(),
            }));
        }
        let line = json!({
            "bench": "stream",
            "runtime": runtime,
            "throughput_ratio": throughput,
            "small_call_p50_beside_bulk": beside,
        });
        report.add(line, detail);
    }
    report.finish(&json!({ "rounds": rounds, "seconds_per_round": seconds }))
}

fn row(streams: usize, compared: &Compared) -> String {
    format!(
        "{streams:>9} {:>11.0} {:>11.0} {:>18} {:>18}",
        Round::middle(&compared.peer).per_second,
        Round::middle(&compared.aegis).per_second,
        compared.ratio(|round| round.per_second).to_string(),
        compared.ratio(|round| round.cpu).to_string(),
    )
}
