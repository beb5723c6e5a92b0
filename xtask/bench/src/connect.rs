use aegis_proto::identity::v1::{SessionEvent, ValidateSessionRequest};
use tonic::{Request, Status, Streaming};

use crate::Outcome;
use crate::client::Client;

/// A client that connects anew for each call: address, TLS, HTTP/2 and the first answer.
#[derive(Clone)]
pub(crate) struct Fresh<F>(pub(crate) F);

impl<F, C, Connecting> Client for Fresh<F>
where
    F: Fn() -> Connecting + Clone + Send + Sync + 'static,
    Connecting: Future<Output = Outcome<C>> + Send,
    C: Client,
{
    async fn call(&self, request: Request<ValidateSessionRequest>) -> Result<i64, Status> {
        let client = (self.0)().await.map_err(Status::from_error)?;
        client.call(request).await
    }

    async fn stream(&self, size: usize) -> Result<Streaming<SessionEvent>, Status> {
        let client = (self.0)().await.map_err(Status::from_error)?;
        client.stream(size).await
    }
}
