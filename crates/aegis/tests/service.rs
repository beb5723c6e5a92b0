//! A provider that does what a story needs, and tells what it saw.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aegis::client::{RequestExt as _, deadline};
use aegis::{Caller, NodeBuilder, ServiceChannel, ServiceClient, ServiceInfo, ServicePool};
use aegis_proto::identity::v1 as wire;
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::IntervalStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

pub(crate) const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
pub(crate) const SECOND: Duration = Duration::from_secs(1);
/// Far longer than anything here takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);

/// So many here; all of them with `AEGIS_FULL` in the environment.
pub(crate) fn scaled(here: usize, all: usize) -> usize {
    if std::env::var_os("AEGIS_FULL").is_some() { all } else { here }
}

pub(crate) type Client = IdentityServiceClient<ServiceChannel>;

/// `GetUser` answers with the provider's name; what `user_id` says makes it slow, silent, large or mad.
#[derive(Clone)]
pub(crate) struct Identity {
    name: String,
    pub(crate) seen: Arc<Seen>,
    /// Whom `relay` asks.
    next: Option<ServiceClient<Client>>,
}

#[derive(Default)]
pub(crate) struct Seen {
    calls: AtomicU64,
    finished: AtomicU64,
    /// Handlers that were dropped before their end.
    cancelled: AtomicU64,
    /// What was left of each call's deadline when it came to the handler.
    left: Mutex<Vec<Option<Duration>>>,
}

impl Seen {
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// What was left of the last call's deadline when it came to the handler.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.left.lock().unwrap().last().copied().flatten()
    }

    pub(crate) fn finished(&self) -> u64 {
        self.finished.load(Ordering::SeqCst)
    }

    pub(crate) fn cancelled(&self) -> u64 {
        self.cancelled.load(Ordering::SeqCst)
    }
}

/// Counts a handler that is dropped before it says it is done.
struct Running(Arc<Seen>, bool);

impl Running {
    fn done(mut self) {
        self.1 = true;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let counter = if self.1 { &self.0.finished } else { &self.0.cancelled };
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

impl Identity {
    pub(crate) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), seen: Arc::default(), next: None }
    }

    /// Lets `relay` ask somebody else.
    pub(crate) fn relaying(mut self, next: ServiceClient<Client>) -> Self {
        self.next = Some(next);
        self
    }

    pub(crate) fn server(&self) -> IdentityServiceServer<Self> {
        IdentityServiceServer::new(self.clone())
    }

    /// Registers and advertises it as `identity/v1`.
    pub(crate) fn on(&self, builder: NodeBuilder) -> NodeBuilder {
        builder.service(IDENTITY_V1, self.server())
    }
}

impl Identity {
    async fn pass_on(
        &self,
        text: &str,
        mark: impl FnOnce(Request<wire::GetUserRequest>) -> Request<wire::GetUserRequest>,
    ) -> Result<Response<wire::GetUserResponse>, Status> {
        let mut request = Request::new(wire::GetUserRequest { user_id: text.to_owned() });
        request.set_timeout(3 * SECOND);
        self.next.as_ref().unwrap().get()?.get_user(mark(request)).await
    }
}

#[tonic::async_trait]
impl IdentityService for Identity {
    async fn get_user(
        &self,
        request: Request<wire::GetUserRequest>,
    ) -> Result<Response<wire::GetUserResponse>, Status> {
        let caller = Caller::from_request(&request)?;
        self.seen.calls.fetch_add(1, Ordering::SeqCst);
        let left = deadline::inherited().map(|at| Instant::from_std(at) - Instant::now());
        self.seen.left.lock().unwrap().push(left);
        let running = Running(Arc::clone(&self.seen), false);
        let remote = request.remote_addr().map(|address| address.to_string()).unwrap_or_default();
        let local = request.local_addr().map(|address| address.to_string()).unwrap_or_default();
        let agent = request
            .metadata()
            .get("user-agent")
            .and_then(|agent| agent.to_str().ok())
            .unwrap_or_default()
            .to_owned();
        let user = request.into_inner().user_id;
        let mut response = wire::GetUserResponse {
            name: self.name.clone(),
            email: caller.spiffe_id().to_string(),
            avatar_url: agent,
            ..Default::default()
        };
        match user.split_once(' ').unwrap_or((&user, "")) {
            ("sleep", millis) => {
                tokio::time::sleep(Duration::from_millis(millis.parse().unwrap())).await;
            }
            ("forever", _) => std::future::pending().await,
            ("panic", text) => panic!("{text}"),
            ("large", bytes) => response.id = "x".repeat(bytes.parse().unwrap()),
            // Works for so many milliseconds, and then gives the next one three seconds.
            ("later", text) => {
                let (millis, text) = text.split_once(' ').unwrap();
                tokio::time::sleep(Duration::from_millis(millis.parse().unwrap())).await;
                return self.pass_on(text, |request| request).await;
            }
            ("aside", text) => {
                return self.pass_on(text, Request::without_inherited_deadline).await;
            }
            ("relay", text) => {
                return Ok(Response::new(ask(self.next.as_ref().unwrap(), text).await?));
            }
            ("refuse", _) => {
                let mut status = Status::unimplemented("as a provider behind this one said");
                status.metadata_mut().insert("aegis-refused", "not-served".parse().unwrap());
                return Err(status);
            }
            ("fail", text) => {
                running.done();
                return Err(Status::internal(text));
            }
            ("addresses", _) => response.id = format!("{remote} {local}"),
            ("compress", _) => response.id = "z".repeat(100_000),
            _ => response.id = user,
        }
        running.done();
        Ok(Response::new(response))
    }

    async fn subscribe_session_events(
        &self,
        request: Request<wire::SubscribeSessionEventsRequest>,
    ) -> Result<Response<BoxStream<wire::SessionEvent>>, Status> {
        let caller = Caller::from_request(&request)?;
        self.seen.calls.fetch_add(1, Ordering::SeqCst);
        let event = wire::SessionEvent {
            user_id: caller.node_id().to_string(),
            token_prefix: self.name.clone(),
            ..Default::default()
        };
        let running = Running(Arc::clone(&self.seen), false);
        let events = IntervalStream::new(tokio::time::interval(Duration::from_millis(20)));
        Ok(Response::new(Box::pin(events.map(move |_| {
            let _running = &running;
            Ok(event.clone())
        }))))
    }
}

pub(crate) fn client(pool: &ServicePool) -> ServiceClient<Client> {
    ServiceClient::new(pool, IDENTITY_V1, IdentityServiceClient::new)
}

/// A client that is connected to so many providers.
pub(crate) async fn ready(pool: &ServicePool, providers: usize) -> ServiceClient<Client> {
    let client = client(pool);
    client.wait_ready(providers, LIMIT).await.unwrap();
    client
}

/// Which provider answers, or what the call ended with.
pub(crate) async fn ask(
    client: &ServiceClient<Client>,
    user: &str,
) -> Result<wire::GetUserResponse, Status> {
    let request = wire::GetUserRequest { user_id: user.to_owned() };
    Ok(client.get()?.get_user(request).await?.into_inner())
}
