use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use aegis_core::{NodeId, ServiceInfo};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service as TowerService;

use crate::body::ResponseBody;
use crate::call::Call;
use crate::limit::ResponseLimit;
use crate::load::Outcome;
use crate::policy::{CallPolicy, Policies};
use crate::service::Service;
use crate::view::{Picked, Provider};
use crate::{Error, Explanation};

/// Calls a service of the mesh; a provider is chosen for each request.
///
/// It is what generated clients are made of (`IdentityServiceClient::new(channel)`), and a tower service that
/// layers of the user may wrap. Cloning it is cheap. It is always ready: the provider, and with it readiness,
/// is chosen per call.
///
/// A call goes to a connected provider, in turns (round robin) unless a [`Balancer`](crate::Balancer) says otherwise. While the first sync or a first connection is
/// under way it waits, at most 5 s; then it fails with what [`Error::NoProviders`] says. A request that provably never
/// was processed goes to another provider, and one that is idempotent under the conditions of its [`CallPolicy`]: the
/// [crate's documentation](crate#how-a-call-finds-its-way) says when.
///
/// A deadline (`Request::set_timeout`, or that of the handler the call is made in) covers the whole call; without one, a
/// response limit of 10 s runs up to the response headers.
///
/// An answer that is a failed status comes as the error, as a broken connection does, and one that had begun ends with
/// it; the status keeps a [`Failure`](crate::Failure).
#[derive(Clone, Debug)]
pub struct ServiceChannel {
    pub(crate) service: Arc<Service>,
    pub(crate) limit: ResponseLimit,
    pub(crate) policies: Policies,
    pub(crate) pin: Option<Arc<OnceLock<Arc<Provider>>>>,
}

impl ServiceChannel {
    pub(crate) fn new(service: Arc<Service>, policies: Policies) -> Self {
        let limit = service.pool.limit;
        Self { service, limit, policies, pin: None }
    }

    /// How the calls of a method are made, `/package.Service/Method`, or those of a whole gRPC service, `package.Service`
    /// (default: as the pool says).
    ///
    /// A method's own policy counts before that of its service, and takes its place as a whole. Of two for one name the
    /// later one counts.
    #[must_use]
    pub fn policy(mut self, name: &str, policy: CallPolicy) -> Self {
        self.policies.set(name, policy);
        self
    }

    /// Limits how long a call without a deadline waits for its response headers (default: the pool's, which is 10 s, and no
    /// limit towards foreign providers). Then the call ends with `DEADLINE_EXCEEDED`.
    ///
    /// The wait for a provider, for a stream and for the peer's window counts. Each piece of the request that is
    /// taken to be sent restarts it. A response that has begun may take as long as it likes.
    #[must_use]
    pub fn response_limit(mut self, limit: Duration) -> Self {
        self.limit = ResponseLimit::Set(limit);
        self
    }

    /// Lets a call without a deadline wait for ever (default: the pool's limit holds).
    #[must_use]
    pub fn no_response_limit(mut self) -> Self {
        self.limit = ResponseLimit::Off;
        self
    }

    /// The service it calls.
    pub fn info(&self) -> &ServiceInfo {
        &self.service.info
    }

    /// Says for each provider whether it is called, and if not, why.
    pub fn explain(&self) -> Explanation {
        self.service.pool.explain(&self.service.info)
    }

    /// Whether a call has somebody to go to, now or after the first sync or connection.
    ///
    /// # Errors
    /// What the call would fail with at once: [`Error::Closed`], [`Error::NoTlsConfig`] or [`Error::NoProviders`].
    pub fn check(&self) -> Result<(), Error> {
        self.service.pool.check()?;
        if self.service.view.load().is_hopeful() {
            return Ok(());
        }
        Err(self.service.pool.no_providers(&self.service.info))
    }

