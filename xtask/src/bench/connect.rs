//! A new connection for each call: address, TLS, HTTP/2 and the first answer.

use std::path::Path;

use serde_json::json;

use super::BenchError;
use super::call::{details, heading, one, ratios, row};
use super::compare::{Arm, Load, table};
use super::options::Options;
use super::programs::Programs;
use super::report::{Report, print};

const IN_FLIGHT: [usize; 2] = [1, 8];
const SECONDS: f64 = 1.0;

pub(super) fn run(workspace: &Path, options: &Options) -> Result<(), BenchError> {
    let programs = Programs::build(workspace)?;
    let mut report = Report::new("connect", workspace, options);
    let rounds = options.rounds();
    let seconds = options.seconds(SECONDS);
    let arm = |system, options| {
        let servers = one(&programs, system)?;
        Ok::<_, BenchError>(Arm { work: "connect", options, ..Arm::new(system, servers) })
    };
    // A pool with seeds makes a second connection, to learn the mesh.
    let (peer, aegis) = (arm("raw", Vec::new())?, arm("aegis", vec!["--fixed"])?);
    for runtime in options.runtimes() {
        print(&format!(
            "a new client and connection for each call, client on {runtime}: aegis over raw tonic, {rounds} rounds of \
             {seconds} s, medians (least-greatest round)"
        ));
        print(&heading());
        let load = |in_flight| Load { runtime, in_flight, seconds, rounds };
        let rows = table(&programs, [&peer, &aegis], load, options.in_flight(&IN_FLIGHT), row)?;
        let line = json!({
            "bench": "connect",
            "runtime": runtime,
            "throughput_ratio": ratios(&rows, |round| round.per_second),
            "p50_ratio": ratios(&rows, |round| round.p50),
            "p99_ratio": ratios(&rows, |round| round.p99),
            "cpu_ratio": ratios(&rows, |round| round.cpu),
        });
        report.add(line, details(&json!({ "runtime": runtime }), &rows));
    }
    report.finish(&json!({ "rounds": rounds, "seconds_per_round": seconds }))
}
