use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use aegis::client::Balancer;
use lexopt::prelude::*;

use crate::load::Plan;
use crate::service::Behaviour;
use crate::{Outcome, certificates};

const USAGE: &str = "\
usage: aegis-bench certs --certs DIR
       aegis-bench serve raw|aegis|hung --certs DIR [--number N] [--listen ADDR] [--join ADDR] [--burn TIME[@1/N]]
                   [--delay SECONDS] [--fail]
       aegis-bench call|connect SYSTEM CLIENT [--deadline SECONDS] [--idempotent] [--rate N] [--bulk STREAMS]
       aegis-bench stream SYSTEM CLIENT --size BYTES

CLIENT is --certs DIR --address ADDR.. [--fixed|--foreign] [--ready N] [--balance BALANCER] [--server-pid PID].. [--in-flight N] [--seconds S]
[--runtime current_thread|multi_thread]; SYSTEM is raw, aegis, balance-list or p2c.
A server prints its address; a client prints one line of JSON.
The n-th address is of the server with number n, whose id is server-n. An aegis client takes them for seeds; with --fixed for
all providers that there are, with --foreign for servers that are not aegis.";

/// What a client is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum System {
    Raw,
    Aegis,
    BalanceList,
    P2c,
}

impl FromStr for System {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "raw" => Ok(Self::Raw),
            "aegis" => Ok(Self::Aegis),
            "balance-list" => Ok(Self::BalanceList),
            "p2c" => Ok(Self::P2c),
            _ => Err(format!("{text:?} is neither raw, aegis, balance-list nor p2c")),
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
    ServeRaw,
    ServeAegis,
    /// Accept connections, and say nothing on them.
    ServeHung,
    Client(System, Work),
}

/// What a client does.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    Call,
    /// Call on a new connection each time.
    Connect,
    /// Read messages of this size.
    Stream(usize),
}

/// What a server is told.
pub(crate) struct Serve {
    pub(crate) listen: SocketAddr,
    /// A node of the mesh it joins.
    pub(crate) join: Option<SocketAddr>,
    pub(crate) behaviour: Behaviour,
}

/// The servers of a client.
#[derive(Clone, Default)]
pub(crate) struct Providers {
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) known: Known,
    /// How many have to be connected before the first call; all if it does not say.
    pub(crate) ready: Option<usize>,
    /// How an aegis client chooses among them, if not by its default.
    pub(crate) balancer: Option<Balancer>,
}

/// What an aegis client knows of its providers.
#[derive(Clone, Copy, Default)]
pub(crate) enum Known {
    /// Where to learn who there is.
    #[default]
    Seeds,
    Fixed,
    Foreign,
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
    let (mut words, mut size) = (Vec::new(), 64);
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
            Long("fixed") => providers.known = Known::Fixed,
            Long("foreign") => providers.known = Known::Foreign,
            Long("ready") => providers.ready = Some(parser.value()?.parse()?),
            Long("balance") => providers.balancer = Some(parser.value()?.parse()?),
            Long("size") => size = parser.value()?.parse()?,
            Long("rate") => plan.rate = Some(parser.value()?.parse()?),
            Long("idempotent") => plan.idempotent = true,
            Long("bulk") => plan.bulk = parser.value()?.parse()?,
            Long("deadline") => plan.deadline = Some(duration(parser.value()?.parse()?)?),
            Long("delay") => serve.behaviour.delay = duration(parser.value()?.parse()?)?,
            Long("fail") => serve.behaviour.fail = true,
            Long("server-pid") => plan.servers.push(parser.value()?.parse()?),
            Long("in-flight") => plan.in_flight = parser.value()?.parse()?,
            Long("seconds") => plan.measured = duration(parser.value()?.parse()?)?,
            Long("runtime") => *flavor = parser.value()?.parse()?,
            _ => return Err(argument.unexpected().into()),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    arguments.command = match words[..] {
        ["certs"] => Command::Certs,
        ["serve", "raw"] => Command::ServeRaw,
        ["serve", "aegis"] => Command::ServeAegis,
        ["serve", "hung"] => Command::ServeHung,
        ["call", system] => Command::Client(system.parse()?, Work::Call),
        ["connect", system] => Command::Client(system.parse()?, Work::Connect),
        ["stream", system] => Command::Client(system.parse()?, Work::Stream(size)),
        _ => return Err(USAGE.into()),
    };
    Ok(arguments)
}

fn duration(seconds: f64) -> Outcome<Duration> {
    Ok(Duration::try_from_secs_f64(seconds)?)
}
