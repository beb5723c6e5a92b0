use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use lexopt::prelude::*;

use crate::load::Plan;
use crate::service::Behaviour;
use crate::{Outcome, certificates};

const USAGE: &str = "\
usage: aegis-bench certs --certs DIR
       aegis-bench serve SYSTEM --certs DIR [--number N] [--listen ADDR] [--join ADDR] [--burn TIME[@1/N]]
       aegis-bench call SYSTEM --certs DIR --address ADDR.. [--foreign] [--server-pid PID]..
                   [--runtime current_thread|multi_thread] [--in-flight N] [--seconds S]

SYSTEM is raw or aegis; for a client also balance-list. A server prints its address; a client prints one line of JSON.
The n-th address is of the server with number n, whose id is server-n. With --foreign they are servers that are not aegis.";

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    Raw,
    Aegis,
    BalanceList,
}

impl FromStr for System {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "raw" => Ok(Self::Raw),
            "aegis" => Ok(Self::Aegis),
            "balance-list" => Ok(Self::BalanceList),
            _ => Err(format!("{text:?} is neither raw, aegis nor balance-list")),
        }
    }
}

/// The runtime of a process. Servers always have two workers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavor {
    CurrentThread,
    MultiThread,
}

impl FromStr for Flavor {
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
    pub(crate) fn run(
        self,
        work: impl Future<Output = Outcome<()>> + Send + 'static,
    ) -> Outcome<()> {
        let mut builder = match self {
            Self::CurrentThread => tokio::runtime::Builder::new_current_thread(),
            Self::MultiThread => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.worker_threads(2).enable_all().build()?;
        // In a task, since the thread that blocks on a runtime of several is none of its workers.
        runtime.block_on(async { tokio::spawn(work).await? })
    }
}

/// What to do.
#[derive(Clone, Copy)]
pub(crate) enum Command {
    Certs,
    Serve(System),
    Call(System),
}

/// What a server is told.
pub(crate) struct Serve {
    pub(crate) listen: SocketAddr,
    /// A node of the mesh it joins.
    pub(crate) join: Option<SocketAddr>,
    pub(crate) behaviour: Behaviour,
}

/// The servers of a client.
#[derive(Default)]
pub(crate) struct Providers {
    pub(crate) addresses: Vec<SocketAddr>,
    /// They are not aegis.
    pub(crate) foreign: bool,
}

impl Providers {
    /// Each with its node id.
    pub(crate) fn named(&self) -> impl Iterator<Item = (String, SocketAddr)> {
        (1..).map(certificates::server).zip(self.addresses.iter().copied())
    }

    pub(crate) fn only(&self) -> Outcome<SocketAddr> {
        match self.addresses[..] {
            [address] => Ok(address),
            _ => Err("a raw channel is for one server".into()),
        }
    }
}

/// The command line.
pub(crate) struct Arguments {
    pub(crate) command: Command,
    pub(crate) certs: PathBuf,
    pub(crate) flavor: Flavor,
    pub(crate) serve: Serve,
    pub(crate) providers: Providers,
    pub(crate) plan: Plan,
}

pub(crate) fn parse() -> Outcome<Arguments> {
    let mut words: Vec<String> = Vec::new();
    let mut arguments = Arguments {
        command: Command::Certs,
        certs: PathBuf::new(),
        flavor: Flavor::MultiThread,
        serve: Serve {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            join: None,
            behaviour: Behaviour { number: 1, ..Behaviour::default() },
        },
        providers: Providers::default(),
        plan: Plan::default(),
    };
    let Arguments { certs, flavor, serve, providers, plan, .. } = &mut arguments;
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(text) if words.len() < 2 => words.push(text.string()?),
            Long("certs") => *certs = parser.value()?.into(),
            Long("number") => serve.behaviour.number = parser.value()?.parse()?,
            Long("listen") => serve.listen = parser.value()?.parse()?,
            Long("join") => serve.join = Some(parser.value()?.parse()?),
            Long("burn") => serve.behaviour.burn = Some(parser.value()?.parse()?),
            Long("address") => providers.addresses.push(parser.value()?.parse()?),
            Long("foreign") => providers.foreign = true,
            Long("server-pid") => plan.servers.push(parser.value()?.parse()?),
            Long("in-flight") => plan.in_flight = parser.value()?.parse()?,
            Long("seconds") => {
                plan.measured = Duration::try_from_secs_f64(parser.value()?.parse()?)?;
            }
            Long("runtime") => *flavor = parser.value()?.parse()?,
            _ => return Err(argument.unexpected().into()),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    arguments.command = match words[..] {
        ["certs"] => Command::Certs,
        ["serve", system] => Command::Serve(system.parse()?),
        ["call", system] => Command::Call(system.parse()?),
        _ => return Err(USAGE.into()),
    };
    Ok(arguments)
}
