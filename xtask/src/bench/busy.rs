//! A unary call whose handler burns CPU before it answers: what a server that runs handlers on its connections' tasks
//! must not lose by it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use super::BenchError;
use super::call::{details, heading, ratios, row};
use super::compare::{Arm, Load, table};
use super::options::Options;
use super::programs::Programs;
use super::report::{Report, print};

/// Every call, or one of so many.
const BURNS: [&str; 5] = ["20us", "200us", "2ms", "2ms@1/100", "20ms@1/1000"];
const IN_FLIGHT: [usize; 3] = [16, 64, 256];
const SECONDS: f64 = 1.0;

pub(super) fn run(workspace: &Path, options: &Options) -> Result<(), BenchError> {
    let programs = Programs::build(workspace)?;
    let mut report = Report::new("busy", workspace, options);
    let rounds = options.rounds();
    let seconds = options.seconds(SECONDS);
    let burns = if options.burns.is_empty() {
        BURNS.map(str::to_owned).to_vec()
    } else {
        options.burns.clone()
    };
    for runtime in options.runtimes() {
        let (mut throughput, mut p99) = (BTreeMap::new(), BTreeMap::new());
        let mut detail = Vec::new();
        for burn in &burns {
            print(&format!(
                "handler burns {burn}, client on {runtime}: aegis over raw tonic, {rounds} rounds of {seconds} s, medians \
                 (least-greatest round)"
            ));
            print(&heading());
            let arm = |system| {
                let servers = vec![programs.serve(system, &["--burn", burn])?];
                Ok::<_, BenchError>(Arm::new(system, servers))
            };
            let (peer, aegis) = (arm("raw")?, arm("aegis")?);
            let load = |in_flight| Load { runtime, in_flight, seconds, rounds };
            let rows = table(&programs, [&peer, &aegis], load, options.in_flight(&IN_FLIGHT), row)?;
            throughput.insert(burn, ratios(&rows, |round| round.per_second));
            p99.insert(burn, ratios(&rows, |round| round.p99));
            detail.extend(details(&json!({ "runtime": runtime, "burn": burn }), &rows));
        }
        let line = json!({
            "bench": "busy",
            "runtime": runtime,
            "throughput_ratio": throughput,
            "p99_ratio": p99,
        });
        report.add(line, detail);
    }
    report.finish(&json!({ "rounds": rounds, "seconds_per_round": seconds }))
}
