use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tokio::time::sleep;
use tonic::Status;
use tonic::body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::delay::Delay;
use super::rules::Shared;
use super::seed::Draws;

/// Which calls a rule is for: all under a name, or those of one method (a path without its first slash).
type Which = (String, Option<String>);

/// The faults of the calls of a node, or of one method there; from [`Faults::at`](super::Faults::at).
///
/// Of [`fail`](Self::fail) and [`hang`](Self::hang) the last one counts; a [`delay`](Self::delay) comes before it, and
/// [`share`](Self::share) says how many calls meet any of it. They last until [`heal`](Self::heal).
#[derive(Clone)]
pub struct CallFaults {
    shared: Arc<Shared>,
    which: Which,
}

/// What is wrong with some calls.
#[derive(Debug, Default)]
struct Rule {
    delay: Option<Delay>,
    ending: Option<Ending>,
    share: Option<f64>,
    /// Calls that were looked at, and those that met it.
    seen: u64,
    met: u64,
}

#[derive(Debug, Clone)]
enum Ending {
    Fails(Box<Status>),
    Hangs,
}

impl Rule {
    fn is_idle(&self) -> bool {
        self.delay.is_none() && self.ending.is_none()
    }

    fn heal(&mut self) {
        let Self { seen, met, .. } = *self;
        *self = Self { seen, met, ..Self::default() };
    }
}

/// All rules, and whether there are any: where nothing is wrong, a call costs a look at a flag.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    any: AtomicBool,
    rules: Mutex<HashMap<Which, Rule>>,
}

impl Calls {
    pub(crate) fn heal(&self) {
        self.change(|rules| rules.values_mut().for_each(Rule::heal));
    }

    fn change(&self, how: impl FnOnce(&mut HashMap<Which, Rule>)) {
        let mut rules = self.rules();
        how(&mut rules);
        self.any.store(!rules.values().all(Rule::is_idle), Ordering::Release);
    }

    fn rules(&self) -> MutexGuard<'_, HashMap<Which, Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// What one call meets; a rule for its method counts before one for all.
    fn meet(&self, name: &str, path: &str) -> Option<(Duration, Option<Ending>)> {
        if !self.calls.any.load(Ordering::Acquire) {
            return None;
        }
        let method = path.strip_prefix('/').unwrap_or(path);
        let mut rules = self.calls.rules();
        let of_method = (name.to_owned(), Some(method.to_owned()));
        let which = match rules.get(&of_method) {
            Some(rule) if !rule.is_idle() => of_method,
            _ => (name.to_owned(), None),
        };
        let rule = rules.get_mut(&which).filter(|rule| !rule.is_idle())?;
        rule.seen += 1;
        let key = [name, which.1.as_deref().unwrap_or_default()];
        let mut draws = Draws::of(self.seed, &key, rule.seen);
        if let Some(share) = rule.share {
            self.note_draw();
            if share <= draws.fraction() {
                return None;
            }
        }
        rule.met += 1;
        let delay = rule.delay.map(|delay| self.draw(delay, &mut draws));
        Some((delay.unwrap_or_default(), rule.ending.clone()))
    }
}

impl CallFaults {
    pub(crate) fn new(shared: &Arc<Shared>, name: String, method: Option<String>) -> Self {
        Self { shared: Arc::clone(shared), which: (name, method) }
    }

    /// The faults of one method alone, `package.Service/Method`; they count before those of the whole node.
    ///
    /// ```
    /// use aegis_testing::TestMesh;
    /// use tonic::Status;
    ///
    /// let mesh = TestMesh::in_memory();
    /// let get_user = mesh.faults().at("morpheus-1").method("aegis.identity.v1.IdentityService/GetUser");
    /// get_user.share(0.1).fail(Status::unavailable("one call in ten fails"));
    /// assert_eq!(get_user.met(), 0); // so far
    /// ```
    #[must_use]
    pub fn method(&self, method: impl AsRef<str>) -> Self {
        let method = method.as_ref();
        let method = method.strip_prefix('/').unwrap_or(method).to_owned();
        Self { shared: Arc::clone(&self.shared), which: (self.which.0.clone(), Some(method)) }
    }

    /// Answers with a status, details and metadata included, and does not call the handler.
    pub fn fail(&self, status: Status) -> &Self {
        self.change(|rule| rule.ending = Some(Ending::Fails(Box::new(status))))
    }

    /// Never answers, and does not call the handler: the call ends by its deadline or its caller.
    ///
    /// A call that hangs is not healed later.
    pub fn hang(&self) -> &Self {
        self.change(|rule| rule.ending = Some(Ending::Hangs))
    }

    /// Waits before the handler is called, or before the failure.
    pub fn delay(&self, delay: impl Into<Delay>) -> &Self {
        let delay = delay.into();
        self.change(|rule| rule.delay = Some(delay))
    }

    /// Lets only this share of the calls meet the faults, from 0 to 1 (default: all); which ones is drawn.
    pub fn share(&self, share: f64) -> &Self {
        self.change(|rule| rule.share = Some(share))
    }

    /// Ends the faults that were set here.
    pub fn heal(&self) -> &Self {
        self.change(Rule::heal)
    }

    /// How many calls have met the faults that were set here.
    pub fn met(&self) -> u64 {
        self.shared.calls.rules().get(&self.which).map_or(0, |rule| rule.met)
    }

    fn change(&self, how: impl FnOnce(&mut Rule)) -> &Self {
        self.shared.calls.change(|rules| how(rules.entry(self.which.clone()).or_default()));
        self
    }
}

impl fmt::Debug for CallFaults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CallFaults").field(&self.which).finish()
    }
}

/// Puts calls under faults; from [`Faults::layer`](super::Faults::layer).
#[derive(Clone, Debug)]
pub struct FaultLayer {
    shared: Arc<Shared>,
    name: Arc<str>,
}

impl FaultLayer {
    pub(crate) fn new(shared: &Arc<Shared>, name: String) -> Self {
        Self { shared: Arc::clone(shared), name: name.into() }
    }
}

impl<S> Layer<S> for FaultLayer {
    type Service = FaultService<S>;

    fn layer(&self, inner: S) -> FaultService<S> {
        FaultService { layer: self.clone(), inner }
    }
}

/// The service of a [`FaultLayer`].
///
/// It is as ready as the one it wraps. Dropping its future drops the call.
#[derive(Clone, Debug)]
pub struct FaultService<S> {
    layer: FaultLayer,
    inner: S,
}

impl<S, B> Service<Request<Body>> for FaultService<S>
where
    S: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let FaultLayer { shared, name } = &self.layer;
        let Some((delay, ending)) = shared.meet(name, request.uri().path()) else {
            let calling = self.inner.call(request);
            return Box::pin(async { Ok(calling.await?.map(Body::new)) });
        };
        // The one that was found ready is called, and another one waits for the next call.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            match ending {
                None => Ok(inner.call(request).await?.map(Body::new)),
                Some(Ending::Fails(status)) => Ok(status.into_http()),
                Some(Ending::Hangs) => std::future::pending().await,
            }
        })
    }
}
