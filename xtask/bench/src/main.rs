//! The programs that `cargo xtask bench` starts: servers, and clients that load them.
//!
//! All systems send the same message through the same generated stubs, over the same kind of TLS and the same window
//! sizes. They differ in what lies between: tonic's transport, or aegis.

mod aegis_peer;
mod arguments;
mod burn;
mod certificates;
mod client;
mod connect;
mod cpu;
mod hung;
mod load;
mod raw_peer;
mod service;
mod stream;

use std::future::ready;
use std::path::Path;
use std::process::ExitCode;

use arguments::{Arguments, Command, Providers, System, Work};
use client::Client;
use connect::Fresh;
use load::Plan;

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
            Command::ServeRaw => raw_peer::serve(&certs, serve).await,
            Command::ServeAegis => aegis_peer::serve(&certs, serve).await,
            Command::ServeHung => hung::serve(serve).await,
            Command::Client(system, work) => client(system, work, &certs, &providers, plan).await,
        }
    })
}

async fn client(
    system: System,
    work: Work,
    certs: &Path,
    providers: &Providers,
    plan: Plan,
) -> Outcome<()> {
    match system {
        System::Raw => {
            let (certs, address) = (certs.to_owned(), providers.only()?);
            let connect = move || {
                let certs = certs.clone();
                async move { raw_peer::connect(&certs, address).await }
            };
            perform(work, plan, connect).await
        }
        System::Aegis => {
            let (certs, providers) = (certs.to_owned(), providers.clone());
            let connect = move || {
                let (certs, providers) = (certs.clone(), providers.clone());
                async move { aegis_peer::connect(&certs, &providers).await }
            };
            perform(work, plan, connect).await
        }
        System::BalanceList => {
            let client = raw_peer::balance(certs, providers)?;
            perform(work, plan, move || ready(Ok(client.clone()))).await
        }
        System::P2c => {
            let client = raw_peer::p2c(certs, providers).await?;
            perform(work, plan, move || ready(Ok(client.clone()))).await
        }
    }
}

async fn perform<C: Client, F: Future<Output = Outcome<C>> + Send>(
    work: Work,
    plan: Plan,
    connect: impl Fn() -> F + Clone + Send + Sync + 'static,
) -> Outcome<()> {
    match work {
        Work::Call => load::run(plan, connect().await?).await,
        Work::Connect => load::run(plan, Fresh(connect)).await,
        Work::Stream(size) => stream::run(plan, connect().await?, size).await,
    }
}
