//! `cargo xtask bench`: aegis beside a named peer, in the same run.
//!
//! Client and server are processes of their own. Rounds are interleaved, peer and aegis in turns, so that what else
//! the machine does meets both. The figure is the ratio of the medians; beside it stand the least and the greatest
//! ratio of a round.

mod call;
mod figures;
mod programs;

use std::path::Path;
use std::time::Duration;

pub(crate) const USAGE: &str = "\
  bench call [--json] [--rounds N] [--seconds S] [--runtime current_thread|multi_thread] [--in-flight N,..] [--save]
                          calls through aegis on both ends beside raw tonic on both ends, over the same mutual TLS,
                          with the client on each runtime; --save writes docs/results/call.json
  bench pick              what choosing a provider costs, at 10 and 10,000 nodes (criterion)";

/// Why a benchmark has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error("{0}")]
    Usage(String),
    #[error("{program} failed: {text}")]
    Program { program: String, text: String },
    #[error("cannot run {program}: {source}")]
    Start { program: String, source: std::io::Error },
    #[error("cannot write {path}: {source}")]
    Write { path: String, source: std::io::Error },
    #[error("{failed} of {calls} calls through {system} failed, the first with: {first}")]
    Failed { system: &'static str, failed: u64, calls: u64, first: String },
}

/// How a benchmark is run.
#[derive(Debug, PartialEq)]
struct Plan {
    json: bool,
    save: bool,
    rounds: usize,
    measured: Duration,
    runtimes: Vec<&'static str>,
    in_flight: Vec<usize>,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            json: false,
            save: false,
            rounds: 7,
            measured: Duration::from_millis(1_500),
            // The one that most programs use comes last, where a script looks.
            runtimes: vec!["current_thread", "multi_thread"],
            in_flight: vec![1, 16, 64, 256],
        }
    }
}

pub(crate) fn run(workspace: &Path, arguments: &[&str]) -> Result<(), BenchError> {
    match arguments {
        ["call", options @ ..] => call::run(workspace, &plan(options)?),
        ["pick"] => {
            programs::cargo(workspace, &["bench", "--package", "aegis-client", "--bench", "pick"])
        }
        _ => Err(BenchError::Usage(format!("usage: cargo xtask bench\n\n{USAGE}"))),
    }
}

fn plan(options: &[&str]) -> Result<Plan, BenchError> {
    let mut plan = Plan::default();
    let mut options = options.iter().copied();
    while let Some(option) = options.next() {
        let mut value =
            || options.next().ok_or_else(|| BenchError::Usage(format!("{option} needs a value")));
        match option {
            "--json" => plan.json = true,
            "--save" => plan.save = true,
            "--rounds" => plan.rounds = number(value()?, 1..=1_000)?,
            "--seconds" => {
                let seconds = value()?;
                plan.measured = seconds
                    .parse()
                    .ok()
                    .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                    .filter(|measured| !measured.is_zero() && *measured <= Duration::from_secs(60))
                    .ok_or_else(|| {
                        BenchError::Usage(format!("{seconds:?} is not above 0 and at most 60 s"))
                    })?;
            }
            "--runtime" => plan.runtimes = vec![runtime(value()?)?],
            "--in-flight" => {
                plan.in_flight = value()?
                    .split(',')
                    .map(|text| number(text, 1..=256))
                    .collect::<Result<_, _>>()?;
            }
            _ => {
                return Err(BenchError::Usage(format!("no option {option:?} of bench\n\n{USAGE}")));
            }
        }
    }
    Ok(plan)
}

fn number(text: &str, allowed: std::ops::RangeInclusive<usize>) -> Result<usize, BenchError> {
    text.parse().ok().filter(|number| allowed.contains(number)).ok_or_else(|| {
        let (least, most) = (allowed.start(), allowed.end());
        BenchError::Usage(format!("{text:?} is no number from {least} to {most}"))
    })
}

fn runtime(text: &str) -> Result<&'static str, BenchError> {
    match text {
        "current_thread" => Ok("current_thread"),
        "multi_thread" => Ok("multi_thread"),
        _ => Err(BenchError::Usage(format!("{text:?} is neither current_thread nor multi_thread"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_seven_rounds_on_both_runtimes() {
        let plan = plan(&[]).unwrap();
        assert_eq!((plan.rounds, plan.runtimes.len()), (7, 2));
        assert_eq!(plan.in_flight, [1, 16, 64, 256]);
    }

    #[test]
    fn options_are_read_and_wrong_ones_named() {
        let given =
            ["--json", "--rounds", "9", "--in-flight", "1,64", "--runtime", "current_thread"];
        let read = plan(&given).unwrap();
        assert!(read.json && read.rounds == 9 && read.in_flight == [1, 64]);
        for (wrong, named) in [
            (&["--rounds"][..], "--rounds"),
            (&["--rounds", "0"], "\"0\""),
            (&["--in-flight", "1,300"], "\"300\""),
            (&["--seconds", "-1"], "\"-1\""),
            (&["--seconds", "NaN"], "\"NaN\""),
            (&["--runtime", "x"], "\"x\""),
            (&["--what"], "--what"),
        ] {
            let error = plan(wrong).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
