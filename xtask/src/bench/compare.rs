//! aegis and its peer under the same load, in turns.

use serde_json::{Map, Value};

use super::BenchError;
use super::figures::{Ratio, Round, tenths};
use super::programs::{Programs, Server};
use super::report::{print, progress};

/// A client and the servers that it calls.
pub(crate) struct Arm {
    /// The command of the program: `call`, `connect` or `stream`.
    pub(crate) work: &'static str,
    pub(crate) system: &'static str,
    pub(crate) servers: Vec<Server>,
    pub(crate) options: Vec<&'static str>,
}

impl Arm {
    pub(crate) fn new(system: &'static str, servers: Vec<Server>) -> Self {
        Self { work: "call", system, servers, options: Vec::new() }
    }

    /// What its client is told, besides what it does.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let servers = self.servers.iter().flat_map(|server| {
            [
                "--address".to_owned(),
                server.address.clone(),
                "--server-pid".to_owned(),
                server.pid(),
            ]
        });
        let options = self.options.iter().map(|&option| option.to_owned());
        [self.work, self.system]
            .map(str::to_owned)
            .into_iter()
            .chain(servers)
            .chain(options)
            .collect()
    }
}

/// What each client does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) runtime: &'static str,
    pub(crate) in_flight: usize,
    pub(crate) seconds: f64,
    pub(crate) rounds: usize,
}

/// The rounds of both.
pub(crate) struct Compared {
    pub(crate) peer: Vec<Round>,
    pub(crate) aegis: Vec<Round>,
}

impl Compared {
    pub(crate) fn ratio(&self, figure: impl Fn(&Round) -> f64) -> Ratio {
        Ratio::of(&self.aegis, &self.peer, figure)
    }

    /// For whoever wants to know what the ratios are of.
    pub(crate) fn detail(&self) -> Map<String, Value> {
        let system = |rounds: &[Round]| {
            let middle = Round::middle(rounds);
            let figures = [
                ("per_second", middle.per_second.round()),
                ("p50_us", tenths(middle.p50)),
                ("p99_us", tenths(middle.p99)),
                ("cpu_us", tenths(middle.cpu)),
            ];
            let known = figures.into_iter().filter(|(_, figure)| !figure.is_nan());
            known.map(|(name, figure)| (name, Value::from(figure))).collect::<Value>()
        };
        let ratio = |figure: fn(&Round) -> f64| self.ratio(figure);
        let ratios = [
            ("throughput_ratio", ratio(|round| round.per_second)),
            ("p50_ratio", ratio(|round| round.p50)),
            ("p99_ratio", ratio(|round| round.p99)),
            ("cpu_ratio", ratio(|round| round.cpu)),
        ];
        let known = ratios.into_iter().filter(|(_, ratio)| !ratio.median.is_nan());
        let systems = [("peer", system(&self.peer)), ("aegis", system(&self.aegis))];
        let ratios = known.map(|(name, ratio)| (name, ratio.detail()));
        systems.into_iter().chain(ratios).map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Compares both under each of these loads, and prints a row for each.
pub(crate) fn table(
    programs: &Programs,
    arms: [&Arm; 2],
    load: impl Fn(usize) -> Load,
    in_flight: &[usize],
    row: fn(usize, &Compared) -> String,
) -> Result<Vec<(usize, Compared)>, BenchError> {
    let compared = |&in_flight: &usize| {
        let compared = compare(programs, arms, load(in_flight))?;
        print(&row(in_flight, &compared));
        Ok((in_flight, compared))
    };
    in_flight.iter().map(compared).collect()
}

/// Runs both in turns; who begins changes from round to round.
fn compare(
    programs: &Programs,
    [peer, aegis]: [&Arm; 2],
    load: Load,
) -> Result<Compared, BenchError> {
    let mut compared = Compared { peer: Vec::new(), aegis: Vec::new() };
    for round in 0..load.rounds {
        progress(&format!("{} in flight: round {} of {}", load.in_flight, round + 1, load.rounds));
        let mut turns = [(peer, &mut compared.peer), (aegis, &mut compared.aegis)];
        if round % 2 == 1 {
            turns.reverse();
        }
        for (arm, rounds) in turns {
            rounds.push(call(programs, arm, load)?);
        }
    }
    progress("");
    Ok(compared)
}

pub(crate) fn call(programs: &Programs, arm: &Arm, load: Load) -> Result<Round, BenchError> {
    let (in_flight, seconds) = (load.in_flight.to_string(), load.seconds.to_string());
    let given = arm.arguments();
    let mut arguments: Vec<&str> = given.iter().map(String::as_str).collect();
    arguments.extend(["--runtime", load.runtime, "--in-flight", &in_flight, "--seconds", &seconds]);
    let printed = programs.json(&arguments)?;
    let figure = |name: &str| {
        printed.get(name).and_then(Value::as_f64).ok_or_else(|| BenchError::Program {
            program: arguments.join(" "),
            text: format!("it printed no {name}: {printed}"),
        })
    };
    let count = |name: &str| printed.get(name).and_then(Value::as_u64).unwrap_or_default();
    // A system that fails is quick.
    if count("failed") != 0 || count("calls") == 0 {
        let first = printed.get("failure").and_then(Value::as_str).unwrap_or("no call ended");
        return Err(BenchError::Failed {
            system: arm.system,
            failed: count("failed"),
            calls: count("failed") + count("calls"),
            first: first.to_owned(),
        });
    }
    // A message of a stream that is sent as fast as it is read took no time that means something.
    let latency = |name| if arm.work == "stream" { Ok(f64::NAN) } else { figure(name) };
    Ok(Round {
        per_second: figure("per_second")?,
        p50: latency("p50_us")?,
        p99: latency("p99_us")?,
        cpu: figure("client_cpu_us")? + figure("server_cpu_us")?,
    })
}

#[cfg(test)]
impl Compared {
    /// One round of each: aegis twice as fast, its p99 a half, its p50 three quarters and its CPU time a quarter.
    pub(crate) fn made_up() -> Self {
        let round = |per_second, p50, p99, cpu| vec![Round { per_second, p50, p99, cpu }];
        Self { peer: round(100.0, 8.0, 16.0, 40.0), aegis: round(200.0, 6.0, 8.0, 10.0) }
    }
}
