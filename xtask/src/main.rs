//! Tasks of this workspace that cargo does not know by itself.

mod bench;
mod proto;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use proto::Mode;

const USAGE: &str = "\
usage: cargo xtask <task>

  proto                   writes the stubs of every .proto under proto/ to crates/aegis-proto/src/generated;
                          refuses what breaks peers or code written against the protos that are committed
  proto --allow-breaking  writes it all the same, and says what breaks
  proto --check           writes nothing; fails and names what breaks, or else the files that would change";

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to its user")]
fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let mode = match arguments[..] {
        ["bench", ref options @ ..] => return bench(options),
        ["proto"] => Mode::Write,
        ["proto", "--allow-breaking"] => Mode::WriteBreaking,
        ["proto", "--check"] => Mode::Check,
        _ => {
            eprintln!("{USAGE}\n\n{}", bench::USAGE);
            return ExitCode::from(2);
        }
    };
    match proto::run(&workspace(), mode) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a command talks to its user")]
fn bench(options: &[&str]) -> ExitCode {
    match bench::run(&workspace(), options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The directory of the workspace, wherever inside it the task was started.
fn workspace() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}
