use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use aegis_proto::identity::v1::{
    SessionEvent, SubscribeSessionEventsRequest, ValidateSessionRequest, ValidateSessionResponse,
};
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use crate::burn::Burn;

/// The metadata that says how large a stream's messages are.
const SIZE: &str = "size";

/// How a provider behaves.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Behaviour {
    /// The number that its replies bear, by which a caller knows it.
    pub(crate) number: u32,
    pub(crate) burn: Option<Burn>,
    /// How long it waits before it answers.
    pub(crate) delay: Duration,
    /// Whether it fails each call, at once.
    pub(crate) fail: bool,
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
        if self.behaviour.fail {
            return Err(Status::unavailable("it fails each call"));
        }
        if let Some(burn) = self.behaviour.burn {
            burn.take(self.calls.fetch_add(1, Ordering::Relaxed));
        }
        if !self.behaviour.delay.is_zero() {
            tokio::time::sleep(self.behaviour.delay).await;
        }
        let user_id = request.into_inner().token;
        let expires_at = self.behaviour.number.into();
        Ok(Response::new(ValidateSessionResponse { valid: true, user_id, expires_at }))
    }

    async fn subscribe_session_events(
        &self,
        request: Request<SubscribeSessionEventsRequest>,
    ) -> Result<Response<BoxStream<SessionEvent>>, Status> {
        let size = request.metadata().get(SIZE).and_then(|size| size.to_str().ok()?.parse().ok());
        let size: usize = size.ok_or_else(|| Status::invalid_argument("it names no size"))?;
        // Tag and length before it.
        let overhead = if size < 128 { 2 } else { 4 };
        let event = SessionEvent {
            user_id: "e".repeat(size.saturating_sub(overhead)),
            ..SessionEvent::default()
        };
        let events = std::iter::repeat_with(move || Ok(event.clone()));
        Ok(Response::new(Box::pin(tokio_stream::iter(events))))
    }
}

pub(crate) fn service(behaviour: Behaviour) -> IdentityServiceServer<Echo> {
    IdentityServiceServer::new(Echo { behaviour, calls: AtomicU64::new(0) })
}

/// 64 bytes on the wire.
pub(crate) fn request() -> Request<ValidateSessionRequest> {
    Request::new(ValidateSessionRequest { token: "t".repeat(62) })
}

/// Asks for messages of `size` bytes, until nobody reads them.
pub(crate) fn subscription(size: usize) -> Request<SubscribeSessionEventsRequest> {
    let mut request = Request::new(SubscribeSessionEventsRequest {});
    request.metadata_mut().insert(SIZE, size.into());
    request
}
