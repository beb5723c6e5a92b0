//! A provider that fails a call says whether and when it may come back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use aegis_client::{RequestExt as _, Stopped};
use aegis_proto::identity::v1::identity_service_client::IdentityServiceClient;
use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use aegis_proto::identity::v1::{ValidateSessionRequest, ValidateSessionResponse};
use aegis_testing::{TestMesh, eventually};
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::mesh::{IDENTITY, Mesh, PATIENCE, assert_status, identity, request, send, timed};
use crate::provider::{Act, Provider};
use crate::retries::{call_idempotent, stopped};

const SHORT: Duration = Duration::from_millis(100);

fn pushback(millis: &str) -> Act {
    Act::FailWith(14, vec![("grpc-retry-pushback-ms", millis.to_owned())])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_pushes_back_is_heeded() {
    let mesh = Mesh::new();
    let [a, b] = [Provider::start(&mesh, "a").await, Provider::start(&mesh, "b").await];
    let (_pool, client) = mesh.connected(&[&a, &b]).await;
    let details = ErrorDetails::with_retry_info(Some(SHORT));
    let status = Status::with_error_details(Code::Unavailable, "", details);
    let info =
        status.into_http::<()>().headers()["grpc-status-details-bin"].to_str().unwrap().to_owned();
    let info = Act::FailWith(14, vec![("grpc-status-details-bin", info)]);
    let mut expected = 0;
    for (act, pause) in [(pushback("100"), SHORT), (info, SHORT), (pushback("0"), Duration::ZERO)] {
        a.once(act.clone());
        b.once(act);
        let began = Instant::now();
        call_idempotent(&client).await.unwrap();
        assert!(pause * 2 <= began.elapsed(), "{:?}", began.elapsed());
        expected += 3;
        assert_eq!(a.requests() + b.requests(), expected);
    }
    for never in ["-1", "soon", "99999999"] {
        a.always(pushback(never));
        b.always(pushback(never));
        let status = call_idempotent(&client).await.unwrap_err();
        assert_eq!(stopped(&status), (1, Stopped::Pushback));
        expected += 1;
        assert_eq!(a.requests() + b.requests(), expected);
    }
    assert_eq!(client.explain().pushbacks, 9);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pushback_beyond_the_deadline_ends_the_call_at_once() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (pool, client) = mesh.connected(&[&provider]).await;
    provider.always(pushback("200000"));
    let status = send(&client, timed(Duration::from_secs(100)).idempotent()).await.unwrap_err();
    assert_eq!((status.code(), stopped(&status)), (Code::Unavailable, (1, Stopped::Deadline)));
    // So does one beyond the response limit.
    let status = call_idempotent(&client).await.unwrap_err();
    assert_eq!(stopped(&status), (1, Stopped::Deadline));
    let mut patient = IdentityServiceClient::new(pool.channel(IDENTITY).no_response_limit());
    let waiting =
        tokio::spawn(async move { patient.validate_session(request().idempotent()).await });
    eventually(PATIENCE, || match provider.requests() {
        3 => Ok(()),
        some => Err(format!("{some} requests")),
    })
    .await;
    tokio::time::sleep(SHORT).await;
    assert!(!waiting.is_finished());
    waiting.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_is_given_up_while_it_waits_to_be_sent_again_is_not_sent_again() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let (pool, client) = mesh.connected(&[&provider]).await;
    provider.always(pushback("300"));
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { call_idempotent(&client).await }
    });
    eventually(PATIENCE, || match client.explain().pushbacks {
        1 => Ok(()),
        some => Err(format!("{some} pushbacks")),
    })
    .await;
    waiting.abort();
    assert!(waiting.await.unwrap_err().is_cancelled());
    // Nothing is under way any more, so it closes at once.
    tokio::time::timeout(PATIENCE, pool.close()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!(provider.requests(), 1);
    // Where its deadline would pass meanwhile, the last answer is its answer.
    let (_pool, client) = mesh.connected(&[&provider]).await;
    provider.always(pushback("600"));
    let status = send(&client, timed(Duration::from_secs(1)).idempotent()).await.unwrap_err();
    assert_status(&status, Code::Unavailable, &["attempt 2", "there is no time left"]);
    assert_eq!(stopped(&status), (2, Stopped::Deadline));
}

/// Fails its first call, and says when to come back.
struct Busy(AtomicUsize);

#[tonic::async_trait]
impl IdentityService for Busy {
    async fn validate_session(
        &self,
        _: Request<ValidateSessionRequest>,
    ) -> Result<Response<ValidateSessionResponse>, Status> {
        if 0 < self.0.fetch_add(1, Ordering::SeqCst) {
            return Ok(Response::new(ValidateSessionResponse::default()));
        }
        let mut status = Status::unavailable("the queue is full");
        status.metadata_mut().insert("grpc-retry-pushback-ms", "200".parse().unwrap());
        Err(status)
    }
}

#[tokio::test(start_paused = true)]
async fn the_pause_that_a_provider_asks_for_takes_the_place_of_our_own() {
    let mesh = TestMesh::in_memory();
    let busy = IdentityServiceServer::new(Busy(AtomicUsize::new(0)));
    let _server = mesh.serve("busy", |node| node.service(IDENTITY, busy)).await;
    let client = identity(&mesh.node("vicky").pool());
    client.wait_ready(1, PATIENCE).await.unwrap();
    // On a clock that moves only while everybody waits.
    let began = tokio::time::Instant::now();
    send(&client, request().idempotent()).await.unwrap();
    let pause = began.elapsed().as_millis();
    assert!((200..230).contains(&pause), "{pause} ms");
}
