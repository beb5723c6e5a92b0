//! `cargo xtask bench`: aegis beside a named peer, in the same run.
//!
//! Client and server are processes of their own. Rounds are interleaved, peer and aegis in turns, so that what else
//! the machine does meets both. The figure is the ratio of the medians; beside it stand the least and the greatest
//! ratio of a round.

mod busy;
mod call;
mod compare;
mod connect;
mod faults;
mod figures;
mod kept;
mod options;
mod pick;
mod programs;
mod report;
mod stream;
mod summary;

use std::path::Path;

use options::Options;

pub(crate) const USAGE: &str = "\
  bench call [--ends both|client|server|three,..]
                          calls through aegis beside raw tonic, over the same mutual TLS: aegis on both ends, as the
                          client of a tonic server, as the server of a tonic client, or round robin over three
                          providers beside tonic's balance_list
  bench busy [--burn TIME[@1/N],..]
                          the same on both ends, with a handler that burns CPU before it answers
  bench stream            streams of messages of 64 B and of 1 MiB, and a small call beside four of the latter
  bench connect           a new client and connection for each call
  bench tail              three providers of which one refuses, fails, dawdles or hangs, beside tonic's balance_list and
                          tower's P2C with PeakEWMA
  bench failover          three providers that come late, are restarted or killed, beside tonic's balance_list
  options of these: [--json] [--save] [--rounds N] [--seconds S] [--runtime current_thread|multi_thread]
                    [--in-flight N,..] (of stream: how many); the client runs on each runtime in turn unless one is named,
                    that of tail and failover on multi_thread only; --json prints a line for each when all is measured;
                    --save writes docs/results/NAME.json, where other parts of the same commit stay
  bench pick [--json] [--save]
                          what finding one of 3 to 10,000 providers costs, on one thread and on two (criterion)
  bench all               all of them, one after the other";

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

pub(crate) fn run(workspace: &Path, arguments: &[&str]) -> Result<(), BenchError> {
    let Some((&name, options)) = arguments.split_first() else {
        return Err(BenchError::Usage(format!("usage: cargo xtask bench\n\n{USAGE}")));
    };
    let options = Options::parse(options)?;
    if name != "all" {
        return one(name, workspace, &options);
    }
    for name in ["busy", "stream", "connect", "tail", "failover", "call", "pick"] {
        one(name, workspace, &options)?;
    }
    Ok(())
}

fn one(name: &str, workspace: &Path, options: &Options) -> Result<(), BenchError> {
    match name {
        "call" => call::run(workspace, options),
        "busy" => busy::run(workspace, options),
        "stream" => stream::run(workspace, options),
        "connect" => connect::run(workspace, options),
        "tail" => faults::tail(workspace, options),
        "failover" => faults::failover(workspace, options),
        "pick" => pick::run(workspace, options),
        _ => Err(BenchError::Usage(format!("usage: cargo xtask bench\n\n{USAGE}"))),
    }
}
