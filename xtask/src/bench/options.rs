//! What a benchmark is told on the command line.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::{BenchError, USAGE};

/// How a benchmark is run. What is not said, each of them chooses for itself.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Options {
    pub(crate) json: bool,
    pub(crate) save: bool,
    pub(crate) rounds: Option<usize>,
    pub(crate) measured: Option<Duration>,
    pub(crate) runtimes: Vec<&'static str>,
    pub(crate) in_flight: Vec<usize>,
    /// Which ends of a call are aegis.
    pub(crate) ends: Vec<Ends>,
    /// What the handlers burn.
    pub(crate) burns: Vec<String>,
    /// All that was said, for whoever wants to repeat it.
    pub(crate) said: String,
}

/// Which ends of a call are aegis; raw tonic on both is what they are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// An aegis client of a tonic server.
    Client,
    /// An aegis server under a tonic client.
    Server,
    /// Both, over three providers; compared with tonic's balancer over three tonic servers.
    Three,
    Both,
}

impl Options {
    /// How long a round measures, unless it was said, in seconds.
    pub(crate) fn seconds(&self, otherwise: f64) -> f64 {
        self.measured.map_or(otherwise, |measured| measured.as_secs_f64())
    }

    /// How many calls are in flight, in turn, unless it was said.
    pub(crate) fn in_flight<'a>(&'a self, otherwise: &'a [usize]) -> &'a [usize] {
        if self.in_flight.is_empty() { otherwise } else { &self.in_flight }
    }

    pub(crate) fn parse(given: &[&str]) -> Result<Self, BenchError> {
        let mut read = Self { said: given.join(" "), ..Self::default() };
        let mut given = given.iter().copied();
        while let Some(option) = given.next() {
            let mut value =
                || given.next().ok_or_else(|| BenchError::Usage(format!("{option} needs a value")));
            match option {
                "--json" => read.json = true,
                "--save" => read.save = true,
                "--rounds" => read.rounds = Some(number(value()?, 1..=1_000)?),
                "--seconds" => read.measured = Some(seconds(value()?)?),
                "--runtime" => read.runtimes = vec![runtime(value()?)?],
                "--in-flight" => read.in_flight = each(value()?, |text| number(text, 1..=256))?,
                "--ends" => read.ends = each(value()?, ends)?,
                "--burn" => read.burns = each(value()?, |text| Ok(text.to_owned()))?,
                _ => {
                    let text = format!("no option {option:?} of bench\n\n{USAGE}");
                    return Err(BenchError::Usage(text));
                }
            }
        }
        Ok(read)
    }

    /// The runtimes to measure on; the one that most programs use comes last, where a script looks.
    pub(crate) fn runtimes(&self) -> Vec<&'static str> {
        if self.runtimes.is_empty() {
            vec!["current_thread", "multi_thread"]
        } else {
            self.runtimes.clone()
        }
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(7)
    }
}

fn each<T>(list: &str, read: impl Fn(&str) -> Result<T, BenchError>) -> Result<Vec<T>, BenchError> {
    list.split(',').map(read).collect()
}

fn number(text: &str, allowed: RangeInclusive<usize>) -> Result<usize, BenchError> {
    text.parse().ok().filter(|number| allowed.contains(number)).ok_or_else(|| {
        let (least, most) = (allowed.start(), allowed.end());
        BenchError::Usage(format!("{text:?} is no number from {least} to {most}"))
    })
}

fn seconds(text: &str) -> Result<Duration, BenchError> {
    text.parse()
        .ok()
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .filter(|measured| !measured.is_zero() && *measured <= Duration::from_secs(60))
        .ok_or_else(|| BenchError::Usage(format!("{text:?} is not above 0 and at most 60 s")))
}

fn runtime(text: &str) -> Result<&'static str, BenchError> {
    match text {
        "current_thread" => Ok("current_thread"),
        "multi_thread" => Ok("multi_thread"),
        _ => Err(BenchError::Usage(format!("{text:?} is neither current_thread nor multi_thread"))),
    }
}

fn ends(text: &str) -> Result<Ends, BenchError> {
    match text {
        "client" => Ok(Ends::Client),
        "server" => Ok(Ends::Server),
        "three" => Ok(Ends::Three),
        "both" => Ok(Ends::Both),
        _ => {
            let text = format!("{text:?} is neither both, client, server nor three");
            Err(BenchError::Usage(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_said_is_seven_rounds_on_both_runtimes() {
        let options = Options::parse(&[]).unwrap();
        assert_eq!((options.rounds(), options.runtimes().len()), (7, 2));
    }

    #[test]
    fn options_are_read_and_wrong_ones_named() {
        let given = [
            "--json",
            "--rounds",
            "9",
            "--in-flight",
            "1,64",
            "--runtime",
            "current_thread",
            "--ends",
            "client,both",
        ];
        let read = Options::parse(&given).unwrap();
        assert!(read.json && read.rounds() == 9 && read.in_flight == [1, 64]);
        assert_eq!(read.ends, [Ends::Client, Ends::Both]);
        for (wrong, named) in [
            (&["--rounds"][..], "--rounds"),
            (&["--rounds", "0"], "\"0\""),
            (&["--in-flight", "1,300"], "\"300\""),
            (&["--seconds", "-1"], "\"-1\""),
            (&["--seconds", "NaN"], "\"NaN\""),
            (&["--runtime", "x"], "\"x\""),
            (&["--ends", "both,x"], "\"x\""),
            (&["--what"], "--what"),
        ] {
            let error = Options::parse(wrong).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }
}
