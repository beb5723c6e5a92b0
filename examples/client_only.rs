//! A process that is no node: it calls the services of a mesh, serves nothing and is not in the directory.
//!
//! ```text
//! cargo run --example client_only
//! ```
//!
//! starts a provider in a second process and calls it. With `--seed` it calls a mesh that is there already:
//!
//! ```text
//! cargo run --example provider -- --id morpheus-1 --type identity-server --address 127.0.0.1:8443 --cert-dir ./certs
//! cargo run --example issue -- --id gate-1 --type api-gateway --cert-dir ./certs --out ./gate
//! cargo run --example client_only -- --seed 127.0.0.1:8443 --id gate-1 --cert-dir ./gate
//! ```
//!
//! All but the function `serve` below compiles with `aegis = { default-features = false, features = ["client"] }`.
//! Each line is printed from what came back, and the exit code is 0 only if all of it came true.

use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use aegis::client::Error;
use aegis::{Chain, ServiceClient, ServiceInfo, ServicePool, TlsOptions};
use aegis_proto::identity::v1::GetUserRequest;
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use examples::args::{self, Outcome};
use examples::tour::line;
use lexopt::Arg::Long;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
/// A version that nobody serves yet.
const IDENTITY_V9: ServiceInfo = ServiceInfo::from_static("identity", "v9");
/// How long a step may take.
const STEP: Duration = Duration::from_secs(5);

const USAGE: &str = "\
A process that is no node calls identity/v1. Exit code 0 only if each step behaves.

usage: client_only [options]

  --seed HOST:PORT  a node to learn the mesh from; may be repeated (default: a provider in a process of its own)
  --id ID           whose certificate it is (default gate-1)
  --cert-dir DIR    where ID-cert.pem, ID-key.pem and ca-cert.pem are, as `issue` writes them; with --seed
  --break STEP      spoils a step: mesh, call, version or close";

/// The step that is spoilt on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Break {
    /// Nobody is at the seed.
    Mesh,
    /// The provider has gone.
    Call,
    /// The version asked for is served.
    Version,
    /// The pool is not closed.
    Close,
}

const BREAKS: [(&str, Break); 4] = [
    ("mesh", Break::Mesh),
    ("call", Break::Call),
    ("version", Break::Version),
    ("close", Break::Close),
];

enum Task {
    Help,
    /// Calls a mesh.
    Call(Options),
    /// Is the second process, with certificates in this directory.
    #[cfg(feature = "server")]
    Serve(PathBuf),
}

struct Options {
    seeds: Vec<String>,
    id: String,
    cert_dir: Option<PathBuf>,
    broken: Option<Break>,
}

#[tokio::main]
async fn main() -> ExitCode {
    examples::logs::install();
    args::report(run().await)
}

