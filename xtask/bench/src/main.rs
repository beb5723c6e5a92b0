//! The programs that `cargo xtask bench` starts: servers, and clients that load them.
//!
//! Both systems send the same message through the same generated stubs, over the same TLS configuration and window
//! sizes. They differ in what lies between: tonic's transport, or aegis.

mod aegis_peer;
mod certificates;
mod cpu;
mod load;
mod raw_peer;
mod service;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;
use load::Plan;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const USAGE: &str = "\
usage: aegis-bench certs --certs DIR
       aegis-bench serve SYSTEM --certs DIR
       aegis-bench call SYSTEM --certs DIR --address ADDR --server-pid PID [--runtime current_thread|multi_thread]
                   [--in-flight N] [--seconds S]

SYSTEM is raw or aegis. A server prints its address; a client prints one line of JSON.";

/// Which of the two is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum System {
    Raw,
    Aegis,
}

impl std::str::FromStr for System {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "raw" => Ok(Self::Raw),
            "aegis" => Ok(Self::Aegis),
            _ => Err(format!("{text:?} is neither raw nor aegis")),
        }
    }
}

/// The runtime of a process. Servers always have two workers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flavor {
    CurrentThread,
    MultiThread,
}

impl std::str::FromStr for Flavor {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "current_thread" => Ok(Self::CurrentThread),
            "multi_thread" => Ok(Self::MultiThread),
            _ => Err(format!("{text:?} is neither current_thread nor multi_thread")),
        }
    }
}

impl Flavor {
    fn run(self, work: impl Future<Output = Outcome<()>> + Send + 'static) -> Outcome<()> {
        let mut builder = match self {
            Self::CurrentThread => tokio::runtime::Builder::new_current_thread(),
            Self::MultiThread => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.worker_threads(2).enable_all().build()?;
        // In a task, since the thread that blocks on a runtime of several is none of its workers.
        runtime.block_on(async { tokio::spawn(work).await? })
    }
}

/// The command line.
#[derive(Default)]
struct Arguments {
    command: Option<String>,
    system: Option<System>,
    certs: PathBuf,
    address: String,
    plan: Plan,
    flavor: Option<Flavor>,
}

#[expect(clippy::print_stderr, reason = "a command talks to its user")]
fn main() -> ExitCode {
    match parse().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", aegis::Chain::new(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Outcome<()> {
    let Arguments { command, system, certs, address, plan, flavor } = arguments;
    let flavor = flavor.unwrap_or(Flavor::MultiThread);
    match (command.as_deref(), system) {
        (Some("certs"), None) => certificates::issue(&certs),
        (Some("serve"), Some(System::Raw)) => flavor.run(raw_peer::serve(certs)),
        (Some("serve"), Some(System::Aegis)) => flavor.run(aegis_peer::serve(certs)),
        (Some("call"), Some(System::Raw)) => flavor.run(raw_peer::call(certs, address, plan)),
        (Some("call"), Some(System::Aegis)) => flavor.run(aegis_peer::call(certs, address, plan)),
        _ => Err(USAGE.into()),
    }
}

fn parse() -> Outcome<Arguments> {
    let mut arguments = Arguments::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(text) if arguments.command.is_none() => arguments.command = Some(text.string()?),
            Value(text) if arguments.system.is_none() => arguments.system = Some(text.parse()?),
            Long("certs") => arguments.certs = parser.value()?.into(),
            Long("address") => arguments.address = parser.value()?.string()?,
            Long("server-pid") => arguments.plan.server = parser.value()?.parse()?,
            Long("in-flight") => arguments.plan.in_flight = parser.value()?.parse()?,
            Long("seconds") => {
                arguments.plan.measured = Duration::try_from_secs_f64(parser.value()?.parse()?)?;
            }
            Long("runtime") => arguments.flavor = Some(parser.value()?.parse()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(arguments)
}
