//! More streams than a connection has room for.

use std::sync::Arc;

use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
use aegis_proto::identity::v1::{
    GetUserRequest, GetUserResponse, SessionEvent, SubscribeSessionEventsRequest,
};
use aegis_testing::TestMesh;
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

use super::load::{request, send};
use crate::service::{IDENTITY_V1, ready};

const STREAMS: usize = 1_000;

/// Its streams begin, and go on without a word.
struct Quiet;

#[tonic::async_trait]
impl IdentityService for Quiet {
    async fn get_user(
        &self,
        _: Request<GetUserRequest>,
    ) -> Result<Response<GetUserResponse>, Status> {
        Ok(Response::new(GetUserResponse::default()))
    }

    async fn subscribe_session_events(
        &self,
        _: Request<SubscribeSessionEventsRequest>,
    ) -> Result<Response<BoxStream<SessionEvent>>, Status> {
        let first = tokio_stream::iter([Ok(SessionEvent::default())]);
        Ok(Response::new(Box::pin(first.chain(tokio_stream::pending()))))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_subscriptions_and_a_thousand_calls_of_one_client_all_succeed() {
    let mesh = TestMesh::loopback();
    let quiet = IdentityServiceServer::new(Quiet);
    let server = mesh.serve("a", |node| node.service(IDENTITY_V1, quiet)).await;
    let node = mesh.node("v");
    let pool = node.pool();
    let identity = ready(&pool, 1).await;
    // All streams are open before the first of them ends.
    let (open, done) = (Arc::new(Barrier::new(STREAMS + 1)), Arc::new(Barrier::new(STREAMS + 1)));
    let mut streams = JoinSet::new();
    for _ in 0..STREAMS {
        let (identity, open, done) = (identity.clone(), Arc::clone(&open), Arc::clone(&done));
        streams.spawn(async move {
            let subscribe = SubscribeSessionEventsRequest {};
            let mut events =
                identity.get()?.subscribe_session_events(subscribe).await?.into_inner();
            assert!(events.message().await?.is_some());
            open.wait().await;
            done.wait().await;
            Ok::<_, Status>(())
        });
    }
    open.wait().await;
    let mut calls = JoinSet::new();
    for _ in 0..STREAMS {
        let identity = identity.clone();
        calls.spawn(async move { send(&identity, request("1")).await });
    }
    for call in calls.join_all().await {
        call.unwrap();
    }
    done.wait().await;
    for stream in streams.join_all().await {
        stream.unwrap();
    }
    // No more connections than a node may have, and one for gossip at most.
    assert!((4..=5).contains(&server.stats().accepted), "{:?}", server.stats());
}