#[expect(clippy::print_stdout, reason = "help was asked for")]
async fn run() -> Outcome<ExitCode> {
    match parse()? {
        Task::Help => println!("{USAGE}"),
        #[cfg(feature = "server")]
        Task::Serve(certs) => serve(&certs).await?,
        Task::Call(Options { seeds, id, cert_dir: Some(certs), broken }) if !seeds.is_empty() => {
            call(&certs, &id, &seeds, broken, async || ()).await?;
        }
        Task::Call(options) if options.seeds.is_empty() && options.cert_dir.is_none() => {
            if !cfg!(feature = "server") {
                return Err("built without a provider to call: name a node with --seed".into());
            }
            let certs = tempfile::Builder::new().prefix("aegis-client-only-").tempdir()?;
            let mut provider = Process::spawn(certs.path()).await?;
            let seed = provider.address().to_owned();
            line("provider", format_args!("morpheus-1, in another process, at {seed}"));
            let seeds = [seed];
            call(certs.path(), "gate-1", &seeds, options.broken, async || provider.kill().await)
                .await?;
        }
        Task::Call(_) => return Err("--seed and --cert-dir need each other".into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// What a user's client does.
async fn call(
    certs: &Path,
    id: &str,
    seeds: &[String],
    broken: Option<Break>,
    kill_provider: impl AsyncFnOnce(),
) -> Outcome {
    let seeds = if broken == Some(Break::Mesh) { &["127.0.0.1:1".to_owned()] } else { seeds };

    let file = |name: &str| certs.join(name);
    let pool = ServicePool::builder()
        .tls(
            TlsOptions::files(
                file(&format!("{id}-cert.pem")),
                file(&format!("{id}-key.pem")),
                file("ca-cert.pem"),
            )
            // For certificates of the examples' CA; in production leave it out.
            .allow_development(),
        )
        .seeds(seeds)
        .build()?;
    let identity = ServiceClient::new(&pool, IDENTITY_V1, IdentityServiceClient::new);

    // Optional: without it the first call waits for the directory and the first connection, too.
    identity.wait_ready(1, STEP).await.map_err(|error| format!("mesh: {error}"))?;
    let directory = pool.directory().snapshot();
    let nodes: Vec<_> = directory.nodes().iter().map(|node| node.node_id().as_str()).collect();
    if nodes.contains(&id) {
        return Err(format!("mesh: {id} is a client, and is in the directory").into());
    }
    line(
        "mesh",
        format_args!("{} knows of {}, and of no client", seeds.join(", "), nodes.join(", ")),
    );

    if broken == Some(Break::Call) {
        kill_provider().await;
    }
    for number in 1..=3 {
        let request = GetUserRequest { user_id: number.to_string() };
        match identity.get()?.get_user(request).await {
            Ok(reply) => {
                let user = reply.into_inner();
                line("call", format_args!("{IDENTITY_V1} of {}: {}", user.name, user.email));
            }
            Err(status) => {
                return Err(format!("call: {:?}: {}", status.code(), status.message()).into());
            }
        }
    }

    // Who asks for what nobody serves is told so at once, with what there is.
    let version = if broken == Some(Break::Version) { IDENTITY_V1 } else { IDENTITY_V9 };
    let missing = ServiceClient::new(&pool, version, IdentityServiceClient::new);
    match missing.get() {
        Err(error @ Error::NoProviders { .. }) => line("version", Chain::new(&error)),
        Err(error) => return Err(format!("version: {error}").into()),
        Ok(_) => return Err(format!("version: {} is served", missing.info()).into()),
    }

    // Calls under way end first; dropping the pool and its clients would end them.
    if broken != Some(Break::Close) {
        pool.close().await;
    }
    match identity.get() {
        Err(error @ Error::Closed) => line("close", Chain::new(&error)),
        Err(error) => return Err(format!("close: {error}").into()),
        Ok(_) => return Err("close: the pool is closed and takes calls".into()),
    }
    line("done", "called without being a node");
    Ok(())
}

fn parse() -> Outcome<Task> {
    let (mut seeds, mut id, mut cert_dir, mut broken) = (vec![], "gate-1".to_owned(), None, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("seed") => seeds.push(args::value("seed", &mut parser)?),
            Long("id") => id = args::value("id", &mut parser)?,
            Long("cert-dir") => cert_dir = Some(args::value("cert-dir", &mut parser)?),
            Long("break") => broken = Some(args::choice("break", &mut parser, &BREAKS)?),
            #[cfg(feature = "server")]
            // Not for people: what the second process is started with.
            Long("serve") => return Ok(Task::Serve(args::value("serve", &mut parser)?)),
            Long("help") => return Ok(Task::Help),
            _ => return Err(format!("{}\n{USAGE}", arg.unexpected()).into()),
        }
    }
    Ok(Task::Call(Options { seeds, id, cert_dir, broken }))
}

/// The second process; it ends when this is dropped.
struct Process {
    child: Child,
    address: String,
}

impl Process {
    /// Starts this program once more, and waits until it listens.
    async fn spawn(certs: &Path) -> Outcome<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        // Its warning is about the development CA, which is for this run only.
        command.arg("--serve").arg(certs).env("RUST_LOG", "error").kill_on_drop(true);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let Some(stdout) = child.stdout.take() else { return Err("it has no output".into()) };
        let mut address = String::new();
        BufReader::new(stdout).read_line(&mut address).await?;
        if address.is_empty() {
            return Err("the provider did not start".into());
        }
        Ok(Self { child, address: address.trim().to_owned() })
    }

    fn address(&self) -> &str {
        &self.address
    }

    async fn kill(&mut self) {
        // It may have ended by itself, which is as good.
        drop(self.child.kill().await);
    }
}

/// What the second process does: it is a provider, and issues the client's certificate.
#[cfg(feature = "server")]
#[expect(clippy::print_stdout, reason = "the first process waits for this line")]
async fn serve(certs: &Path) -> Outcome {
    use aegis_proto::identity::v1::identity_service_server::IdentityServiceServer;
    use examples::identity::Identity;

    examples::strangers::issue(certs, "gate-1", "api-gateway")?;
    let server = aegis::Node::builder()
        .id("morpheus-1")
        .node_type("identity-server")
        .address("127.0.0.1:0")
        .service(IDENTITY_V1, IdentityServiceServer::new(Identity::new("morpheus-1".parse()?)))
        .cert_dir(certs)
        .build()?
        .start()
        .await?;
    println!("{}", server.local_addr());
    server.run_until_signal().await?;
    Ok(())
}
