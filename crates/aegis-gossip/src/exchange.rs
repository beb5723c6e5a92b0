use std::sync::Arc;
use std::time::Duration;

use aegis_core::NodeId;
use aegis_proto::mesh::v1 as wire;
use aegis_proto::mesh::v1::directory_service_client::DirectoryServiceClient;
use aegis_topology::{Exchange, Key, Progress, SyncResponse};
use aegis_transport::Link;
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Status};

use crate::SyncError;
use crate::core::Core;
use crate::inbox::Origin;

/// Messages hold a page of records (1 MiB) and all stamps of a full directory.
pub(crate) const MAX_MESSAGE: usize = 4 << 20;

/// How long an exchange may take, in the time of calls that take as long as one may: a peer must not hold us up by
/// answering each of many calls just in time.
const SLOW_CALLS: u32 = 10;
/// Longer settings mean as much as this one, and cannot be added to a time without overflow.
const LONGEST_CALL: Duration = Duration::from_secs(3_600);

/// What a sync did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Synced {
    /// With whom.
    pub node_id: NodeId,
    /// How many records were news to us.
    pub news: usize,
    /// How many calls it took.
    pub calls: usize,
    /// Whether both directories were equal at the end. If not, one refused a record of the other, or one changed meanwhile.
    pub equal: bool,
}

/// Compares the replica with a peer's until they are equal; `introduce` is a record that the first call brings.
pub(crate) async fn exchange(
    core: &Core,
    link: &Link,
    introduce: Option<Key>,
) -> Result<Synced, SyncError> {
    let node_id = link.node_id().clone();
    let mut client = DirectoryServiceClient::new(link.channel())
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let call_timeout = core.settings.call_timeout.min(LONGEST_CALL);
    let end = Instant::now() + call_timeout * SLOW_CALLS;
    let (mut exchange, mut request) = Exchange::open(&core.replica(), introduce, core.now());
    let mut synced = Synced { node_id, news: 0, calls: 0, equal: false };
    loop {
        let mut message = Request::new(wire::SyncRequest::from(request));
        let call_end = end.min(Instant::now() + call_timeout);
        message.set_timeout(call_end - Instant::now());
        let answer = timeout_at(call_end, client.sync(message))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("the peer does not answer")))
            .map_err(|status| SyncError::Call { node: synced.node_id.clone(), status })?;
        let response = SyncResponse::try_from(answer.into_inner()).map_err(|error| {
            SyncError::Message { node: synced.node_id.clone(), source: Arc::new(error) }
        })?;
        synced.calls += 1;
        let records = response.records.clone();
        let unreadable = response.unreadable;
        synced.news += core.admit(&synced.node_id, Origin::Asked, records, unreadable).await.news;
        let progress = exchange.proceed(&core.replica(), &response);
        match progress {
            Progress::Call(next) => request = next,
            progress => {
                synced.equal = progress == Progress::Equal;
                return Ok(synced);
            }
        }
    }
}
