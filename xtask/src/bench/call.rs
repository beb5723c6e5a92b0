//! A unary call of 64 bytes, answered at once.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::BenchError;
use super::compare::{Arm, Compared, Load, table};
use super::figures::Round;
use super::options::{Ends, Options};
use super::programs::{Programs, Server};
use super::report::{Report, print};

const IN_FLIGHT: [usize; 4] = [1, 16, 64, 256];
const SECONDS: f64 = 1.5;

pub(super) fn run(workspace: &Path, options: &Options) -> Result<(), BenchError> {
    let programs = Programs::build(workspace)?;
    let mut report = Report::new("call", workspace, options);
    let rounds = options.rounds();
    let seconds = options.seconds(SECONDS);
    let all = if options.ends.is_empty() { &[Ends::Both][..] } else { &options.ends };
    for &ends in all {
        let (peer, aegis) = arms(&programs, ends)?;
        for runtime in options.runtimes() {
            print(&format!(
                "client on {runtime}: {}, {rounds} rounds of {seconds} s, medians (least-greatest round)",
                title(ends)
            ));
            print(&heading());
            let load = |in_flight| Load { runtime, in_flight, seconds, rounds };
            let rows = table(&programs, [&peer, &aegis], load, options.in_flight(&IN_FLIGHT), row)?;
            let what = json!({ "runtime": runtime, "comparison": title(ends) });
            report.add(line(runtime, ends, &rows), details(&what, &rows));
        }
    }
    report.finish(&json!({ "rounds": rounds, "seconds_per_round": seconds }))
}

/// The peer, and what is compared with it.
fn arms(programs: &Programs, ends: Ends) -> Result<(Arm, Arm), BenchError> {
    let arm = |system, served| Ok::<_, BenchError>(Arm::new(system, one(programs, served)?));
    Ok(match ends {
        Ends::Both => (arm("raw", "raw")?, arm("aegis", "aegis")?),
        Ends::Server => (arm("raw", "raw")?, arm("raw", "aegis")?),
        Ends::Client => {
            (arm("raw", "raw")?, Arm { options: vec!["--foreign"], ..arm("aegis", "raw")? })
        }
        Ends::Three => {
            let (raw, aegis) = (three(programs, "raw")?, three(programs, "aegis")?);
            (Arm::new("balance-list", raw), Arm::new("aegis", aegis))
        }
    })
}

/// One provider.
pub(super) fn one(programs: &Programs, system: &str) -> Result<Vec<Server>, BenchError> {
    Ok(vec![programs.serve(system, &[])?])
}

/// Three providers, and of aegis a mesh of three.
fn three(programs: &Programs, system: &str) -> Result<Vec<Server>, BenchError> {
    let first = programs.serve(system, &[])?;
    let mut servers = Vec::new();
    for number in ["2", "3"] {
        let mut options = vec!["--number", number];
        if system == "aegis" {
            options.extend(["--join", &first.address]);
        }
        servers.push(programs.serve(system, &options)?);
    }
    servers.insert(0, first);
    Ok(servers)
}

fn title(ends: Ends) -> &'static str {
    match ends {
        Ends::Both => "aegis over raw tonic",
        Ends::Client => "aegis client over tonic client, of a tonic server",
        Ends::Server => "aegis server over tonic server, under a tonic client",
        Ends::Three => "aegis round robin over tonic's balance_list, three providers",
    }
}

pub(super) fn heading() -> String {
    format!(
        "{:>9} {:>11} {:>11} {:>18} {:>18} {:>18} {:>18}",
        "in flight", "peer/s", "aegis/s", "throughput", "p50", "p99", "CPU per call"
    )
}

pub(super) fn row(in_flight: usize, compared: &Compared) -> String {
    format!(
        "{:>9} {:>11.0} {:>11.0} {:>18} {:>18} {:>18} {:>18}",
        in_flight,
        Round::middle(&compared.peer).per_second,
        Round::middle(&compared.aegis).per_second,
        compared.ratio(|round| round.per_second).to_string(),
        compared.ratio(|round| round.p50).to_string(),
        compared.ratio(|round| round.p99).to_string(),
        compared.ratio(|round| round.cpu).to_string(),
    )
}

/// The ratios by the number of calls in flight.
pub(super) fn ratios(
    rows: &[(usize, Compared)],
    figure: fn(&Round) -> f64,
) -> BTreeMap<String, f64> {
    let ratio = |compared: &Compared| compared.ratio(figure).rounded();
    rows.iter().map(|(in_flight, compared)| (in_flight.to_string(), ratio(compared))).collect()
}

/// What the ratios are of, for each of them; `what` says of which comparison.
pub(super) fn details(what: &Value, rows: &[(usize, Compared)]) -> Vec<Value> {
    let detail = |(in_flight, compared): &(usize, Compared)| {
        let mut detail = compared.detail();
        detail.extend(what.as_object().cloned().unwrap_or_default());
        detail.insert("in_flight".to_owned(), (*in_flight).into());
        Value::Object(detail)
    };
    rows.iter().map(detail).collect()
}

fn line(runtime: &str, ends: Ends, rows: &[(usize, Compared)]) -> Value {
    let mut line = json!({
        "bench": "call",
        "runtime": runtime,
        "throughput_ratio": ratios(rows, |round| round.per_second),
        "p50_ratio": ratios(rows, |round| round.p50),
        "p99_ratio": ratios(rows, |round| round.p99),
        "cpu_ratio": ratios(rows, |round| round.cpu),
    });
    let ends = match ends {
        // The line that scripts know.
        Ends::Both => return line,
        Ends::Client => "client",
        Ends::Server => "server",
        Ends::Three => "three",
    };
    if let Some(line) = line.as_object_mut() {
        line.insert("ends".to_owned(), ends.into());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_ratios_by_calls_in_flight_and_names_the_ends_unless_both_are_ours() {
        let rows = IN_FLIGHT.map(|in_flight| (in_flight, Compared::made_up()));
        let ratios = |ratio: f64| json!({ "1": ratio, "16": ratio, "64": ratio, "256": ratio });
        let mut expected = json!({
            "bench": "call",
            "runtime": "current_thread",
            "throughput_ratio": ratios(2.0),
            "p50_ratio": ratios(0.75),
            "p99_ratio": ratios(0.5),
            "cpu_ratio": ratios(0.25),
        });
        assert_eq!(line("current_thread", Ends::Both, &rows), expected);
        for (ends, name) in
            [(Ends::Client, "client"), (Ends::Server, "server"), (Ends::Three, "three")]
        {
            expected["ends"] = name.into();
            assert_eq!(line("current_thread", ends, &rows), expected);
        }
    }
}
