//! One long call, and beside it on its only connection what has broken connections elsewhere.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use aegis::client::Settings;
use aegis::{Server, ServiceClient, ServiceInfo, ServicePool};
use aegis_testing::{TestMesh, eventually};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::{Code, Status};

use super::load::{send, timed};
use crate::service::{Client, IDENTITY_V1, Identity, LIMIT, SECOND, client, scaled};

const EVENTS_V1: ServiceInfo = ServiceInfo::from_static("events", "v1");
const EVENT: u8 = 64;
/// Less than the age at which a connection is replaced.
const LONG: Duration = Duration::from_secs(1_800);

/// Sends events of 64 bytes as fast as they are taken.
#[derive(Clone)]
struct Events;

impl NamedService for Events {
    const NAME: &'static str = "test.Events";
}

impl Service<Request<Body>> for Events {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let mut event = vec![0, 0, 0, 0, EVENT];
        event.resize(5 + usize::from(EVENT), 7);
        let event = Bytes::from(event);
        let events = std::iter::repeat(event).map(|event| Ok::<_, Status>(Frame::data(event)));
        let body = Body::new(StreamBody::new(tokio_stream::iter(events)));
        let response = Response::builder().header("content-type", "application/grpc");
        ready(Ok(response.body(body).unwrap()))
    }
}

/// A provider, a client that has one connection to it, and a call that takes half an hour.
struct Story {
    mesh: TestMesh,
    pool: ServicePool,
    identity: ServiceClient<Client>,
    seen: Identity,
    long: JoinHandle<Result<String, Status>>,
    server: Server,
}

impl Story {
    async fn start() -> Self {
        let mesh = TestMesh::in_memory();
        let seen = Identity::new("a");
        let server = mesh.serve("a", |node| seen.on(node).service(EVENTS_V1, Events)).await;
        let mut settings = Settings::default();
        settings.connections = 1;
        let pool = ServicePool::builder()
            .tls(mesh.ca().options("v", "test"))
            .network(mesh.network())
            .provider("a", server.local_addr().to_string(), [IDENTITY_V1, EVENTS_V1])
            .settings(settings)
            .build()
            .unwrap();
        let identity = client(&pool);
        identity.wait_ready(1, LIMIT).await.unwrap();
        let long = tokio::spawn({
            let identity = identity.clone();
            async move { send(&identity, timed("sleep 1800000", LONG + LIMIT)).await }
        });
        Self { mesh, pool, identity, seen, long, server }
    }

    /// The long call succeeds, on the connection that there was from the start.
    async fn end(self) {
        assert!(!self.long.is_finished(), "the long call has ended");
        assert_eq!(self.long.await.unwrap().unwrap(), "a");
        assert_eq!(self.server.stats().accepted, 1, "a connection was lost");
        assert_eq!(self.mesh.faults().to("a").connections(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn many_small_events_to_a_slow_reader_cost_nobody_anything() {
    let story = Story::start().await;
    let mut channel = story.pool.channel(EVENTS_V1);
    channel.wait_ready(1, LIMIT).await.unwrap();
    let request = Request::post("/test.Events/Subscribe")
        .header("content-type", "application/grpc")
        .body(Body::empty())
        .unwrap();
    let mut events = Box::pin(channel.call(request).await.unwrap().into_body());
    let (mut bytes, mut frames, all) = (0, 0, scaled(12_000, 100_000));
    while bytes < all * (5 + usize::from(EVENT)) {
        bytes += events.frame().await.unwrap().unwrap().into_data().unwrap().len();
        frames += 1;
        sleep(SECOND / 1_000).await;
    }
    // Were each event given back to the window by itself, they would be cut ever smaller.
    assert!(frames <= all + all / 50, "{all} events came in {frames} frames");
    assert_eq!(send(&story.identity, timed("1", SECOND)).await.unwrap(), "a");
    drop(events);
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn many_deadlines_that_pass_while_the_provider_stands_still_cost_nobody_else_anything() {
    let story = Story::start().await;
    story.mesh.faults().to("a").hang();
    let mut calls = JoinSet::new();
    for _ in 0..250 {
        let identity = story.identity.clone();
        calls.spawn(async move { send(&identity, timed("1", SECOND / 5)).await });
    }
    sleep(SECOND / 2).await;
    story.mesh.faults().to("a").heal();
    let ends = calls.join_all().await;
    let late =
        |end: &Result<_, Status>| end.as_ref().is_err_and(|it| it.code() == Code::DeadlineExceeded);
    assert_eq!(ends.iter().filter(|end| late(end)).count(), 250);
    assert_eq!(send(&story.identity, timed("1", SECOND)).await.unwrap(), "a");
    story.end().await;
}

#[tokio::test(start_paused = true)]
async fn many_cancelled_calls_cost_nobody_anything() {
    let story = Story::start().await;
    let (mut cancelled, all) = (0, scaled(6_000, 50_000));
    while cancelled < all {
        let mut calls = JoinSet::new();
        for _ in 0..200 {
            let identity = story.identity.clone();
            calls.spawn(async move { send(&identity, timed("forever", LONG)).await });
        }
        let before = cancelled as u64;
        eventually(LIMIT, || match story.seen.seen.calls() - before {
            // The long one is there as well.
            201 => Ok(()),
            calls => Err(format!("{calls} calls have arrived")),
        })
        .await;
        calls.shutdown().await;
        cancelled += 200;
    }
    assert_eq!(send(&story.identity, timed("1", SECOND)).await.unwrap(), "a");
    eventually(LIMIT, || match story.seen.seen.cancelled() {
        count if count == cancelled as u64 => Ok(()),
        count => Err(format!("{count} handlers were dropped")),
    })
    .await;
    story.end().await;
}
