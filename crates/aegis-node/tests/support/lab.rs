use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower_service::Service;

/// A gRPC service without a proto: its method says what it does.
#[derive(Clone, Default)]
pub(crate) struct Lab {
    pub(crate) seen: Arc<Seen>,
}

#[derive(Default)]
pub(crate) struct Seen {
    calls: AtomicU64,
    cancelled: AtomicU64,
    /// Bodies that ended in an error.
    cut: AtomicU64,
}

impl Seen {
    pub(crate) fn calls(&self) -> u64 {
        self.calls.load(Ordering::SeqCst)
    }

    /// Handlers that were dropped before their end.
    pub(crate) fn cancelled(&self) -> u64 {
        self.cancelled.load(Ordering::SeqCst)
    }

    pub(crate) fn cut(&self) -> u64 {
        self.cut.load(Ordering::SeqCst)
    }
}

struct Running(Arc<Seen>, bool);

impl Drop for Running {
    fn drop(&mut self) {
        if !self.1 {
            self.0.cancelled.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl NamedService for Lab {
    const NAME: &'static str = "test.Lab";
}

impl Service<Request<Body>> for Lab {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let seen = Arc::clone(&self.seen);
        Box::pin(async move {
            seen.calls.fetch_add(1, Ordering::SeqCst);
            let mut running = Running(Arc::clone(&seen), false);
            let response = answer(request, &seen).await;
            running.1 = true;
            Ok(response)
        })
    }
}

async fn answer(request: Request<Body>, seen: &Seen) -> Response<Body> {
    let (head, mut body) = request.into_parts();
    match head.uri.path().trim_start_matches("/test.Lab/") {
        // Reads the request and tells its length.
        "Echo" => match body.collect().await {
            Ok(body) => ok([message(body.to_bytes().len().to_string().as_bytes())]),
            Err(status) => {
                seen.cut.fetch_add(1, Ordering::SeqCst);
                status.into_http()
            }
        },
        // Takes a piece of the request now and then.
        "Slow" => {
            let mut pieces: u32 = 0;
            while let Some(Ok(_)) = body.frame().await {
                pieces += 1;
                if pieces.is_multiple_of(100) {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
            ok([message(pieces.to_string().as_bytes())])
        }
        // Takes a piece each millisecond.
        "Slower" => {
            let mut pieces: u32 = 0;
            while let Some(Ok(_)) = body.frame().await {
                pieces += 1;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            ok([message(pieces.to_string().as_bytes())])
        }
        "Sink" => {
            while let Some(Ok(_)) = body.frame().await {}
            ok([message(b"")])
        }
        "Forever" => std::future::pending().await,
        // One message of 2 MiB.
        "Big" => ok([message(&vec![7; 2 << 20])]),
        // Messages without end.
        "Events" => {
            let events = stream::repeat(message(&[7; 1_000])).map(Frame::data).map(Ok::<_, Status>);
            response(Body::new(StreamBody::new(events)))
        }
        // The same, of a few bytes each.
        "Ticks" => {
            let ticks = stream::repeat(message(b"tick")).map(Frame::data).map(Ok::<_, Status>);
            response(Body::new(StreamBody::new(ticks)))
        }
        // The task it runs on.
        "Where" => ok([message(tokio::task::id().to_string().as_bytes())]),
        // The same, once the request is complete.
        "WhereAfter" => {
            drop(body.collect().await);
            ok([message(tokio::task::id().to_string().as_bytes())])
        }
        "Pause" => {
            tokio::task::yield_now().await;
            ok([message(b"")])
        }
        // What no handler should do, but some will.
        "Block" => {
            std::thread::sleep(Duration::from_millis(30));
            ok([message(b"")])
        }
        // The same, for so many milliseconds, without and with a processor.
        method if method.starts_with("Sleep") => {
            std::thread::sleep(millis(&method[5..]));
            ok([message(b"")])
        }
        method if method.starts_with("Burn") => {
            let end = Instant::now() + millis(&method[4..]);
            while Instant::now() < end {
                std::hint::spin_loop();
            }
            ok([message(b"")])
        }
        "Panic" => panic!("on purpose"),
        "Bomb" => {
            let _bomb = Bomb;
            ok([message(b"")])
        }
        "Metadata" => {
            let mut response = ok([message(b"x")]);
            for _ in 0..40 {
                let value = HeaderValue::from_str(&"x".repeat(1_000)).unwrap();
                response.headers_mut().append("long", value);
            }
            response
        }
        // How many calls came, and how many of them were given up.
        "Seen" => ok([message(format!("{} {}", seen.calls(), seen.cancelled()).as_bytes())]),
        _ => Status::unimplemented("no such experiment").into_http(),
    }
}

fn millis(text: &str) -> Duration {
    Duration::from_millis(text.parse().unwrap())
}

/// Panics when a handler that holds it ends.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        panic!("on purpose, at the end");
    }
}

/// An answer that ends well.
fn ok<const N: usize>(messages: [Bytes; N]) -> Response<Body> {
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from(0))]);
    let frames = messages.into_iter().map(Frame::data).chain([Frame::trailers(trailers)]);
    let frames: Vec<_> = frames.map(Ok::<_, Status>).collect();
    response(Body::new(StreamBody::new(stream::iter(frames))))
}

fn response(body: Body) -> Response<Body> {
    Response::builder().header("content-type", "application/grpc").body(body).unwrap()
}

/// A gRPC message: a flag, its length, its bytes.
pub(crate) fn message(bytes: &[u8]) -> Bytes {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0], &length[..], bytes].concat().into()
}
