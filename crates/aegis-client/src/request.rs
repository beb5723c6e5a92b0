use http::Extensions;

/// What a single call may ask for, set on its request.
///
/// A call that begins before there is a provider:
///
/// ```
/// use std::time::Duration;
///
/// use aegis_client::RequestExt as _;
/// use aegis_core::ServiceInfo;
/// use aegis_proto::identity::v1::{GetUserRequest, identity_service_client::IdentityServiceClient};
/// use tonic::Request;
/// # use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
/// # struct Identity;
/// # impl IdentityService for Identity {}
///
/// const IDENTITY_V1: ServiceInfo = ServiceInfo::from_static("identity", "v1");
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let mesh = aegis_testing::TestMesh::in_memory();
/// # let _other = mesh.serve("trinity-1", |node| node).await;
/// # let node = mesh.node("vicky-1");
/// let mut identity = IdentityServiceClient::new(node.pool().channel(IDENTITY_V1));
/// let mut request = Request::new(GetUserRequest::default()).wait_ready();
/// request.set_timeout(Duration::from_secs(30)); // the deadline bounds the wait
/// let call = tokio::spawn(async move { identity.get_user(request).await });
/// // .. a provider starts meanwhile ..
/// # let _provider = mesh.serve("morpheus-1", |node| node.service(IDENTITY_V1, IdentityServiceServer::new(Identity))).await;
/// let answer = call.await?;
/// # assert_eq!(answer.unwrap_err().code(), tonic::Code::Unimplemented);
/// # Ok(())
/// # }
/// ```
pub trait RequestExt: Sized {
    /// Waits for a provider until the call's deadline, instead of failing when none can be reached (default: the call
    /// waits only while the first sync or a first connection is under way, 5 s at most).
    ///
    /// Without a deadline the channel's response limit ends the wait.
    #[must_use]
    fn wait_ready(self) -> Self;

    /// Says that to run this call twice is as good as to run it once (default: what the policy of its method says, which is
    /// no where there is none): it may be sent again although a provider has had it.
    ///
    /// [`CallPolicy`](crate::CallPolicy) says when it is, and is how all calls of a method are marked.
    #[must_use]
    fn idempotent(self) -> Self;

    /// Leaves the deadline of the handler that makes this call aside (default: it counts): work that must outlive it.
    ///
    /// See [`deadline`](crate::deadline).
    #[must_use]
    fn without_inherited_deadline(self) -> Self;
}

// Request extensions become the extensions of the http request, which is how the marks reach the channel.
impl<T> RequestExt for tonic::Request<T> {
    fn wait_ready(mut self) -> Self {
        self.extensions_mut().insert(WaitReady);
        self
    }

    fn idempotent(mut self) -> Self {
        self.extensions_mut().insert(Idempotent);
        self
    }

    fn without_inherited_deadline(mut self) -> Self {
        self.extensions_mut().insert(WithoutInheritedDeadline);
        self
    }
}

#[derive(Clone, Copy, Debug)]
struct WaitReady;

#[derive(Clone, Copy, Debug)]
struct Idempotent;

#[derive(Clone, Copy, Debug)]
struct WithoutInheritedDeadline;

/// The marks found on a request.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Marks {
    pub(crate) idempotent: bool,
    pub(crate) wait_ready: bool,
    pub(crate) without_inherited_deadline: bool,
}

impl Marks {
    pub(crate) fn of(extensions: &Extensions) -> Self {
        if extensions.is_empty() {
            return Self::default();
        }
        Self {
            idempotent: extensions.get::<Idempotent>().is_some(),
            wait_ready: extensions.get::<WaitReady>().is_some(),
            without_inherited_deadline: extensions.get::<WithoutInheritedDeadline>().is_some(),
        }
    }
}
