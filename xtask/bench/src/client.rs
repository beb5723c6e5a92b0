use aegis::{ServiceChannel, ServiceClient};
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use tonic::Status;
use tonic::transport::Channel;

use crate::service;

/// A client of the service, whatever lies below its stub.
pub(crate) trait Client: Clone + Send + Sync + 'static {
    /// Makes a call; the number of the provider that answered.
    fn call(&self) -> impl Future<Output = Result<i64, Status>> + Send;
}

pub(crate) type Aegis = ServiceClient<IdentityServiceClient<ServiceChannel>>;

impl Client for Aegis {
    async fn call(&self) -> Result<i64, Status> {
        let mut client = self.get()?;
        Ok(client.validate_session(service::request()).await?.into_inner().expires_at)
    }
}

impl Client for IdentityServiceClient<Channel> {
    async fn call(&self) -> Result<i64, Status> {
        let mut client = self.clone();
        Ok(client.validate_session(service::request()).await?.into_inner().expires_at)
    }
}
