//! A node that serves the identity service.
//!
//! ```text
//! cargo run --example provider -- --id morpheus-1 --type identity-server --address 127.0.0.1:8443 --cert-dir ./certs
//! ```
//!
//! It prints `listening ID HOST:PORT` when it is ready; SIGTERM drains it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use aegis::{Limits, Node, NodeId, ServiceInfo};
use aegis_proto::identity::v1::identity_service_server::IdentityServiceServer as IdentityV1Server;
use aegis_proto::identity::v2::identity_service_server::IdentityServiceServer as IdentityV2Server;
use examples::args::{self, Outcome};
use examples::identity::Identity;
use lexopt::Arg::Long;

const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
const IDENTITY_V2: ServiceInfo = ServiceInfo::from_static("identity", "v2");

const USAGE: &str = "\
A node that serves the identity service until it is told to stop.

usage: provider --id ID --type TYPE --address HOST:PORT --cert-dir DIR [options]

  --id ID                  the node's id, as its certificate has it
  --type TYPE              what kind of node it is
  --address HOST:PORT      where to listen; port 0 lets the system choose
  --cert-dir DIR           certificates; a development CA makes what is missing
  --join HOST:PORT         a node to learn the mesh from; may be repeated
  --service NAME/VERSION   what to serve it as: identity/v2 is the second proto, any other name the first;
                           may be repeated (default identity/v1)
  --advertise HOST:PORT    where others reach it, if not at --address; may be repeated
  --delay DURATION         wait before each answer (default 0)
  --error-rate 0..1        the share of calls to answer UNAVAILABLE at once (default 0)
  --weight 1..10000        its share of the calls of those who balance by weight (default 100)
  --max-age DURATION       the age at which a connection is replaced (default 60m)
  --drain DURATION         how long calls may go on after SIGTERM (default 20s)

A DURATION is 500ms, 5s, 2m or plain seconds. It prints `listening ID HOST:PORT` when it is ready; SIGTERM drains.";

struct Options {
    id: NodeId,
    node_type: String,
    address: String,
    advertise: Vec<String>,
    cert_dir: PathBuf,
    join: Vec<String>,
    services: Vec<ServiceInfo>,
    delay: Duration,
    error_rate: f64,
    weight: Option<u32>,
    max_age: Option<Duration>,
    drain: Option<Duration>,
}

#[tokio::main]
async fn main() -> ExitCode {
    examples::logs::install();
    args::report(run().await)
}

#[expect(clippy::print_stdout, reason = "scripts wait for this line")]
async fn run() -> Outcome<ExitCode> {
    let Some(options) = parse()? else {
        println!("{USAGE}");
        return Ok(ExitCode::SUCCESS);
    };
    let identity =
        Identity::new(options.id.clone()).delay(options.delay).error_rate(options.error_rate);
    let mut builder = Node::builder()
        .id(options.id.as_str())
        .node_type(options.node_type)
        .address(options.address)
        .cert_dir(options.cert_dir)
        .join(options.join);
    for address in options.advertise {
        builder = builder.advertise_address(address);
    }
    // `identity/v2` is the second proto; any other name is advertised for the first.
    let (second, first): (Vec<_>, Vec<_>) =
        options.services.into_iter().partition(|info| *info == IDENTITY_V2);
    if !first.is_empty() {
        let server = IdentityV1Server::new(identity.clone());
        builder = builder.routes(|routes| routes.add(server));
    }
    for info in first {
        builder = builder.advertise(info, ["aegis.identity.v1.IdentityService"]);
    }
    if !second.is_empty() {
        builder = builder.service(IDENTITY_V2, IdentityV2Server::new(identity));
    }
    if let Some(weight) = options.weight {
        builder = builder.weight(weight);
    }
    if let Some(age) = options.max_age {
        builder =
            builder.limits(Limits::default().max_connection_age(age, Duration::from_secs(300)));
    }
    if let Some(drain) = options.drain {
        builder = builder.drain_timeout(drain);
    }
    let node = builder.build()?;
    let server = node.start().await?;
    let address = server.local_addr();
    let running = server.run_until_signal();
    println!("listening {} {address}", options.id);
    running.await?;
    Ok(ExitCode::SUCCESS)
}

fn parse() -> Outcome<Option<Options>> {
    let (mut id, mut node_type, mut address, mut cert_dir) = (None, None, None, None);
    let (mut join, mut services, mut advertise) = (Vec::new(), Vec::new(), Vec::new());
    let (mut delay, mut error_rate, mut weight) = (Duration::ZERO, 0.0, None);
    let (mut max_age, mut drain) = (None, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("id") => id = Some(args::value("id", &mut parser)?),
            Long("type") => node_type = Some(args::value("type", &mut parser)?),
            Long("address") => address = Some(args::value("address", &mut parser)?),
            Long("advertise") => advertise.push(args::value("advertise", &mut parser)?),
            Long("cert-dir") => cert_dir = Some(args::value("cert-dir", &mut parser)?),
            Long("join") => join.push(args::value("join", &mut parser)?),
            Long("service") => services.push(args::value("service", &mut parser)?),
            Long("delay") => delay = args::duration("delay", &mut parser)?,
            Long("error-rate") => error_rate = args::value("error-rate", &mut parser)?,
            Long("weight") => weight = Some(args::value("weight", &mut parser)?),
            Long("max-age") => max_age = Some(args::duration("max-age", &mut parser)?),
            Long("drain") => drain = Some(args::duration("drain", &mut parser)?),
            Long("help") => return Ok(None),
            _ => return Err(format!("{}\n{USAGE}", arg.unexpected()).into()),
        }
    }
    if !(0.0..=1.0).contains(&error_rate) {
        return Err("--error-rate must be 0 to 1".into());
    }
    if weight.is_some_and(|weight: u32| !(1..=10_000).contains(&weight)) {
        return Err("--weight must be 1 to 10000".into());
    }
    if services.is_empty() {
        services.push(IDENTITY_V1);
    }
    Ok(Some(Options {
        id: args::required(id, "--id")?,
        node_type: args::required(node_type, "--type")?,
        address: args::required(address, "--address")?,
        cert_dir: args::required(cert_dir, "--cert-dir")?,
        advertise,
        join,
        services,
        delay,
        error_rate,
        weight,
        max_age,
        drain,
    }))
}
