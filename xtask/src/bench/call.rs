//! A unary call of 64 bytes, answered at once.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use super::figures::{Ratio, Round, tenths};
use super::programs::{Programs, Server};
use super::{BenchError, Plan};

const SYSTEMS: [&str; 2] = ["raw", "aegis"];

/// The rounds of both systems under the same load.
struct Compared {
    in_flight: usize,
    raw: Vec<Round>,
    aegis: Vec<Round>,
}

impl Compared {
    fn ratio(&self, figure: impl Fn(&Round) -> f64) -> Ratio {
        Ratio::of(&self.aegis, &self.raw, figure)
    }

    /// For whoever wants to know what the ratios are of.
    fn detail(&self) -> Value {
        let system = |rounds: &[Round]| {
            let middle = Round::middle(rounds);
            json!({
                "per_second": middle.per_second.round(),
                "p50_us": tenths(middle.p50),
                "p99_us": tenths(middle.p99),
                "cpu_us": tenths(middle.cpu),
            })
        };
        let ratio = |figure: fn(&Round) -> f64| self.ratio(figure).detail();
        json!({
            "in_flight": self.in_flight,
            "raw": system(&self.raw),
            "aegis": system(&self.aegis),
            "throughput_ratio": ratio(|round| round.per_second),
            "p50_ratio": ratio(|round| round.p50),
            "p99_ratio": ratio(|round| round.p99),
            "cpu_ratio": ratio(|round| round.cpu),
        })
    }
}

/// The rounds with the client on one runtime.
struct Measured<'a> {
    runtime: &'a str,
    compared: Vec<Compared>,
}

pub(super) fn run(workspace: &Path, plan: &Plan) -> Result<(), BenchError> {
    let started = Instant::now();
    let certificates = std::env::temp_dir().join(format!("aegis-bench-{}", std::process::id()));
    let outcome = measure(workspace, &certificates, plan);
    // What is left of it is a development CA that nothing trusts.
    drop(fs::remove_dir_all(&certificates));
    let measured = outcome?;
    if plan.save {
        save(workspace, plan, &measured, started)?;
    }
    if plan.json {
        for Measured { runtime, compared } in &measured {
            print(&line(runtime, compared));
        }
    }
    Ok(())
}

fn measure<'a>(
    workspace: &Path,
    certificates: &Path,
    plan: &'a Plan,
) -> Result<Vec<Measured<'a>>, BenchError> {
    let programs = Programs::build(workspace, certificates)?;
    let servers = [programs.serve(SYSTEMS[0])?, programs.serve(SYSTEMS[1])?];
    let mut measured = Vec::new();
    for runtime in &plan.runtimes {
        print(&format!(
            "client on {runtime}: aegis over raw tonic, {} rounds of {:?}, medians (least-greatest round)",
            plan.rounds, plan.measured
        ));
        print(&format!(
            "{:>9} {:>11} {:>11} {:>18} {:>18} {:>18} {:>18}",
            "in flight", "raw/s", "aegis/s", "throughput", "p50", "p99", "CPU per call"
        ));
        let mut compared = Vec::new();
        for &in_flight in &plan.in_flight {
            let rounds = compare(&programs, &servers, runtime, in_flight, plan)?;
            print(&row(&rounds));
            compared.push(rounds);
        }
        measured.push(Measured { runtime, compared });
    }
    Ok(measured)
}

/// Both in turns; who begins changes from round to round.
fn compare(
    programs: &Programs,
    servers: &[Server; 2],
    runtime: &str,
    in_flight: usize,
    plan: &Plan,
) -> Result<Compared, BenchError> {
    let mut compared = Compared { in_flight, raw: Vec::new(), aegis: Vec::new() };
    for round in 0..plan.rounds {
        let (raw, aegis) = (&servers[0], &servers[1]);
        let mut turns =
            [(SYSTEMS[0], raw, &mut compared.raw), (SYSTEMS[1], aegis, &mut compared.aegis)];
        if round % 2 == 1 {
            turns.reverse();
        }
        for (system, server, rounds) in turns {
            rounds.push(call(programs, system, server, runtime, in_flight, plan)?);
        }
    }
    Ok(compared)
}

