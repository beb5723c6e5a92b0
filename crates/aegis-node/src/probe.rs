//! `/livez` and `/readyz` over plain HTTP/1.1, for whoever has no certificate, a kubelet above all.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aegis_core::Address;
use aegis_transport::{BoxIo, Listener, Network};
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::health::{Health, HealthStatus, Phase};

/// Connections at once; a further one costs the oldest its place, so that those who hold theirs keep no prober out.
const CONNECTIONS: usize = 64;
/// The life of a connection, from its accept to its close. A kubelet waits for one second by default.
const LIFE: Duration = Duration::from_secs(2);
/// What the head of a request may take, which is the least that hyper can be told.
const HEAD_BYTES: usize = 8 * 1024;
const HEADERS: usize = 64;
/// The waits after a failed accept: the first, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// A probe that listens, and answers while somebody lets it.
pub(crate) struct Probe {
    local: SocketAddr,
    watched: Watched,
    run: Pin<Box<dyn Future<Output = Infallible> + Send>>,
}

/// A probe that answers until it is dropped.
pub(crate) struct Probing {
    pub(crate) local: SocketAddr,
    _task: AbortOnDropHandle<Infallible>,
}

/// What the answers are read from.
#[derive(Clone)]
struct Watched {
    health: Health,
    /// The server's accept loop, from the moment it runs.
    server: Arc<OnceLock<AbortHandle>>,
}

impl Probe {
    /// Listens.
    pub(crate) async fn bind(
        network: &dyn Network,
        address: &Address,
        health: Health,
    ) -> io::Result<Self> {
        let listener = network.bind(address).await?;
        let local = listener.local_addr()?;
        let watched = Watched { health, server: Arc::default() };
        Ok(Self { local, run: Box::pin(run(listener, watched.clone())), watched })
    }

    /// Answers while something else is waited for.
    ///
    /// Not in a task of its own, which would hold the address for a moment after a start that is given up.
    pub(crate) async fn beside<F: Future>(&mut self, future: F) -> F::Output {
        tokio::select! {
            output = future => output,
            never = &mut self.run => match never {},
        }
    }

    /// Answers in a task from now on; the node is alive for as long as `server` runs.
    pub(crate) fn spawn(self, server: AbortHandle) -> Probing {
        // A probe belongs to one start, which spawns one loop.
        self.watched.server.get_or_init(|| server);
        Probing { local: self.local, _task: AbortOnDropHandle::new(tokio::spawn(self.run)) }
    }
}

async fn run(mut listener: Box<dyn Listener>, watched: Watched) -> Infallible {
    let mut connections = JoinSet::new();
    let mut oldest_first = VecDeque::<AbortHandle>::new();
    let mut backoff = BACKOFF.0;
    loop {
        tokio::select! {
            biased;
            Some(_) = connections.join_next(), if !connections.is_empty() => {
                oldest_first.retain(|it| !it.is_finished());
            }
            accepted = listener.accept() => match accepted {
                Ok(io) => {
                    backoff = BACKOFF.0;
                    while CONNECTIONS <= connections.len() {
                        if let Some(oldest) = oldest_first.pop_front() {
                            oldest.abort();
                        }
                        drop(connections.join_next().await);
                    }
                    oldest_first.push_back(connections.spawn(serve(io, watched.clone())));
                }
                Err(error) => {
                    tracing::debug!(%error, "the probe cannot accept connections");
                    sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            },
        }
    }
}

/// Answers one request.
async fn serve(io: BoxIo, watched: Watched) {
    let answer = service_fn(move |request: Request<Incoming>| {
        ready(Ok::<_, Infallible>(watched.answer(request.method(), request.uri().path())))
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(HEAD_BYTES)
        .max_headers(HEADERS)
        // Its whole life is bounded.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(io), answer);
    // Whoever sends something else than a request learns of it by the answer; nobody else has to.
    drop(timeout(LIFE, connection).await);
}

impl Watched {
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let problem = match path {
            "/livez" => self.not_alive(),
            "/readyz" => self.not_ready(),
            _ => return text(StatusCode::NOT_FOUND, "/livez and /readyz are all there is\n"),
        };
        if method != Method::GET && method != Method::HEAD {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
            // RFC 9110 §15.5.6 wants it said.
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match problem {
            None => text(StatusCode::OK, "ok\n"),
            Some(problem) => text(StatusCode::SERVICE_UNAVAILABLE, problem),
        }
    }

    fn not_alive(&self) -> Option<&'static str> {
        let (phase, _) = self.health.now();
        // At the end of a drain the loop is done, as it should be.
        (phase != Phase::Draining && self.has_stopped()).then_some("the server has stopped\n")
    }

    // The owner's own words on its health are not for everybody who can reach this port.
    fn not_ready(&self) -> Option<&'static str> {
        match self.health.now() {
            (Phase::Starting, _) => Some("starting\n"),
            (Phase::Draining, _) => Some("draining\n"),
            (Phase::Serving, _) if self.has_stopped() => Some("the server has stopped\n"),
            (Phase::Serving, HealthStatus::Unhealthy) => Some("unhealthy\n"),
            (Phase::Serving, HealthStatus::Healthy | HealthStatus::Unknown) => None,
        }
    }

    fn has_stopped(&self) -> bool {
        self.server.get().is_some_and(AbortHandle::is_finished)
    }
}

fn text(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, plain);
    response
}
