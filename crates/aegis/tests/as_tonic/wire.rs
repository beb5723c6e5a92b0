//! What users put around a handler or a channel.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptorLayer;
use tonic::{Request, Status};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, ServiceBuilder, ServiceExt as _};

use super::echo::Boxed;

/// A channel or a handler, of whichever type.
pub(crate) type Wire = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Failure>;

pub(crate) type Answer = Result<http::Response<Body>, Failure>;

/// An error of a service: the error itself, in a type that the compiler can follow through tonic's futures.
pub(crate) struct Failure(BoxError);

impl<E: std::error::Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl From<Failure> for BoxError {
    fn from(failure: Failure) -> Self {
        failure.0
    }
}

/// A tower layer that is one function.
#[derive(Clone)]
pub(crate) struct Around(Arc<dyn Fn(http::Request<Body>, Wire) -> Boxed<Answer> + Send + Sync>);

impl Around {
    pub(crate) fn new<F>(
        around: impl Fn(http::Request<Body>, Wire) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        Self(Arc::new(move |request, inner| Box::pin(around(request, inner))))
    }
}

impl Default for Around {
    fn default() -> Self {
        Self::new(|request, inner| inner.oneshot(request))
    }
}

impl<S, B> Layer<S> for Around
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Service = Wrapped;

    fn layer(&self, inner: S) -> Wrapped {
        Wrapped { inner: boxed(inner), around: self.clone() }
    }
}

#[derive(Clone)]
pub(crate) struct Wrapped {
    inner: Wire,
    around: Around,
}

impl Service<http::Request<Body>> for Wrapped {
    type Response = http::Response<Body>;
    type Error = Failure;
    type Future = Boxed<Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        (self.around.0)(request, self.inner.clone())
    }
}

/// An interceptor that is one function.
#[derive(Clone)]
pub(crate) struct Intercept(Arc<InterceptFn>);

type InterceptFn = dyn Fn(Request<()>) -> Result<Request<()>, Status> + Send + Sync;

impl Intercept {
    pub(crate) fn new(
        intercept: impl Fn(Request<()>) -> Result<Request<()>, Status> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(intercept))
    }
}

impl Default for Intercept {
    fn default() -> Self {
        Self::new(Ok)
    }
}

impl Interceptor for Intercept {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        (self.0)(request)
    }
}

/// A channel with what a row of the table puts around it.
pub(crate) fn around<S, B>(channel: S, layer: Around, intercept: Intercept) -> Wire
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let service =
        ServiceBuilder::new().layer(InterceptorLayer::new(intercept)).layer(layer).service(channel);
    boxed(service)
}

pub(crate) fn boxed<S, B>(service: S) -> Wire
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let to_body = |response: http::Response<B>| response.map(Body::new);
    BoxCloneSyncService::new(service.map_response(to_body).map_err(|error| Failure(error.into())))
}