fn call(
    programs: &Programs,
    system: &'static str,
    server: &Server,
    runtime: &str,
    in_flight: usize,
    plan: &Plan,
) -> Result<Round, BenchError> {
    let (in_flight, pid) = (in_flight.to_string(), server.pid());
    let seconds = plan.measured.as_secs_f64().to_string();
    let arguments = [
        "call",
        system,
        "--address",
        &server.address,
        "--server-pid",
        &pid,
        "--runtime",
        runtime,
        "--in-flight",
        &in_flight,
        "--seconds",
        &seconds,
    ];
    let text = programs.output(&arguments)?;
    let unread = |why: &dyn Display| BenchError::Program {
        program: arguments.join(" "),
        text: format!("it printed {text:?}: {why}"),
    };
    let printed: Value = serde_json::from_str(&text).map_err(|error| unread(&error))?;
    let figure = |name: &str| {
        printed.get(name).and_then(Value::as_f64).ok_or_else(|| unread(&format!("no {name}")))
    };
    let count = |name: &str| printed.get(name).and_then(Value::as_u64).unwrap_or_default();
    // A system that fails is quick.
    if count("failed") != 0 || count("calls") == 0 {
        let first = printed.get("failure").and_then(Value::as_str).unwrap_or("no call ended");
        return Err(BenchError::Failed {
            system,
            failed: count("failed"),
            calls: count("failed") + count("calls"),
            first: first.to_owned(),
        });
    }
    Ok(Round {
        per_second: figure("per_second")?,
        p50: figure("p50_us")?,
        p99: figure("p99_us")?,
        cpu: figure("client_cpu_us")? + figure("server_cpu_us")?,
    })
}

fn row(compared: &Compared) -> String {
    format!(
        "{:>9} {:>11.0} {:>11.0} {:>18} {:>18} {:>18} {:>18}",
        compared.in_flight,
        Round::middle(&compared.raw).per_second,
        Round::middle(&compared.aegis).per_second,
        compared.ratio(|round| round.per_second).to_string(),
        compared.ratio(|round| round.p50).to_string(),
        compared.ratio(|round| round.p99).to_string(),
        compared.ratio(|round| round.cpu).to_string(),
    )
}

fn line(runtime: &str, compared: &[Compared]) -> Value {
    let ratios = |figure: fn(&Round) -> f64| -> BTreeMap<String, f64> {
        compared.iter().map(|it| (it.in_flight.to_string(), it.ratio(figure).rounded())).collect()
    };
    json!({
        "bench": "call",
        "runtime": runtime,
        "throughput_ratio": ratios(|round| round.per_second),
        "p50_ratio": ratios(|round| round.p50),
        "p99_ratio": ratios(|round| round.p99),
        "cpu_ratio": ratios(|round| round.cpu),
    })
}

/// Keeps the result beside the code that it is of.
fn save(
    workspace: &Path,
    plan: &Plan,
    measured: &[Measured<'_>],
    started: Instant,
) -> Result<(), BenchError> {
    let directory = workspace.join("docs").join("results");
    let path = directory.join("call.json");
    let results: Vec<_> = measured.iter().map(|it| line(it.runtime, &it.compared)).collect();
    let detail = measured.iter().map(|Measured { runtime, compared }| {
        json!({ "runtime": runtime, "loads": compared.iter().map(Compared::detail).collect::<Vec<_>>() })
    });
    let result = json!({
        "command": "cargo xtask bench call --save",
        "rounds": plan.rounds,
        "seconds_per_round": plan.measured.as_secs_f64(),
        "commit": said_by(workspace, "git", &["rev-parse", "--short=12", "HEAD"]),
        "machine": said_by(workspace, "uname", &["-srm"]),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "took_seconds": started.elapsed().as_secs(),
        "results": results,
        "detail": detail.collect::<Vec<_>>(),
    });
    let failed = |source| BenchError::Write { path: path.display().to_string(), source };
    fs::create_dir_all(&directory).map_err(failed)?;
    fs::write(&path, format!("{result:#}\n")).map_err(failed)
}

fn said_by(workspace: &Path, program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(workspace).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

#[expect(clippy::print_stdout, reason = "a command talks to its user")]
fn print(line: &impl Display) {
    println!("{line}");
}