    /// Waits until `count` providers are connected, full ones among them; one that does not answer PINGs does not count.
    ///
    /// # Errors
    /// [`Error::NotReady`] after `timeout`; [`Error::Closed`] or [`Error::NoTlsConfig`] at once.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn wait_ready(&self, count: usize, timeout: Duration) -> Result<(), Error> {
        match tokio::time::timeout(timeout, self.connected(count)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.not_ready(count)),
        }
    }

    pub(crate) fn not_ready(&self, wanted: usize) -> Error {
        Error::NotReady {
            service: self.service.info.clone(),
            wanted,
            connected: self.service.view.load().ready.len(),
            explanation: Box::new(self.explain()),
        }
    }

    /// Whether a provider is connected and answers PINGs.
    pub(crate) fn is_connected(&self) -> bool {
        !self.service.view.load().ready.is_empty()
    }

    /// The channel of another service, with the limits and policies of this one.
    pub(crate) fn of(&self, info: ServiceInfo) -> Self {
        let service = self.service.pool.service(info);
        Self { service, limit: self.limit, policies: self.policies.clone(), pin: None }
    }

    pub(crate) async fn connected(&self, count: usize) -> Result<(), Error> {
        let mut views = self.service.views.subscribe();
        loop {
            self.service.pool.check()?;
            if count <= self.service.view.load().ready.len() {
                return Ok(());
            }
            // The sender lives in the service that we hold.
            if views.changed().await.is_err() {
                return Err(Error::Closed);
            }
        }
    }

    /// Chooses a provider, takes one of its slots and gives it back; whether there was one. For benchmarks.
    #[doc(hidden)]
    pub fn pick(&self) -> bool {
        self.service.pick_in(&self.service.view.load(), &[]).is_ok()
    }

    /// The same, and makes both its own, as a call does, and measures an attempt there that is answered at once. For benchmarks.
    #[doc(hidden)]
    pub fn attempt(&self) -> bool {
        let Ok(Picked { slot, provider }) = self.service.pick(&[]) else { return false };
        let mut measure = provider.begin(Instant::now());
        measure.finish(Outcome::Answered, Instant::now());
        drop(slot);
        true
    }

    /// The same channel, all of whose calls go to one provider: the next in turn, chosen now or, while the first
    /// sync or connection is under way, with the first call.
    pub(crate) fn pinned(&self) -> Result<Self, Error> {
        self.check()?;
        let pin = OnceLock::new();
        let view = self.service.view.load();
        if let Some(provider) = view.turn(&self.service.balance) {
            // A fresh lock is empty.
            drop(pin.set(Arc::clone(provider)));
        }
        Ok(Self { pin: Some(Arc::new(pin)), ..self.clone() })
    }

    /// The provider that all its calls go to, once it is chosen; `None` for a channel that chooses per call.
    pub fn pinned_to(&self) -> Option<&NodeId> {
        self.pin.as_ref()?.get().map(|provider| provider.node_id())
    }
}

impl TowerService<http::Request<Body>> for ServiceChannel {
    type Response = http::Response<ResponseBody>;
    type Error = Status;
    type Future = ResponseFuture;

    // Always ready, also when closed: tonic turns an error from here into a bare string.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> ResponseFuture {
        // Read here and not in the future: the caller's task has the inherited deadline, whoever polls.
        let inner = match Call::new(self, request) {
            Ok(mut call) => Inner::Call(Box::pin(async move { call.run().await })),
            Err(status) => Inner::Refused(Some(status)),
        };
        ResponseFuture { inner }
    }
}

/// The answer to come. Dropping it gives the call up: a request that was sent is reset (`CANCEL`), and the provider may
/// have acted on it.
#[must_use = "futures do nothing unless polled"]
pub struct ResponseFuture {
    inner: Inner,
}

enum Inner {
    Call(Pin<Box<dyn Future<Output = Result<http::Response<ResponseBody>, Status>> + Send>>),
    /// What is no request of gRPC; `None` once that is said.
    Refused(Option<Status>),
}

impl Future for ResponseFuture {
    type Output = Result<http::Response<ResponseBody>, Status>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.inner {
            Inner::Call(call) => call.as_mut().poll(cx),
            Inner::Refused(status) => match status.take() {
                Some(status) => Poll::Ready(Err(status)),
                None => Poll::Pending,
            },
        }
    }
}

impl std::fmt::Debug for ResponseFuture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
