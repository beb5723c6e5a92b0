use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use aegis_proto::identity::v1::{ValidateSessionRequest, ValidateSessionResponse};
use tonic::{Request, Response, Status};

/// Answers at once, with what it was sent.
pub(crate) struct Echo;

#[tonic::async_trait]
impl IdentityService for Echo {
    async fn validate_session(
        &self,
        request: Request<ValidateSessionRequest>,
    ) -> Result<Response<ValidateSessionResponse>, Status> {
        let user_id = request.into_inner().token;
        Ok(Response::new(ValidateSessionResponse { valid: true, user_id, expires_at: 1 }))
    }
}

pub(crate) fn service() -> IdentityServiceServer<Echo> {
    IdentityServiceServer::new(Echo)
}

/// 64 bytes on the wire.
pub(crate) fn request() -> ValidateSessionRequest {
    ValidateSessionRequest { token: "t".repeat(62) }
}
