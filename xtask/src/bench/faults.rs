//! Three providers of which one does what providers do: refuse, fail, dawdle, hang, restart, die.
//!
//! All systems meet the same fault at the same moment of a run, in turns. What is told of a case is of all its rounds.

use std::collections::BTreeMap;
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::BenchError;
use super::options::Options;
use super::programs::{Client, Programs, Server};
use super::report::{Report, print, progress};
use super::summary::{Summary, heading};

const ROUNDS: usize = 3;
const PROVIDERS: usize = 3;

/// A client, and the providers that it is for.
#[derive(Clone, Copy)]
pub(crate) struct System {
    /// What it is called in the report.
    name: &'static str,
    client: &'static str,
    server: &'static str,
    options: &'static [&'static str],
}

const BALANCE_LIST: System =
    System { name: "tonic balance_list", client: "balance-list", server: "raw", options: &[] };
const TOWER_P2C: System =
    System { name: "tower P2C PeakEWMA", client: "p2c", server: "raw", options: &[] };
const AEGIS: System = System { name: "aegis", client: "aegis", server: "aegis", options: &[] };
const IDEMPOTENT: System =
    System { name: "aegis, idempotent", options: &["--idempotent"], ..AEGIS };
const BOTH: &[System] = &[BALANCE_LIST, AEGIS];
const LEAST_LOADED: System =
    System { name: "aegis least-loaded", options: &["--balance", "least-loaded"], ..AEGIS };
/// Where a call that was sent fails unless it may be sent twice.
const WITH_RETRIES: &[System] = &[BALANCE_LIST, AEGIS, IDEMPOTENT];

/// A case of research/peers.md.
struct Case {
    letter: &'static str,
    what: &'static str,
    systems: &'static [System],
    /// Of the client.
    options: &'static [&'static str],
    play: fn(&Stage<'_>) -> Result<Value, BenchError>,
}

const TAIL: &[Case] = &[
    Case {
        letter: "A",
        what: "one of three refuses connections, 20 callers",
        systems: BOTH,
        options: &["--in-flight", "20", "--seconds", "2", "--fixed", "--ready", "2"],
        play: refusing,
    },
    Case {
        letter: "B",
        what: "one answers after 50 ms, two after 1 ms, 30 callers",
        systems: &[BALANCE_LIST, TOWER_P2C, AEGIS, LEAST_LOADED],
        options: &["--in-flight", "30", "--seconds", "2"],
        play: slow,
    },
    Case {
        letter: "C24",
        what: "one fails each call at once, two answer after 20 ms, 30 callers; third: of the attempts",
        systems: &[BALANCE_LIST, TOWER_P2C, AEGIS, LEAST_LOADED, IDEMPOTENT],
        options: &["--in-flight", "30", "--seconds", "2"],
        play: failing,
    },
    Case {
        letter: "F",
        what: "one accepts connections and says nothing, 20 callers with 5 s each",
        systems: WITH_RETRIES,
        options: &[
            "--in-flight",
            "20",
            "--seconds",
            "4",
            "--deadline",
            "5",
            "--fixed",
            "--ready",
            "2",
        ],
        play: hung,
    },
    Case {
        letter: "F stopped",
        what: "one is stopped (SIGSTOP) under 20 callers with 5 s each",
        systems: WITH_RETRIES,
        options: &["--in-flight", "20", "--seconds", "8", "--deadline", "5"],
        play: stopped,
    },
];

const FAILOVER: &[Case] = &[
    Case {
        letter: "E",
        what: "all are down, then up after 2 s, 20 callers; failed: after the first answer",
        systems: BOTH,
        options: &["--in-flight", "20", "--seconds", "5", "--fixed", "--ready", "0"],
        play: down_then_up,
    },
    Case {
        letter: "G",
        what: "each in turn is shut down (SIGTERM), down for 0.5 s and started again, 20 callers",
        systems: BOTH,
        options: &["--in-flight", "20", "--seconds", "7"],
        play: rolling,
    },
    Case {
        letter: "G killed",
        what: "each in turn is killed (SIGKILL) and started again, 2,000 calls/s of 20 callers",
        systems: WITH_RETRIES,
        options: &["--in-flight", "20", "--seconds", "7", "--rate", "2000"],
        play: killed,
    },
];

