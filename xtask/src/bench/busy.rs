//! A unary call whose handler burns CPU before it answers: what a server that runs handlers on its connections' tasks
//! must not lose by it.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::BenchError;
use super::call::{details, heading, ratios, row};
use super::compare::{Arm, Compared, Load, table};
use super::figures::Round;
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
        let (mut measured, mut detail) = (Vec::new(), Vec::new());
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
            detail.extend(details(&json!({ "runtime": runtime, "burn": burn }), &rows));
            measured.push((burn.as_str(), rows));
        }
        report.add(line(runtime, &measured), detail);
    }
    report.finish(&json!({ "rounds": rounds, "seconds_per_round": seconds }))
}

/// The line that scripts know, of the rows of each burn.
fn line(runtime: &str, measured: &[(&str, Vec<(usize, Compared)>)]) -> Value {
    let by_burn = |figure: fn(&Round) -> f64| {
        let ratios = measured.iter().map(|(burn, rows)| (*burn, ratios(rows, figure)));
        ratios.collect::<BTreeMap<_, _>>()
    };
    json!({
        "bench": "busy",
        "runtime": runtime,
        "throughput_ratio": by_burn(|round| round.per_second),
        "p99_ratio": by_burn(|round| round.p99),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_ratios_by_burn_and_by_calls_in_flight() {
        let rows = || IN_FLIGHT.map(|in_flight| (in_flight, Compared::made_up())).into();
        let measured = BURNS.map(|burn| (burn, rows()));
        let ratios = |ratio: f64| {
            let each = || json!({ "16": ratio, "64": ratio, "256": ratio });
            json!({
                "20us": each(),
                "200us": each(),
                "2ms": each(),
                "2ms@1/100": each(),
                "20ms@1/1000": each(),
            })
        };
        let expected = json!({
            "bench": "busy",
            "runtime": "multi_thread",
            "throughput_ratio": ratios(2.0),
            "p99_ratio": ratios(0.5),
        });
        assert_eq!(line("multi_thread", &measured), expected);
    }
}
