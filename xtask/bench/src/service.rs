use std::sync::atomic::{AtomicU64, Ordering};

use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use aegis_proto::identity::v1::{ValidateSessionRequest, ValidateSessionResponse};
use tonic::{Request, Response, Status};

use crate::burn::Burn;

/// How a provider behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Behaviour {
    /// The number that its replies bear, by which a caller knows it.
    pub(crate) number: u32,
    pub(crate) burn: Option<Burn>,
}

/// Answers with what it was sent, as it is told to.
pub(crate) struct Echo {
    behaviour: Behaviour,
    calls: AtomicU64,
}

#[tonic::async_trait]
impl IdentityService for Echo {
    async fn validate_session(
        &self,
        request: Request<ValidateSessionRequest>,
    ) -> Result<Response<ValidateSessionResponse>, Status> {
        if let Some(burn) = self.behaviour.burn {
            burn.take(self.calls.fetch_add(1, Ordering::Relaxed));
        }
        let user_id = request.into_inner().token;
        let expires_at = self.behaviour.number.into();
        Ok(Response::new(ValidateSessionResponse { valid: true, user_id, expires_at }))
    }
}

pub(crate) fn service(behaviour: Behaviour) -> IdentityServiceServer<Echo> {
    IdentityServiceServer::new(Echo { behaviour, calls: AtomicU64::new(0) })
}

/// 64 bytes on the wire.
pub(crate) fn request() -> ValidateSessionRequest {
    ValidateSessionRequest { token: "t".repeat(62) }
}
