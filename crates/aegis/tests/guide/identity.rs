// What the snippets of the guide on services share; tests/services_guide.rs compares it with what the guide shows.

use std::sync::Arc;

use aegis_proto::identity::v1::identity_service_server::IdentityService;
use aegis_proto::identity::v1::{ValidateSessionRequest, ValidateSessionResponse};
use tonic::{Request, Response, Status, async_trait};

pub struct Session {
    pub user_id: String,
    /// Unix seconds.
    pub expires_at: i64,
}

#[async_trait]
pub trait SessionStore: Send + Sync + 'static {
    async fn session(&self, token: &str) -> Option<Session>;
}

pub trait UserStore: Send + Sync + 'static {}

pub struct IdentityServer {
    // Your dependencies.
    pub sessions: Arc<dyn SessionStore>,
    pub users: Arc<dyn UserStore>,
}

#[async_trait]
impl IdentityService for IdentityServer {
    async fn validate_session(
        &self,
        request: Request<ValidateSessionRequest>,
    ) -> Result<Response<ValidateSessionResponse>, Status> {
        let token = &request.get_ref().token;
        let Some(session) = self.sessions.session(token).await else {
            return Ok(Response::new(ValidateSessionResponse { valid: false, ..Default::default() }));
        };
        Ok(Response::new(ValidateSessionResponse {
            valid: true,
            user_id: session.user_id,
            expires_at: session.expires_at,
        }))
    }
}

/// Sessions of which the token is `user-<id>`.
pub struct Tokens;

#[async_trait]
impl SessionStore for Tokens {
    async fn session(&self, token: &str) -> Option<Session> {
        let user_id = token.strip_prefix("user-")?.to_owned();
        Some(Session { user_id, expires_at: 1_800_000_000 })
    }
}

impl UserStore for Tokens {}

/// A server with stores, for snippets that are about something else.
pub fn identity_server() -> IdentityServer {
    IdentityServer { sessions: Arc::new(Tokens), users: Arc::new(Tokens) }
}

/// A started node that provides identity/v1.
pub async fn provider(
    id: &str,
    certs: &std::path::Path,
) -> Result<aegis::Server, Box<dyn std::error::Error>> {
    use aegis_proto::identity::v1::identity_service_server::IdentityServiceServer;
    let node = aegis::Node::builder()
        .id(id)
        .node_type("identity-server")
        .address("127.0.0.1:0")
        .service(
            aegis::ServiceInfo::from_static("identity", "v1"),
            IdentityServiceServer::new(identity_server()),
        )
        .cert_dir(certs)
        .build()?;
    Ok(node.start().await?)
}

/// A node that calls what `seed` knows.
pub fn consumer(
    id: &str,
    certs: &std::path::Path,
    seed: &aegis::Server,
) -> Result<aegis::Node, aegis::node::BuildError> {
    let seed = seed.local_addr().to_string();
    aegis::Node::builder().id(id).node_type("storage").join([seed]).cert_dir(certs).build()
}
