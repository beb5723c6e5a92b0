//! The programs that `cargo xtask bench` starts: servers, and clients that load them.
//!
//! All systems send the same message through the same generated stubs, over the same kind of TLS and the same window
//! sizes. They differ in what lies between: tonic's transport, or aegis.

mod aegis_peer;
mod arguments;
mod burn;
mod certificates;
mod client;
mod cpu;
mod load;
mod raw_peer;
mod service;

use std::process::ExitCode;

use arguments::{Arguments, Command, System};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[expect(clippy::print_stderr, reason = "a command talks to its user")]
fn main() -> ExitCode {
    match arguments::parse().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", aegis::Chain::new(&*error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Outcome<()> {
    let Arguments { command, certs, flavor, serve, providers, plan } = arguments;
    flavor.run(async move {
        match command {
            Command::Certs => certificates::issue(&certs),
            Command::Serve(System::Raw) => raw_peer::serve(&certs, serve).await,
            Command::Serve(System::Aegis) => aegis_peer::serve(&certs, serve).await,
            Command::Serve(System::BalanceList) => Err("balance-list is a client".into()),
            Command::Call(System::Raw) => {
                load::run(plan, raw_peer::connect(&certs, providers.only()?).await?).await
            }
            Command::Call(System::BalanceList) => {
                load::run(plan, raw_peer::balance(&certs, &providers)?).await
            }
            Command::Call(System::Aegis) => {
                load::run(plan, aegis_peer::connect(&certs, &providers).await?).await
            }
        }
    })
}
