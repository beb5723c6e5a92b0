//! Who may call what: the guide's three patterns, and those who do not even get in.
//!
//! ```text
//! cargo run --example authorization
//! ```
//!
//! A provider and its callers over real mutual TLS sockets, in one process. Each line is printed from what came back, and
//! the exit code is 0 only if all of it came true. `--break allowed|refused|type|no-certificate|other-ca` spoils one
//! step, to show that it is noticed.

use std::collections::HashSet;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use aegis::{
    Caller, Node, NodeId, NodeType, Server, ServiceChannel, ServiceClient, ServiceInfo, ServicePool,
};
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use aegis_proto::identity::v1::{
    GetUserRequest, GetUserResponse, ValidateSessionRequest, ValidateSessionResponse,
};
use examples::args::{self, Outcome};
use examples::strangers;
use examples::tour::line;
use lexopt::Arg::Long;
use tonic::{Code, Request, Response, Status};

const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
const API_GATEWAY: NodeType = NodeType::from_static("api-gateway");
/// How long a step may take.
const STEP: Duration = Duration::from_secs(5);

const USAGE: &str = "\
Who may call what: an allow list, a node type, and those who are refused at the door. Exit code 0 only if each is.

usage: authorization [--break STEP]

  --break STEP  spoils a step: allowed, refused, type, no-certificate or other-ca";

/// The server of the guide: it knows whom it answers.
struct IdentityServer {
    allowed: HashSet<NodeId>,
}

impl IdentityServer {
    /// A server that validates sessions for these nodes only.
    fn new(allowed: impl IntoIterator<Item = NodeId>) -> Self {
        Self { allowed: allowed.into_iter().collect() }
    }
}

#[tonic::async_trait]
impl IdentityService for IdentityServer {
    /// For nodes on the allow list.
    async fn validate_session(
        &self,
        request: Request<ValidateSessionRequest>,
    ) -> Result<Response<ValidateSessionResponse>, Status> {
        // Who calls is what the certificate of the connection says, never what the request says.
        // Without one the call ends here with UNAUTHENTICATED.
        let caller = Caller::from_request(&request)?;
        if !self.allowed.contains(caller.node_id()) {
            return Err(Status::permission_denied(format!(
                "node {} may not validate sessions",
                caller.node_id()
            )));
        }
        let user_id = request.into_inner().token.trim_start_matches("user-").to_owned();
        Ok(Response::new(ValidateSessionResponse { valid: true, user_id, ..Default::default() }))
    }

    /// For nodes of one type, whatever their ids.
    async fn get_user(
        &self,
        request: Request<GetUserRequest>,
    ) -> Result<Response<GetUserResponse>, Status> {
        let caller = Caller::from_request(&request)?;
        // The type is in the certificate, too. The directory shows types as well, but not those of nodes that only call.
        if *caller.node_type() != API_GATEWAY {
            return Err(Status::permission_denied(format!(
                "nodes of type {} may not read users",
                caller.node_type()
            )));
        }
        let id = request.into_inner().user_id;
        let email = format!("user-{id}@example.com");
        Ok(Response::new(GetUserResponse { id, email, ..Default::default() }))
    }
}

/// The step that is spoilt on purpose.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Break {
    /// The one who is to be allowed is not on the list.
    Allowed,
    /// The one who is to be refused is.
    Refused,
    /// The gateway has another type.
    Type,
    /// The one without a certificate brings one.
    NoCertificate,
    /// The other CA is the mesh's own.
    OtherCa,
}

const BREAKS: [(&str, Break); 5] = [
    ("allowed", Break::Allowed),
    ("refused", Break::Refused),
    ("type", Break::Type),
    ("no-certificate", Break::NoCertificate),
    ("other-ca", Break::OtherCa),
];

#[tokio::main]
async fn main() -> ExitCode {
    // No logs: the refusals are what the lines are about.
    args::report(run().await)
}

#[expect(clippy::print_stdout, reason = "help was asked for")]
async fn run() -> Outcome<ExitCode> {
    let mut broken = None;
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("break") => broken = Some(args::choice("break", &mut parser, &BREAKS)?),
            Long("help") => {
                println!("{USAGE}");
                return Ok(ExitCode::SUCCESS);
            }
            _ => return Err(format!("{}\n{USAGE}", arg.unexpected()).into()),
        }
    }
    let certs = tempfile::Builder::new().prefix("aegis-authorization-").tempdir()?;
    let allowed = match broken {
        Some(Break::Allowed) => vec![],
        Some(Break::Refused) => vec!["vicky-1".parse()?, "oscar-1".parse()?],
        _ => vec!["vicky-1".parse()?],
    };
    let listed: Vec<_> = allowed.iter().map(NodeId::as_str).collect();
    let listed = if listed.is_empty() { "nobody".to_owned() } else { listed.join(" and ") };
    let server = Node::builder()
        .id("morpheus-1")
        .node_type("identity-server")
        .address("127.0.0.1:0")
        .service(IDENTITY_V1, IdentityServiceServer::new(IdentityServer::new(allowed)))
        .cert_dir(certs.path())
        .build()?
        .start()
        .await?;
    line(
        "morpheus-1",
        format_args!("validates sessions for {listed}, shows users to nodes of type {API_GATEWAY}"),
    );

    allow_list(&server, certs.path()).await?;
    node_type(&server, certs.path(), broken).await?;
    without_a_certificate(&server, certs.path(), broken).await?;
    of_another_ca(&server, certs.path(), broken).await?;

    server.shutdown().await?;
    line("done", "each was let in or kept out as it should be");
    Ok(ExitCode::SUCCESS)
}