pub(super) fn tail(workspace: &Path, options: &Options) -> Result<(), BenchError> {
    run("tail", TAIL, workspace, options)
}

pub(super) fn failover(workspace: &Path, options: &Options) -> Result<(), BenchError> {
    run("failover", FAILOVER, workspace, options)
}

fn run(
    bench: &'static str,
    cases: &[Case],
    workspace: &Path,
    options: &Options,
) -> Result<(), BenchError> {
    let programs = Programs::build(workspace)?;
    let mut report = Report::new(bench, workspace, options);
    let rounds = options.rounds.unwrap_or(ROUNDS);
    // What a balancer does is hardly the runtime's doing.
    let runtime = options.runtimes.first().copied().unwrap_or("multi_thread");
    let mut told = BTreeMap::new();
    for case in cases {
        print(&format!(
            "{}: {}; client on {runtime}, {rounds} rounds, medians (least-greatest round)",
            case.letter, case.what
        ));
        print(&heading());
        let mut seen: Vec<Vec<Value>> = case.systems.iter().map(|_| Vec::new()).collect();
        for round in 1..=rounds {
            for (system, seen) in case.systems.iter().zip(&mut seen) {
                progress(&format!("{}: {}, round {round} of {rounds}", case.letter, system.name));
                let stage = Stage { programs: &programs, system, case, runtime };
                seen.push((case.play)(&stage)?);
            }
        }
        progress("");
        let mut systems = BTreeMap::new();
        for (system, rounds) in case.systems.iter().zip(&seen) {
            let summary = Summary::of(rounds);
            print(&summary.row(system.name));
            systems.insert(system.name, summary.json());
        }
        told.insert(case.letter, systems);
    }
    let detail = cases.iter().map(|case| json!({ "case": case.letter, "what": case.what }));
    report.add(json!({ "bench": bench, "runtime": runtime, "cases": told }), detail.collect());
    report.finish(&json!({ "rounds": rounds }))
}

/// One system in one round of one case.
struct Stage<'a> {
    programs: &'a Programs,
    system: &'a System,
    case: &'a Case,
    runtime: &'static str,
}

impl Stage<'_> {
    /// Starts the provider with this number, which counts from 1, at an address of its choice.
    fn provider(&self, number: usize, options: &[&str]) -> Result<Server, BenchError> {
        let number = number.to_string();
        let given = [&["--number", &number], options].concat();
        self.programs.serve(self.system.server, &given)
    }

    /// Starts all; of aegis they are a mesh.
    fn providers(&self, options: [&[&str]; PROVIDERS]) -> Result<Vec<Server>, BenchError> {
        let mut servers: Vec<Server> = Vec::new();
        for (number, options) in (1..).zip(options) {
            let mut given = options.to_vec();
            if let Some(first) = servers.first().filter(|_| self.system.server == "aegis") {
                given.extend(["--join", &first.address]);
            }
            let server = self.provider(number, &given)?;
            servers.push(server);
        }
        Ok(servers)
    }

    /// Starts one again where it was.
    fn again(&self, servers: &mut [Server], index: usize) -> Result<(), BenchError> {
        let other = servers.get((index + 1) % PROVIDERS).map(|server| server.address.clone());
        let Some(server) = servers.get_mut(index) else { return Ok(()) };
        let address = server.address.clone();
        let mut given = vec!["--listen", &address];
        if let Some(other) = other.as_deref().filter(|_| self.system.server == "aegis") {
            given.extend(["--join", other]);
        }
        *server = self.provider(index + 1, &given)?;
        Ok(())
    }

    fn client(&self, addresses: &[&str]) -> Result<Client, BenchError> {
        let mut arguments = vec!["call", self.system.client, "--runtime", self.runtime];
        for address in addresses {
            arguments.extend(["--address", address]);
        }
        arguments.extend(self.case.options);
        arguments.extend(self.system.options);
        self.programs.start(&arguments)
    }
}

