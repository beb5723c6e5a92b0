//! The directory of a mesh as JSON, and each change of it.
//!
//! ```text
//! cargo run --example directory
//! cargo run --example directory -- --seed 127.0.0.1:8443 --cert-dir ./certs
//! ```
//!
//! The first line of the output is the directory as it is, each further one a change. The program follows the mesh as a
//! client: it does not listen and is not in the directory itself.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use aegis::topology::{NodeEntry, NodeState, Root, SyncState};
use aegis::{Directory, Node, NodeId, NodeType, Server, ServiceInfo, Snapshot};
use aegis_proto::identity::v1::identity_service_server::IdentityServiceServer;
use examples::args::{self, Outcome};
use examples::identity::Identity;
use lexopt::Arg::Long;
use serde::Serialize;

const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
/// How long the first answer of a seed, or a step of the demonstration, may take.
const STEP: Duration = Duration::from_secs(5);

const USAGE: &str = "\
The directory of a mesh as one line of JSON, then each change of it as another, until SIGINT.

usage: directory [options]

  --seed HOST:PORT  a node to learn the mesh from; may be repeated
                    (default: a small mesh in this process, whose nodes come and go; it ends by itself)
  --cert-dir DIR    certificates; a development CA makes what is missing; needed with --seed
  --id ID           the id to ask under (default directory-1)
  --once            only the directory, not its changes

{\"change\": ..} is joined, changed, restarted, refreshed, left or expired. Exit code 0 if a seed answered.";

struct Options {
    seeds: Vec<String>,
    cert_dir: Option<PathBuf>,
    id: String,
    once: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    args::report(run().await)
}

#[expect(clippy::print_stdout, reason = "help was asked for")]
async fn run() -> Outcome<ExitCode> {
    let Some(options) = parse()? else {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    };
    match &options.cert_dir {
        Some(certs) if !options.seeds.is_empty() => {
            examples::logs::install();
            let ending = async {
                tokio::signal::ctrl_c().await?;
                Ok(())
            };
            show(certs, &options.seeds, &options, async |_: &Directory| ending.await).await?;
        }
        None if options.seeds.is_empty() => {
            // No logs: the one warning, that a development CA was made, is of no interest here.
            let certs = tempfile::Builder::new().prefix("aegis-directory-").tempdir()?;
            let first = provider(certs.path(), "morpheus-1", &[]).await?;
            let seeds = [first.local_addr().to_string()];
            show(certs.path(), &seeds, &options, async |directory: &Directory| {
                come_and_go(certs.path(), &seeds, directory).await
            })
            .await?;
            first.shutdown().await?;
        }
        _ => return Err("--seed and --cert-dir need each other".into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints the directory, then its changes until `ending` is over.
async fn show(
    certs: &Path,
    seeds: &[String],
    options: &Options,
    ending: impl AsyncFnOnce(&Directory) -> Outcome,
) -> Outcome {
    let node = Node::builder().id(&options.id).cert_dir(certs).join(seeds).build()?;
    let directory = node.directory();
    // Before the first look, so that no change is between the two.
    let mut watch = directory.watch();
    let first = directory.wait_for(Snapshot::is_synced, STEP).await;
    let mut known = first.map_err(|error| match error.last.sync_state() {
        SyncState::Failing(seeds) => seeds
            .iter()
            .map(|seed| format!("no answer from {}: {}", seed.address, seed.reason))
            .collect::<Vec<_>>()
            .join("; "),
        _ => error.to_string(),
    })?;
    print(&*known)?;
    if options.once {
        return Ok(());
    }
    let mut ending = std::pin::pin!(ending(&directory));
    loop {
        let (now, ended) = tokio::select! {
            now = watch.changed() => (now, None),
            ended = &mut ending => (directory.snapshot(), Some(ended)),
        };
        for change in changes(&known, &now) {
            print(&change)?;
        }
        if let Some(ended) = ended {
            return ended;
        }
        known = now;
    }
}

/// What happened to a node between two looks.
#[derive(Serialize)]
struct Change<'a> {
    #[serde(rename = "change")]
    what: What,
    node_id: &'a NodeId,
    node_type: Option<&'a NodeType>,
    state: NodeState,
    services: Vec<String>,
    /// The same on two nodes exactly if their directories are.
    root: Root,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum What {
    /// It was not there before.
    Joined,
    /// It says something else of itself: its state, addresses or services.
    Changed,
    /// It is another run of the node.
    Restarted,
    /// It says the same again, so that it stays listed.
    Refreshed,
    /// It said goodbye.
    Left,
    /// It has been silent for too long.
    Expired,
}

fn changes<'a>(old: &'a Snapshot, new: &'a Snapshot) -> Vec<Change<'a>> {
    let mut changes = Vec::new();
    let mut add = |what, node: &'a NodeEntry| {
        changes.push(Change {
            what,
            node_id: node.node_id(),
            node_type: node.node_type(),
            state: node.state(),
            services: node.services().iter().map(|service| service.info().to_string()).collect(),
            root: new.version().root,
        });
    };
    for was in old.nodes() {
        match new.node(was.node_id()) {
            None => add(What::Expired, was),
            Some(is) if is.state() == NodeState::Left => add(What::Left, is),
            Some(is) if is == was => {}
            Some(is) if is.incarnation() != was.incarnation() => add(What::Restarted, is),
            Some(is)
                if is.state() == was.state()
                    && is.services() == was.services()
                    && is.addresses() == was.addresses() =>
            {
                add(What::Refreshed, is);
            }
            Some(is) => add(What::Changed, is),
        }
    }
    for is in new.nodes() {
        if !old.nodes().iter().any(|was| was.node_id() == is.node_id()) {
            add(What::Joined, is);
        }
    }
    changes
}

/// The demonstration: a second provider joins, then leaves as it should.
async fn come_and_go(certs: &Path, seeds: &[String], directory: &Directory) -> Outcome {
    let id: NodeId = "morpheus-2".parse()?;
    let second = provider(certs, id.as_str(), seeds).await?;
    directory.wait_for_providers(&IDENTITY_V1, 2, STEP).await?;
    second.shutdown().await?;
    let left = |snapshot: &Snapshot| {
        snapshot.node(&id).is_some_and(|node| node.state() == NodeState::Left)
    };
    directory.wait_for(left, STEP).await?;
    Ok(())
}

async fn provider(certs: &Path, id: &str, seeds: &[String]) -> Outcome<Server> {
    let identity = Identity::new(id.parse()?);
    let node = Node::builder()
        .id(id)
        .node_type("identity-server")
        .address("127.0.0.1:0")
        .service(IDENTITY_V1, IdentityServiceServer::new(identity))
        .cert_dir(certs)
        .join(seeds)
        .build()?;
    Ok(node.start().await?)
}

#[expect(clippy::print_stdout, reason = "the directory is this program's result")]
fn print(value: &impl Serialize) -> Outcome {
    println!("{}", serde_json::to_string(value)?);
    Ok(())
}

fn parse() -> Outcome<Option<Options>> {
    let mut options =
        Options { seeds: vec![], cert_dir: None, id: "directory-1".to_owned(), once: false };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("seed") => options.seeds.push(args::value("seed", &mut parser)?),
            Long("cert-dir") => options.cert_dir = Some(args::value("cert-dir", &mut parser)?),
            Long("id") => options.id = args::value("id", &mut parser)?,
            Long("once") => options.once = true,
            Long("help") => return Ok(None),
            _ => return Err(format!("{}\n{USAGE}", arg.unexpected()).into()),
        }
    }
    Ok(Some(options))
}
