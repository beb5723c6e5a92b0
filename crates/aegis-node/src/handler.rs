use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower_service::Service;

type Answer = Pin<Box<dyn Future<Output = Response<Body>> + Send>>;

/// A gRPC service behind one name: what layers wrap and the server calls.
///
/// It never fails; an error is an answer with a gRPC status. It is always ready. Cloning it is cheap.
///
/// A layer of [`NodeBuilder::layer`](crate::NodeBuilder::layer) wraps it. This one lets nodes of one type in:
///
/// ```
/// use std::convert::Infallible;
/// use std::task::{Context, Poll};
///
/// use aegis_client::ServiceClient;
/// use aegis_core::ServiceInfo;
/// use aegis_node::Handler;
/// use aegis_proto::identity::v1::{GetUserRequest, identity_service_client::IdentityServiceClient};
/// use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
/// use aegis_testing::TestMesh;
/// use aegis_tls::Caller;
/// use http::{Request, Response};
/// use tonic::{Code, Status, body::Body};
/// use tower_layer::layer_fn;
/// use tower_service::Service;
///
/// #[derive(Clone)]
/// struct Only {
///     node_type: &'static str,
///     inner: Handler,
/// }
///
/// impl Service<Request<Body>> for Only {
///     type Response = Response<Body>;
///     type Error = Infallible;
///     type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;
///
///     fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
///         self.inner.poll_ready(cx)
///     }
///
///     fn call(&mut self, request: Request<Body>) -> Self::Future {
///         match Caller::from_extensions(request.extensions()) {
///             Ok(caller) if *caller.node_type() == self.node_type => Box::pin(self.inner.call(request)),
///             _ => Box::pin(async { Ok(Status::permission_denied("not for you").into_http()) }),
///         }
///     }
/// }
/// # struct Identity;
/// # impl IdentityService for Identity {}
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
/// let mesh = TestMesh::in_memory(); // its nodes are of type "test"
/// let server = mesh
///     .serve("morpheus-1", |node| {
///         node.service(IDENTITY_V1, IdentityServiceServer::new(Identity))
///             .layer(layer_fn(|inner| Only { node_type: "gateway", inner }))
///     })
///     .await;
/// let identity = ServiceClient::new(&mesh.node("vicky-1").pool(), IDENTITY_V1, IdentityServiceClient::new);
/// let refused = identity.get()?.get_user(GetUserRequest::default()).await.unwrap_err();
/// assert_eq!(refused.code(), Code::PermissionDenied);
/// # drop(server);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Handler {
    name: &'static str,
    call: Arc<dyn Fn(Request<Body>) -> Answer + Send + Sync>,
}

impl Handler {
    /// A generated server, or any tower service with a gRPC service name.
    ///
    /// Its bodies are of any type, since an interceptor puts one of its own around those of a generated server.
    pub(crate) fn new<S, B>(service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self::from_service(S::NAME, service)
    }

    /// The gRPC service name, such as `aegis.identity.v1.IdentityService`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// A wrapped handler: errors of the layer become a gRPC status.
    pub(crate) fn layered<S, B>(name: &'static str, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        Self::from_service(name, service)
    }

    fn from_service<S, B>(name: &'static str, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let call = move |request| -> Answer {
            let mut service = service.clone();
            Box::pin(async move {
                if let Err(error) = std::future::poll_fn(|cx| service.poll_ready(cx)).await {
                    return Status::from_error(error.into()).into_http();
                }
                match service.call(request).await {
                    Ok(response) => response.map(Body::new),
                    Err(error) => Status::from_error(error.into()).into_http(),
                }
            })
        };
        Self { name, call: Arc::new(call) }
    }
}

impl fmt::Debug for Handler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handler").field(&self.name).finish()
    }
}

impl Service<Request<Body>> for Handler {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = HandlerFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> HandlerFuture {
        HandlerFuture((self.call)(request))
    }
}

/// The answer of a [`Handler`]. Dropping it drops the handler's future: the call is given up.
pub struct HandlerFuture(Answer);

impl fmt::Debug for HandlerFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerFuture").finish_non_exhaustive()
    }
}

impl Future for HandlerFuture {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.as_mut().poll(cx).map(Ok)
    }
}
