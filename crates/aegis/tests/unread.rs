//! Streams that nobody reads hold up nobody else.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use aegis::client::Settings;
use aegis::{Limits, ServiceInfo, ServicePool};
use aegis_testing::{TestMesh, eventually};
use bytes::Bytes;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio_stream::StreamExt as _;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

use crate::service::{IDENTITY_V1, Identity, LIMIT, ask, ready};

const UNREAD_V1: ServiceInfo = ServiceInfo::from_static("unread", "v1");
const PIECE: usize = 16 * 1024;

/// `Flood` sends without end, `Deaf` never reads what it is sent.
#[derive(Clone)]
struct Unread;

impl NamedService for Unread {
    const NAME: &'static str = "test.Unread";
}

impl Service<Request<Body>> for Unread {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async move {
            if request.uri().path().ends_with("Deaf") {
                std::future::pending::<()>().await;
                drop(request);
            }
            let response =
                Response::builder().header("content-type", "application/grpc").body(endless());
            Ok(response.unwrap())
        })
    }
}

/// Messages of 16 KiB, one after another.
fn endless() -> Body {
    let mut piece = vec![0_u8];
    piece.extend(u32::try_from(PIECE - 5).unwrap().to_be_bytes());
    piece.resize(PIECE, 7);
    let piece = Bytes::from(piece);
    Body::new(StreamBody::new(
        tokio_stream::iter(std::iter::repeat(piece))
            .map(|piece| Ok::<_, Status>(Frame::data(piece))),
    ))
}

fn request(method: &str, body: Body) -> Request<Body> {
    Request::post(format!("/test.Unread/{method}"))
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_streams_and_an_unread_upload_leave_the_connection_to_others() {
    let mesh = TestMesh::loopback();
    let limits = Limits::default().max_streams(1_024);
    let a = mesh
        .serve("a", |node| Identity::new("a").on(node).service(UNREAD_V1, Unread).limits(limits))
        .await;
    // A pool opens a further connection when three quarters of the streams are in use. Here all of it has to go over
    // one: windows of 64 KiB let a connection carry 1,024 streams.
    let mut settings = Settings::default();
    settings.stream_window = 64 << 10;
    let pool = ServicePool::builder()
        .tls(mesh.ca().options("c", "test"))
        .provider("a", a.local_addr().to_string(), [IDENTITY_V1, UNREAD_V1])
        .settings(settings)
        .build()
        .unwrap();
    let identity = ready(&pool, 1).await;
    let before = p99(&identity).await;

    let mut channel = pool.channel(UNREAD_V1);
    channel.wait_ready(1, LIMIT).await.unwrap();
    let accepted = a.stats().accepted;
    let mut unread = Vec::new();
    for _ in 0..255 {
        unread.push(channel.call(request("Flood", Body::empty())).await.unwrap());
    }
    let upload = tokio::spawn(channel.call(request("Deaf", endless())));
    eventually(LIMIT, || {
        if 256 <= a.stats().calls { Ok(()) } else { Err(format!("{:?}", a.stats())) }
    })
    .await;

    let during = p99(&identity).await;
    assert_eq!(a.stats().accepted, accepted, "the calls went over another connection");
    println!(
        "p99 of 1,000 unary calls: {before:?} alone, {during:?} beside 255 unread streams and an unread upload, ratio {:.2}",
        during.as_secs_f64() / before.as_secs_f64()
    );
    assert!(!upload.is_finished());
    assert_eq!(unread.len(), 255);
}

/// Makes 1,000 calls, none of which may fail.
async fn p99(identity: &aegis::ServiceClient<crate::service::Client>) -> Duration {
    let mut took = Vec::new();
    for _ in 0..1_000 {
        let began = Instant::now();
        ask(identity, "1").await.unwrap();
        took.push(began.elapsed());
    }
    took.sort_unstable();
    took[990]
}
