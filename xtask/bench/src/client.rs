use std::collections::BTreeMap;

use aegis::{ServiceChannel, ServiceClient};
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_proto::identity::v1::{SessionEvent, ValidateSessionRequest};
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use tonic::{Request, Status, Streaming};

use crate::{certificates, service};

/// A client of the service, whatever lies below its stub.
pub(crate) trait Client: Clone + Send + Sync + 'static {
    /// Makes a call; the number of the provider that answered.
    fn call(
        &self,
        request: Request<ValidateSessionRequest>,
    ) -> impl Future<Output = Result<i64, Status>> + Send;

    /// How many requests each provider was sent so far, by its number; `None` of a client that does not count them, which
    /// sends each call once.
    fn attempts(&self) -> Option<BTreeMap<i64, u64>> {
        None
    }

    /// Opens a stream of messages of `size` bytes that ends when it is dropped.
    fn stream(
        &self,
        size: usize,
    ) -> impl Future<Output = Result<Streaming<SessionEvent>, Status>> + Send;
}

pub(crate) type Aegis = ServiceClient<IdentityServiceClient<ServiceChannel>>;

impl Client for Aegis {
    async fn call(&self, request: Request<ValidateSessionRequest>) -> Result<i64, Status> {
        let mut client = self.get()?;
        Ok(client.validate_session(request).await?.into_inner().expires_at)
    }

    fn attempts(&self) -> Option<BTreeMap<i64, u64>> {
        let candidates = self.explain().candidates;
        let numbered = candidates.iter().filter_map(|candidate| {
            Some((certificates::number(candidate.node_id.as_str())?, candidate.picks))
        });
        Some(numbered.collect())
    }

    async fn stream(&self, size: usize) -> Result<Streaming<SessionEvent>, Status> {
        let mut client = self.get()?;
        Ok(client.subscribe_session_events(service::subscription(size)).await?.into_inner())
    }
}

impl<T> Client for IdentityServiceClient<T>
where
    T: GrpcService<Body, Error: Into<StdError>, Future: Send> + Clone + Send + Sync + 'static,
    T::ResponseBody: HttpBody<Data = Bytes, Error: Into<StdError> + Send> + Send + 'static,
{
    async fn call(&self, request: Request<ValidateSessionRequest>) -> Result<i64, Status> {
        let mut client = self.clone();
        Ok(client.validate_session(request).await?.into_inner().expires_at)
    }

    async fn stream(&self, size: usize) -> Result<Streaming<SessionEvent>, Status> {
        let mut client = self.clone();
        Ok(client.subscribe_session_events(service::subscription(size)).await?.into_inner())
    }
}
