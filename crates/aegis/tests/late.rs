//! Streams whose first message takes longer than a call without a deadline waits for its response headers.

use std::time::Duration;

use aegis::{ServiceChannel, ServiceClient};
use aegis_proto::identity::v1 as wire;
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use aegis_testing::TestMesh;
use tokio::time::{Instant, interval_at, sleep};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::IntervalStream;
use tonic::codegen::BoxStream;
use tonic::{Code, Request, Response, Status};

use crate::service::{Client, IDENTITY_V1, LIMIT, SECOND};

const LATE: Duration = Duration::from_secs(12);

/// Sends its first event after twelve seconds: having answered at once, or not before it has an event.
struct Late;

#[tonic::async_trait]
impl IdentityService for Late {
    async fn subscribe_session_events(
        &self,
        request: Request<wire::SubscribeSessionEventsRequest>,
    ) -> Result<Response<BoxStream<wire::SessionEvent>>, Status> {
        let waits = request.metadata().contains_key("waits");
        let (before, after) = if waits { (LATE, Duration::ZERO) } else { (Duration::ZERO, LATE) };
        sleep(before).await;
        let event = wire::SessionEvent { user_id: "7".to_owned(), ..Default::default() };
        let ticks = IntervalStream::new(interval_at(Instant::now() + after, LATE));
        Ok(Response::new(Box::pin(ticks.map(move |_| Ok(event.clone())))))
    }
}

/// Whose event came, after how long.
async fn first(
    client: &ServiceClient<Client>,
    waits: bool,
    timeout: Option<Duration>,
) -> (Result<String, Status>, Duration) {
    let mut request = Request::new(wire::SubscribeSessionEventsRequest::default());
    if waits {
        request.metadata_mut().insert("waits", "yes".parse().unwrap());
    }
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    let began = Instant::now();
    let event = async {
        let mut events = client.get()?.subscribe_session_events(request).await?.into_inner();
        Ok(events.message().await?.unwrap().user_id)
    };
    (event.await, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_first_message_comes_after_12_s_is_delivered() {
    let mesh = TestMesh::in_memory();
    let _server =
        mesh.serve("a", |node| node.service(IDENTITY_V1, IdentityServiceServer::new(Late))).await;
    let pool = mesh.node("c").pool();
    let limited = ServiceClient::new(&pool, IDENTITY_V1, IdentityServiceClient::new);
    limited.wait_ready(1, LIMIT).await.unwrap();
    // The headers come as soon as the handler has answered.
    let (event, after) = first(&limited, false, None).await;
    assert_eq!(event.unwrap(), "7");
    assert!((LATE..LATE + SECOND / 10).contains(&after), "{after:?}");

    // A handler that waits for its first event leaves its caller in the dark whether it is at it at all.
    let (event, after) = first(&limited, true, None).await;
    let status = event.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("the response_limit of 10s for calls without"), "{status}");
    assert!((LIMIT..LIMIT + SECOND / 10).contains(&after), "{after:?}");
    // A caller that knows it says so, in either way.
    assert_eq!(first(&limited, true, Some(2 * LATE)).await.0.unwrap(), "7");
    let unlimited =
        |channel: ServiceChannel| IdentityServiceClient::new(channel.no_response_limit());
    let patient = ServiceClient::new(&pool, IDENTITY_V1, unlimited);
    assert_eq!(first(&patient, true, None).await.0.unwrap(), "7");
}