/// One of two nodes of the same type is on the list.
async fn allow_list(server: &Server, certs: &Path) -> Outcome {
    let vicky = caller(server, certs, "vicky-1", "storage")?;
    let session =
        vicky.validate_session().await.map_err(|status| unexpected("vicky-1", &status))?;
    line("allowed", format_args!("vicky-1 validates a session: it is of user {}", session.user_id));

    let oscar = caller(server, certs, "oscar-1", "storage")?;
    match oscar.validate_session().await {
        Ok(_) => Err("oscar-1 is not on the list and was answered".into()),
        Err(status) => {
            expect(Code::PermissionDenied, "oscar-1", &status)?;
            line("refused", format_args!("oscar-1 reads {}", text(&status)));
            Ok(())
        }
    }
}

/// What a node is decides, not which one it is.
async fn node_type(server: &Server, certs: &Path, broken: Option<Break>) -> Outcome {
    let kind = if broken == Some(Break::Type) { "storage" } else { "api-gateway" };
    let gate = caller(server, certs, "gate-1", kind)?;
    let user = gate.get_user().await.map_err(|status| unexpected("gate-1", &status))?;
    line("type", format_args!("gate-1, of type {kind}, reads a user: {}", user.email));

    let vicky = caller(server, certs, "vicky-1", "storage")?;
    match vicky.get_user().await {
        Ok(_) => return Err("vicky-1 is no gateway and was shown a user".into()),
        Err(status) => {
            expect(Code::PermissionDenied, "vicky-1", &status)?;
            line("", format_args!("vicky-1, of type storage, reads {}", text(&status)));
        }
    }

    // A look into the directory would not do: who only calls is not in it.
    let directory = server.node().directory().snapshot();
    let Some(morpheus) = directory.node(server.node().id()) else {
        return Err("the provider is not in its own directory".into());
    };
    if let Some(gate) = directory.node(&"gate-1".parse()?) {
        return Err(format!("{} only calls, and is in the directory", gate.node_id()).into());
    }
    let listed = morpheus.node_type().map_or("", NodeType::as_str);
    line(
        "",
        format_args!(
            "the directory lists morpheus-1 as {listed} and gate-1 not at all: the certificate decides"
        ),
    );
    Ok(())
}

/// Somebody knows the address and trusts the right CA, but has no certificate.
async fn without_a_certificate(server: &Server, certs: &Path, broken: Option<Break>) -> Outcome {
    let refused_before = server.stats().refused;
    let issued = strangers::issue(certs, "vicky-1", "storage")?;
    let certificate = Some(&issued).filter(|_| broken == Some(Break::NoCertificate));
    let (address, id) = (server.local_addr(), server.node().id());
    let Err(error) = strangers::knock(address, id, &issued.ca, certificate).await? else {
        return Err("whom nobody knows was let in".into());
    };
    check_refused(server, refused_before).await?;
    line("no cert", format_args!("a client without a certificate reads {error}"));
    Ok(())
}

/// Somebody has a certificate for the name that is allowed, from another CA.
async fn of_another_ca(server: &Server, certs: &Path, broken: Option<Break>) -> Outcome {
    let refused_before = server.stats().refused;
    let elsewhere = certs.join("elsewhere");
    let ca = if broken == Some(Break::OtherCa) { certs } else { elsewhere.as_path() };
    let issued = strangers::issue(ca, "vicky-1", "storage")?;
    let pool = ServicePool::builder()
        .tls(strangers::outsider(&issued, certs)?)
        .provider(server.node().id().as_str(), server.local_addr().to_string(), [IDENTITY_V1])
        .build()?;
    let Err(status) = Client::new(&pool).validate_session().await else {
        return Err("a certificate of another CA was believed".into());
    };
    check_refused(server, refused_before).await?;
    line("other CA", format_args!("vicky-1 of another CA reads {}", text(&status)));
    Ok(())
}

/// The client's word is not enough: the server has to have refused somebody.
async fn check_refused(server: &Server, before: u64) -> Outcome {
    if strangers::refusal_counted(server, before, STEP).await {
        Ok(())
    } else {
        Err("a handshake failed, but the server refused nobody".into())
    }
}

/// A client of the provider.
struct Client(ServiceClient<IdentityServiceClient<ServiceChannel>>);

/// A node of its own that calls the provider.
fn caller(server: &Server, certs: &Path, id: &str, node_type: &str) -> Outcome<Client> {
    let seed = server.local_addr().to_string();
    let node = Node::builder().id(id).node_type(node_type).cert_dir(certs).join([seed]).build()?;
    Ok(Client::new(&node.pool()))
}

impl Client {
    fn new(pool: &ServicePool) -> Self {
        Self(ServiceClient::new(pool, IDENTITY_V1, IdentityServiceClient::new))
    }

    async fn validate_session(&self) -> Result<ValidateSessionResponse, Status> {
        let request = ValidateSessionRequest { token: "user-7".to_owned() };
        Ok(self.0.get()?.validate_session(request).await?.into_inner())
    }

    async fn get_user(&self) -> Result<GetUserResponse, Status> {
        let request = GetUserRequest { user_id: "7".to_owned() };
        Ok(self.0.get()?.get_user(request).await?.into_inner())
    }
}

fn expect(code: Code, caller: &str, status: &Status) -> Outcome {
    if status.code() == code { Ok(()) } else { Err(unexpected(caller, status)) }
}

fn unexpected(caller: &str, status: &Status) -> Box<dyn std::error::Error + Send + Sync> {
    format!("{caller} reads {}", text(status)).into()
}

fn text(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}