fn addresses(servers: &[Server]) -> Vec<&str> {
    servers.iter().map(|server| server.address.as_str()).collect()
}

fn millis(millis: u64) {
    sleep(Duration::from_millis(millis));
}

fn refusing(stage: &Stage<'_>) -> Result<Value, BenchError> {
    let mut servers = stage.providers([&[]; PROVIDERS])?;
    if let Some(third) = servers.last_mut() {
        third.end(Signal::KILL)?;
    }
    stage.client(&addresses(&servers))?.end()
}

fn slow(stage: &Stage<'_>) -> Result<Value, BenchError> {
    let fast: &[&str] = &["--delay", "0.001"];
    let servers = stage.providers([fast, fast, &["--delay", "0.05"]])?;
    stage.client(&addresses(&servers))?.end()
}

fn failing(stage: &Stage<'_>) -> Result<Value, BenchError> {
    let sound: &[&str] = &["--delay", "0.02"];
    let servers = stage.providers([sound, sound, &["--fail"]])?;
    let seen = stage.client(&addresses(&servers))?.end()?;
    Ok(with_attempts(seen))
}

/// Says how many requests were sent, and how many to the third provider. Of a client that sends each call once the latter
/// are those that failed.
fn with_attempts(mut seen: Value) -> Value {
    let count = |name: &str| seen.get(name).and_then(Value::as_u64).unwrap_or_default();
    let (all, third) = match seen.get("attempts").and_then(Value::as_object) {
        Some(attempts) => {
            let third = attempts.get("3").and_then(Value::as_u64).unwrap_or_default();
            (attempts.values().filter_map(Value::as_u64).sum(), third)
        }
        None => (count("calls") + count("failed"), count("failed")),
    };
    if let Some(seen) = seen.as_object_mut() {
        seen.insert("sent".to_owned(), all.into());
        seen.insert("sent_to_third".to_owned(), third.into());
    }
    seen
}

fn hung(stage: &Stage<'_>) -> Result<Value, BenchError> {
    let mut servers = vec![stage.provider(1, &[])?, stage.provider(2, &[])?];
    servers.push(stage.programs.serve("hung", &[])?);
    stage.client(&addresses(&servers))?.end()
}

fn stopped(stage: &Stage<'_>) -> Result<Value, BenchError> {
    let servers = stage.providers([&[]; PROVIDERS])?;
    let client = stage.client(&addresses(&servers))?;
    millis(1_300);
    if let Some(third) = servers.last() {
        third.signal(Signal::STOP)?;
    }
    client.end()
}

fn down_then_up(stage: &Stage<'_>) -> Result<Value, BenchError> {
    let mut servers = stage.providers([&[]; PROVIDERS])?;
    for server in &mut servers {
        server.end(Signal::KILL)?;
    }
    let client = stage.client(&addresses(&servers))?;
    millis(2_000);
    for index in 0..PROVIDERS {
        stage.again(&mut servers, index)?;
    }
    let mut seen = client.end()?;
    // What failed before anybody was there is nobody's fault.
    if let Some(seen) = seen.as_object_mut() {
        let failed = seen.get("failed_after_first").cloned().unwrap_or_default();
        seen.insert("failed".to_owned(), failed);
    }
    Ok(seen)
}

fn rolling(stage: &Stage<'_>) -> Result<Value, BenchError> {
    in_turn(stage, Signal::TERM)
}

fn killed(stage: &Stage<'_>) -> Result<Value, BenchError> {
    in_turn(stage, Signal::KILL)
}

fn in_turn(stage: &Stage<'_>, signal: Signal) -> Result<Value, BenchError> {
    let mut servers = stage.providers([&[]; PROVIDERS])?;
    let client = stage.client(&addresses(&servers))?;
    millis(1_000);
    for index in 0..PROVIDERS {
        if let Some(server) = servers.get_mut(index) {
            server.end(signal)?;
        }
        millis(500);
        stage.again(&mut servers, index)?;
        millis(1_000);
    }
    client.end()
}
