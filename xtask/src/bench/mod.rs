//! `cargo xtask bench`: aegis beside a named peer, in the same run.
//!
//! Client and server are processes of their own. Rounds are interleaved, peer and aegis in turns, so that what else
//! the machine does meets both. The figure is the ratio of the medians; beside it stand the least and the greatest
//! ratio of a round.

mod busy;
mod call;
mod compare;
mod figures;
mod options;
mod programs;
mod report;

use std::path::Path;

use options::Options;

pub(crate) const USAGE: &str = "\
  bench call [--ends both|client|server|three,..]
                          calls through aegis beside raw tonic, over the same mutual TLS: aegis on both ends, as the
                          client of a tonic server, as the server of a tonic client, or round robin over three
                          providers beside tonic's balance_list
  bench busy [--burn TIME[@1/N],..]
                          the same on both ends, with a handler that burns CPU before it answers
  options of these: [--json] [--save] [--rounds N] [--seconds S] [--runtime current_thread|multi_thread]
                    [--in-flight N,..]; the client runs on each runtime unless one is named; --json prints a line for
                    each when all is measured; --save writes docs/results/NAME.json
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

pub(crate) fn run(workspace: &Path, arguments: &[&str]) -> Result<(), BenchError> {
    match arguments {
        ["call", options @ ..] => call::run(workspace, &Options::parse(options)?),
        ["busy", options @ ..] => busy::run(workspace, &Options::parse(options)?),
        ["pick"] => {
            programs::cargo(workspace, &["bench", "--package", "aegis-client", "--bench", "pick"])
        }
        _ => Err(BenchError::Usage(format!("usage: cargo xtask bench\n\n{USAGE}"))),
    }
}
