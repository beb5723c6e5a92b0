//! A tour of aegis: two providers and a consumer over real mutual TLS sockets, in one process.
//!
//! ```text
//! cargo run --example quickstart
//! ```
//!
//! Each line is printed from what came back; the exit code is 0 only if all of it came true.
//! `--break ca|discovery|drain|intruder` spoils one step, to show that the tour notices.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use aegis::{Node, Server, ServiceChannel, ServiceClient, ServiceInfo, ServicePool};
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_proto::identity::v1::identity_service_server::IdentityServiceServer;
use aegis_proto::identity::v1::{GetUserRequest, GetUserResponse};
use examples::args::{self, Outcome};
use examples::identity::{CALLER_ID, CALLER_TYPE, Identity};
use examples::load::Load;
use examples::strangers;
use examples::tour::{line, millis};
use lexopt::Arg::Long;
use tokio::time::sleep;

const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
const USAGE: &str = "\
usage: quickstart [--break ca|discovery|drain|intruder]

  --break STEP  spoil a step, to see that the tour notices";
/// How long each step may take before the tour calls it failed.
const STEP: Duration = Duration::from_secs(5);
/// How long a provider works on a call while another drains, so that calls are always in flight.
const WORK: Duration = Duration::from_millis(10);

type Identities = ServiceClient<IdentityServiceClient<ServiceChannel>>;

/// The step that is spoilt on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Break {
    Ca,
    Discovery,
    Drain,
    Intruder,
}

const BREAKS: [(&str, Break); 4] = [
    ("ca", Break::Ca),
    ("discovery", Break::Discovery),
    ("drain", Break::Drain),
    ("intruder", Break::Intruder),
];

#[tokio::main]
async fn main() -> ExitCode {
    // No logs: the one warning, that a development CA was made, is the tour's first line.
    args::report(run().await)
}

async fn run() -> Outcome<ExitCode> {
    let broken = match parse()? {
        Task::Help => {
            line("quickstart", format_args!("a tour of aegis\n{USAGE}"));
            return Ok(ExitCode::SUCCESS);
        }
        Task::Tour(broken) => broken,
    };
    let directory = tempfile::Builder::new().prefix("aegis-quickstart-").tempdir()?;

    let morpheus_1 = serve("morpheus-1", directory.path(), None, broken).await?;
    let seed = morpheus_1.local_addr().to_string();
    let morpheus_2 = serve(
        "morpheus-2",
        directory.path(),
        Some(&seed).filter(|_| broken != Some(Break::Discovery)),
        broken,
    )
    .await?;

    let vicky = Node::builder()
        .id("vicky-1")
        .node_type("storage")
        .cert_dir(directory.path())
        .join([&seed])
        .build()?;
    let pool = vicky.pool();
    let identity = ServiceClient::new(&pool, IDENTITY_V1, IdentityServiceClient::new);
    discover(&vicky, &identity, &seed).await?;
    call_both(&identity).await?;
    drain(morpheus_1, &identity, broken).await?;
    intrude(&morpheus_2, directory.path(), broken).await?;

    pool.close().await;
    morpheus_2.shutdown().await?;
    line(
        "done",
        format_args!(
            "all of it over mutual TLS 1.3; {} is removed again",
            directory.path().display()
        ),
    );
    directory.close()?;
    Ok(ExitCode::SUCCESS)
}

/// A provider; the first one makes the development CA.
async fn serve(
    id: &str,
    directory: &Path,
    seed: Option<&String>,
    broken: Option<Break>,
) -> Outcome<Server> {
    let ca = directory.join("ca-cert.pem");
    let first = !ca.exists();
    let identity = Identity::new(id.parse()?).delay(WORK);
    let builder = Node::builder()
        .id(id)
        .node_type("identity-server")
        .address("127.0.0.1:0")
        .service(IDENTITY_V1, IdentityServiceServer::new(identity))
        .cert_dir(directory)
        .join(seed);
    let server = builder.build()?.start().await?;
    if first {
        if broken == Some(Break::Ca) {
            std::fs::remove_file(&ca)?;
        }
        std::fs::metadata(&ca).map_err(|error| format!("no CA at {}: {error}", ca.display()))?;
        line("dev CA", format_args!("made in {} (never for production)", directory.display()));
    }
    line(id, format_args!("listening on {}, serves {IDENTITY_V1}", server.local_addr()));
    Ok(server)
}

