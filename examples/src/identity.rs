//! The guide's identity service, in both versions: a token `user-<n>` is valid and belongs to `<n>`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aegis::{Caller, NodeId};
use aegis_proto::identity::v1::identity_service_server::IdentityService as IdentityV1;
use aegis_proto::identity::v2::identity_service_server::IdentityService as IdentityV2;
use aegis_proto::identity::{v1, v2};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::IntervalStream;
use tonic::codegen::BoxStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, async_trait};

/// The response metadata in which `GetUser` says whom the provider saw.
pub const CALLER_ID: &str = "caller-id";
/// As [`CALLER_ID`], for the caller's node type.
pub const CALLER_TYPE: &str = "caller-type";

/// How long a valid session lasts from now.
const SESSION: Duration = Duration::from_secs(3_600);
/// How often a subscriber hears of a session.
const EVENT: Duration = Duration::from_secs(1);

/// A provider that answers with its own node id, and can be slow or fail on purpose.
#[derive(Debug, Clone)]
pub struct Identity {
    node: NodeId,
    delay: Duration,
    error_rate: f64,
    seen: Arc<Seen>,
}

/// What the provider saw of its callers.
#[derive(Debug, Default)]
pub struct Seen {
    calls: AtomicU64,
    finished: AtomicU64,
}

impl Seen {
    /// Calls that began.
    pub fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Calls that came to their end; a cancelled one does not.
    pub fn finished(&self) -> u64 {
        self.finished.load(Ordering::Relaxed)
    }
}

impl Identity {
    /// The service of a node that answers at once.
    pub fn new(node: NodeId) -> Self {
        Self { node, delay: Duration::ZERO, error_rate: 0.0, seen: Arc::default() }
    }

    /// Waits before each answer.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Answers this share of the calls, 0 to 1, with `UNAVAILABLE` at once.
    #[must_use]
    pub fn error_rate(mut self, rate: f64) -> Self {
        self.error_rate = rate;
        self
    }

    /// What it saw of its callers.
    pub fn seen(&self) -> Arc<Seen> {
        Arc::clone(&self.seen)
    }

    /// Every call passes here: who calls, and does it go on.
    async fn admit<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let caller = Caller::from_request(request)?;
        let number = self.seen.calls.fetch_add(1, Ordering::Relaxed);
        tracing::info!(caller = %caller.node_id(), "called");
        if fails(number, self.error_rate) {
            return Err(Status::unavailable(format!("{} fails on purpose", self.node)));
        }
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        self.seen.finished.fetch_add(1, Ordering::Relaxed);
        Ok(caller)
    }
}

/// Spreads the failures evenly over the calls.
#[expect(clippy::cast_precision_loss, reason = "a share of calls needs no 53 bits")]
fn fails(number: u64, rate: f64) -> bool {
    let share = |number: u64| (number as f64 * rate).floor();
    share(number) < share(number + 1)
}

/// Says in the answer whom the provider saw: the caller's id and type, as its certificate has them.
fn tell(caller: &Caller, metadata: &mut MetadataMap) {
    for (name, value) in
        [(CALLER_ID, caller.node_id().as_str()), (CALLER_TYPE, caller.node_type().as_str())]
    {
        // Ids and types are plain ASCII by their grammar.
        if let Ok(value) = value.parse() {
            metadata.insert(name, value);
        }
    }
}

fn user(token: &str) -> Option<&str> {
    token.strip_prefix("user-").filter(|user| !user.is_empty())
}

fn unix(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or(0)
}

fn expiry(valid: bool) -> i64 {
    if valid { unix(SystemTime::now() + SESSION) } else { 0 }
}

/// An event per second, for as long as somebody listens.
fn events<T: 'static>(event: impl Fn() -> T + Send + 'static) -> BoxStream<T> {
    Box::pin(IntervalStream::new(tokio::time::interval(EVENT)).map(move |_| Ok(event())))
}

#[async_trait]
impl IdentityV1 for Identity {
    async fn validate_session(
        &self,
        request: Request<v1::ValidateSessionRequest>,
    ) -> Result<Response<v1::ValidateSessionResponse>, Status> {
        self.admit(&request).await?;
        let user = user(&request.get_ref().token);
        Ok(Response::new(v1::ValidateSessionResponse {
            valid: user.is_some(),
            user_id: user.unwrap_or_default().to_owned(),
            expires_at: expiry(user.is_some()),
        }))
    }

    async fn get_user(
        &self,
        request: Request<v1::GetUserRequest>,
    ) -> Result<Response<v1::GetUserResponse>, Status> {
        let caller = self.admit(&request).await?;
        let id = request.into_inner().user_id;
        let email = format!("user-{id}@example.com");
        let mut response = Response::new(v1::GetUserResponse {
            id,
            email,
            name: self.node.to_string(),
            ..Default::default()
        });
        tell(&caller, response.metadata_mut());
        Ok(response)
    }

    async fn subscribe_session_events(
        &self,
        request: Request<v1::SubscribeSessionEventsRequest>,
    ) -> Result<Response<BoxStream<v1::SessionEvent>>, Status> {
        let caller = self.admit(&request).await?;
        Ok(Response::new(events(move || v1::SessionEvent {
            r#type: v1::SessionEventType::Created.into(),
            token_prefix: "user-".to_owned(),
            user_id: caller.node_id().to_string(),
            timestamp: unix(SystemTime::now()),
        })))
    }
}

#[async_trait]
impl IdentityV2 for Identity {
    async fn validate_session(
        &self,
        request: Request<v2::ValidateSessionRequest>,
    ) -> Result<Response<v2::ValidateSessionResponse>, Status> {
        self.admit(&request).await?;
        let user = user(&request.get_ref().token);
        Ok(Response::new(v2::ValidateSessionResponse {
            valid: user.is_some(),
            subject: user.unwrap_or_default().to_owned(),
            expires_at: expiry(user.is_some()),
        }))
    }

    async fn get_user(
        &self,
        request: Request<v2::GetUserRequest>,
    ) -> Result<Response<v2::GetUserResponse>, Status> {
        let caller = self.admit(&request).await?;
        let id = request.into_inner().user_id;
        let email = format!("user-{id}@example.com");
        let mut response = Response::new(v2::GetUserResponse {
            id,
            email,
            name: self.node.to_string(),
            ..Default::default()
        });
        tell(&caller, response.metadata_mut());
        Ok(response)
    }

    async fn renew_session(
        &self,
        request: Request<v2::RenewSessionRequest>,
    ) -> Result<Response<v2::RenewSessionResponse>, Status> {
        self.admit(&request).await?;
        let Some(_) = user(&request.get_ref().token) else {
            return Err(Status::not_found("the token stands for no session"));
        };
        Ok(Response::new(v2::RenewSessionResponse { expires_at: expiry(true) }))
    }
}