/// The consumer knows one provider's address and finds both.
async fn discover(vicky: &Node, identity: &Identities, seed: &str) -> Outcome {
    let began = Instant::now();
    identity
        .wait_ready(2, STEP)
        .await
        .map_err(|error| format!("the consumer did not find both providers: {error}"))?;
    let snapshot = vicky.directory().snapshot();
    let found: Vec<_> =
        snapshot.providers(&IDENTITY_V1).iter().map(|node| node.node_id().as_str()).collect();
    line(
        vicky.id(),
        format_args!(
            "joined {seed}, found and reached {} in {}",
            found.join(" and "),
            millis(began)
        ),
    );
    Ok(())
}

/// Calls go to the providers in turn, and each sees who calls.
async fn call_both(identity: &Identities) -> Outcome {
    let mut by = Vec::new();
    for number in 1..=4 {
        let began = Instant::now();
        let response = get_user(identity).await?;
        let saw = |key| {
            response.metadata().get(key).and_then(|value| value.to_str().ok()).unwrap_or("nobody")
        };
        let (caller, kind) = (saw(CALLER_ID), saw(CALLER_TYPE));
        if (caller, kind) != ("vicky-1", "storage") {
            return Err(format!(
                "the provider saw the caller {caller} of type {kind}, not vicky-1 of type storage"
            )
            .into());
        }
        let provider = response.get_ref().name.clone();
        line(
            format_args!("call {number}"),
            format_args!(
                "{IDENTITY_V1} GetUser -> {provider} in {} ({provider} saw {caller} of type {kind})",
                millis(began)
            ),
        );
        by.push(provider);
    }
    match by.as_slice() {
        [a, b, c, d] if a == c && b == d && a != b => Ok(()),
        _ => {
            Err(format!("calls did not go to the providers in turn, but to {}", by.join(", "))
                .into())
        }
    }
}

/// One provider leaves while callers go on.
async fn drain(server: Server, identity: &Identities, broken: Option<Break>) -> Outcome {
    let leaving = server.node().id().clone();
    let calling = identity.clone();
    let load = Load::start(8, move || {
        let identity = calling.clone();
        async move {
            match get_user(&identity).await {
                Ok(response) => Ok(response.into_inner().name),
                Err(error) => Err(error.to_string()),
            }
        }
    });
    sleep(WORK * 5).await;
    let began = Instant::now();
    if broken == Some(Break::Drain) {
        drop(server);
    } else {
        server.shutdown().await?;
    }
    let took = millis(began);
    sleep(WORK * 5).await;
    let tally = load.stop().await;
    if let Some(first) = &tally.first_failure {
        return Err(format!(
            "{} of {} calls were lost while {leaving} left, the first: {first}",
            tally.failed,
            tally.calls()
        )
        .into());
    }
    let name = get_user(identity).await?.into_inner().name;
    line(
        "drain",
        format_args!(
            "{leaving} left in {took} while 8 callers went on: {} calls, {} lost; the next went to {name}",
            tally.calls(),
            tally.failed
        ),
    );
    Ok(())
}

/// Somebody with a certificate of another CA, who knows everything else, is refused.
async fn intrude(server: &Server, directory: &Path, broken: Option<Break>) -> Outcome {
    let refused_before = server.stats().refused;
    // The same name, issued elsewhere; or, to spoil the tour, by the mesh's own CA.
    let elsewhere = directory.join("elsewhere");
    let issuer = if broken == Some(Break::Intruder) { directory } else { elsewhere.as_path() };
    let tls = strangers::outsider(&strangers::issue(issuer, "mallory-1", "storage")?, directory)?;
    let pool = ServicePool::builder()
        .tls(tls)
        .provider(server.node().id().as_str(), server.local_addr().to_string(), [IDENTITY_V1])
        .build()?;
    let identity = ServiceClient::new(&pool, IDENTITY_V1, IdentityServiceClient::new);
    let Err(error) = get_user(&identity).await else {
        return Err("the intruder was let in".into());
    };
    if !strangers::refusal_counted(server, refused_before, STEP).await {
        let text = format!("the intruder's call failed, but the server refused nobody: {error}");
        return Err(text.into());
    }
    line("intruder", format_args!("certificate of another CA: refused. It reads: {error}"));
    Ok(())
}

async fn get_user(identity: &Identities) -> Outcome<tonic::Response<GetUserResponse>> {
    let request = GetUserRequest { user_id: "7".to_owned() };
    identity
        .get()?
        .get_user(request)
        .await
        .map_err(|status| format!("{:?}: {}", status.code(), status.message()).into())
}

/// What the command line asks for.
enum Task {
    Help,
    Tour(Option<Break>),
}

fn parse() -> Outcome<Task> {
    let mut broken = None;
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("break") => broken = Some(args::choice("break", &mut parser, &BREAKS)?),
            Long("help") => return Ok(Task::Help),
            _ => return Err(format!("{}\n{USAGE}", arg.unexpected()).into()),
        }
    }
    Ok(Task::Tour(broken))
}
