//! A provider that does what a test tells it, over real mTLS and HTTP/2.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aegis_tls::Tls;
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::mesh::Mesh;

/// What a provider does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// Reads it and answers with the provider's id.
    Answer,
    /// The same, after a while.
    AnswerAfter(Duration),
    /// Answers with this status.
    Fail(u8),
    /// Answers with this status and these headers.
    FailWith(u8, Vec<(&'static str, String)>),
    /// Reads it and answers with this status.
    FailAfterReading(u8),
    /// Answers with its headers, and then this status.
    FailAfterHead(u8),
    /// Answers with a message, and then this status.
    FailAfterMessage(u8),
    /// Answers with a message, and closes the TCP connection.
    CutAfterMessage,
    /// Reads it and never answers.
    Hang,
    /// Reads so many bytes of it, and resets the stream with `REFUSED_STREAM`.
    RefuseAfter(usize),
    /// Never reads its body, nor answers.
    Ignore,
    /// Begins an answer that never ends: a message every 10 ms.
    Stream,
    /// Says that it does not serve the service any more.
    NotServed,
    /// Says so of a call that it has begun to answer, in its headers and in its trailers.
    NotServedAfter,
    /// Resets the stream.
    Reset(Reason),
    /// The same, after a while.
    ResetAfter(Duration, Reason),
    /// Closes the TCP connection.
    Cut,
    /// Drains the connection, and answers this one request.
    GoAway,
}

/// Stops when it is dropped.
pub(crate) struct Provider {
    pub(crate) id: String,
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    tasks: JoinSet<()>,
}

struct State {
    id: String,
    default: Mutex<Act>,
    next: Mutex<VecDeque<Act>>,
    requests: AtomicUsize,
    connections: AtomicUsize,
    open: AtomicUsize,
    refused: AtomicUsize,
    headers: Mutex<Vec<HeaderMap>>,
    paths: Mutex<Vec<String>>,
    healthy: AtomicBool,
    bytes: AtomicUsize,
    reset: AtomicUsize,
    settings: Mutex<h2::server::Builder>,
    max_age: Mutex<Duration>,
}

impl Provider {
    pub(crate) async fn start(mesh: &Mesh, id: &str) -> Self {
        Self::bind(mesh, id, "127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn with_streams(mesh: &Mesh, id: &str, streams: u32) -> Self {
        let provider = Self::start(mesh, id).await;
        provider.state.settings.lock().unwrap().max_concurrent_streams(streams);
        provider
    }

    pub(crate) async fn bind(mesh: &Mesh, id: &str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        Self::listen(mesh.tls(id), id, listener)
    }

    pub(crate) fn listen(tls: Tls, id: &str, listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            id: id.to_owned(),
            default: Mutex::new(Act::Answer),
            next: Mutex::default(),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            headers: Mutex::default(),
            paths: Mutex::default(),
            healthy: AtomicBool::new(false),
            bytes: AtomicUsize::new(0),
            reset: AtomicUsize::new(0),
            settings: Mutex::new(h2::server::Builder::new()),
            max_age: Mutex::new(Duration::from_secs(3_600)),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls, Arc::clone(&state)));
        Self { id: id.to_owned(), address, state, tasks }
    }

    /// What it does from now on.
    pub(crate) fn always(&self, act: Act) {
        *self.state.default.lock().unwrap() = act;
    }

    /// What it does with the next request that has no act yet.
    pub(crate) fn once(&self, act: Act) {
        self.state.next.lock().unwrap().push_back(act);
    }

    /// Drains each new connection after so long.
    pub(crate) fn max_age(&self, age: Duration) {
        *self.state.max_age.lock().unwrap() = age;
    }

    /// How many requests arrived.
    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// How many connections finished their handshake.
    pub(crate) fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    /// How many of them are open.
    pub(crate) fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// The path of each request, in the order of their arrival.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.state.paths.lock().unwrap().clone()
    }

    /// Whether it says that it is healthy, whatever it does with calls.
    pub(crate) fn healthy(&self, healthy: bool) {
        self.state.healthy.store(healthy, Ordering::SeqCst);
    }

    /// How many handshakes failed.
    pub(crate) fn refused(&self) -> usize {
        self.state.refused.load(Ordering::SeqCst)
    }

    /// How many streams the client reset while a handler ran.
    pub(crate) fn reset(&self) -> usize {
        self.state.reset.load(Ordering::SeqCst)
    }

    /// How many bytes of request bodies were read.
    pub(crate) fn bytes(&self) -> usize {
        self.state.bytes.load(Ordering::SeqCst)
    }

    /// The headers of the last request.
    pub(crate) fn last_headers(&self) -> HeaderMap {
        self.all_headers().pop().expect("a request")
    }

    /// The headers of each request, in the order of their arrival.
    pub(crate) fn all_headers(&self) -> Vec<HeaderMap> {
        self.state.headers.lock().unwrap().clone()
    }

    /// Closes the port and every connection, and waits until that is done.
    pub(crate) async fn kill(mut self) -> SocketAddr {
        self.tasks.shutdown().await;
        self.address
    }
}

async fn accept(listener: TcpListener, tls: Tls, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (io, _) = listener.accept().await.unwrap();
        connections.spawn(serve(io, tls.clone(), Arc::clone(&state)));
    }
}

async fn serve(io: TcpStream, tls: Tls, state: Arc<State>) {
    io.set_nodelay(true).unwrap();
    let Ok(accepted) = tls.accept(io).await else {
        state.refused.fetch_add(1, Ordering::SeqCst);
        return;
    };
    let settings = state.settings.lock().unwrap().clone();
    let Ok(mut connection) = settings.handshake::<_, Bytes>(accepted.stream).await else { return };
    state.connections.fetch_add(1, Ordering::SeqCst);
    state.open.fetch_add(1, Ordering::SeqCst);
    let _open = Open(Arc::clone(&state));
    let mut handlers = JoinSet::new();
    let max_age = *state.max_age.lock().unwrap();
    let mut aged = std::pin::pin!(tokio::time::sleep(max_age));
    let mut draining = false;
    let mut cut = std::pin::pin!(None::<tokio::time::Sleep>);
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            () = async { cut.as_mut().as_pin_mut().unwrap().await }, if cut.is_some() => return,
            () = &mut aged, if !draining => {
                draining = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        let Some(Ok((request, respond))) = accepted else { break };
        let (head, body) = request.into_parts();
        state.requests.fetch_add(1, Ordering::SeqCst);
        state.headers.lock().unwrap().push(head.headers);
        let path = head.uri.path().to_owned();
        let health = path.starts_with("/grpc.health.v1.Health/");
        state.paths.lock().unwrap().push(path);
        let act = if health && state.healthy.load(Ordering::SeqCst) {
            Act::Answer
        } else {
            let next = state.next.lock().unwrap().pop_front();
            next.unwrap_or_else(|| state.default.lock().unwrap().clone())
        };
        match act {
            Act::Cut => return,
            Act::GoAway => {
                connection.graceful_shutdown();
                handlers.spawn(handle(Act::Answer, body, respond, Arc::clone(&state)));
            }
            act => {
                if matches!(act, Act::CutAfterMessage) {
                    // Time for the message to go out.
                    cut.set(Some(tokio::time::sleep(Duration::from_millis(50))));
                }
                handlers.spawn(handle(act, body, respond, Arc::clone(&state)));
            }
        }
    }
    while handlers.join_next().await.is_some() {}
}

struct Open(Arc<State>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn handle(act: Act, body: RecvStream, mut respond: SendResponse<Bytes>, state: Arc<State>) {
    match act {
        Act::Answer => {
            read(body, &state).await;
            answer(&mut respond, &state.id);
        }
        Act::AnswerAfter(delay) => {
            tokio::select! {
                () = tokio::time::sleep(delay) => {
                    read(body, &state).await;
                    answer(&mut respond, &state.id);
                }
                _ = std::future::poll_fn(|cx| respond.poll_reset(cx)) => {
                    state.reset.fetch_add(1, Ordering::SeqCst);
                }
            }
        }
        Act::Fail(code) => drop(respond.send_response(head(Some(code)), true)),
        Act::FailWith(code, headers) => {
            let mut head = head(Some(code));
            for (name, value) in headers {
                head.headers_mut().append(name, value.parse().unwrap());
            }
            drop(respond.send_response(head, true));
        }
        Act::FailAfterReading(code) => {
            read(body, &state).await;
            drop(respond.send_response(head(Some(code)), true));
        }
        Act::FailAfterHead(code) => {
            let mut send = respond.send_response(head(None), false).unwrap();
            drop(send.send_trailers(failed(code)));
        }
        Act::FailAfterMessage(code) => {
            let mut send = respond.send_response(head(None), false).unwrap();
            send.send_data(message(&[]), false).unwrap();
            drop(send.send_trailers(failed(code)));
        }
        Act::CutAfterMessage => {
            let mut send = respond.send_response(head(None), false).unwrap();
            send.send_data(message(&[]), false).unwrap();
            // Until the connection has ended under it.
            drop(std::future::poll_fn(|cx| send.poll_reset(cx)).await);
        }
        Act::Hang => {
            read(body, &state).await;
            drop(std::future::poll_fn(|cx| respond.poll_reset(cx)).await);
            state.reset.fetch_add(1, Ordering::SeqCst);
        }
        Act::RefuseAfter(bytes) => {
            let (mut body, mut read) = (body, 0);
            while read < bytes {
                let Some(Ok(data)) = body.data().await else { break };
                read += data.len();
                drop(body.flow_control().release_capacity(data.len()));
            }
            respond.send_reset(Reason::REFUSED_STREAM);
        }
        Act::Ignore => {
            let _unread = body;
            drop(std::future::poll_fn(|cx| respond.poll_reset(cx)).await);
            state.reset.fetch_add(1, Ordering::SeqCst);
        }
        Act::Stream => {
            let mut send = respond.send_response(head(None), false).unwrap();
            while send.send_data(message(&[]), false).is_ok() {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(10)) => {}
                    _ = std::future::poll_fn(|cx| send.poll_reset(cx)) => break,
                }
            }
            state.reset.fetch_add(1, Ordering::SeqCst);
        }
        Act::NotServed => {
            let mut head = head(Some(12));
            head.headers_mut().insert("aegis-refused", HeaderValue::from_static("not-served"));
            drop(respond.send_response(head, true));
        }
        Act::NotServedAfter => {
            let mut head = head(Some(12));
            head.headers_mut().insert("aegis-refused", HeaderValue::from_static("not-served"));
            let trailers = head.headers().clone();
            let mut send = respond.send_response(head, false).unwrap();
            drop(send.send_trailers(trailers));
        }
        Act::Reset(reason) => respond.send_reset(reason),
        Act::ResetAfter(delay, reason) => {
            tokio::time::sleep(delay).await;
            respond.send_reset(reason);
        }
        Act::Cut | Act::GoAway => unreachable!("handled by the connection"),
    }
}

async fn read(mut body: RecvStream, state: &State) {
    while let Some(Ok(data)) = body.data().await {
        state.bytes.fetch_add(data.len(), Ordering::SeqCst);
        drop(body.flow_control().release_capacity(data.len()));
    }
}

/// A `ValidateSessionResponse` whose `user_id` is the provider's id.
fn answer(respond: &mut SendResponse<Bytes>, id: &str) {
    let Ok(mut send) = respond.send_response(head(None), false) else { return };
    let mut reply = vec![0x12, u8::try_from(id.len()).unwrap()];
    reply.extend_from_slice(id.as_bytes());
    if send.send_data(message(&reply), false).is_ok() {
        let trailers =
            HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
        drop(send.send_trailers(trailers));
    }
}

fn head(status: Option<u8>) -> Response<()> {
    let mut head = Response::builder().header("content-type", "application/grpc");
    if let Some(status) = status {
        head = head.header("grpc-status", u16::from(status));
    }
    head.body(()).unwrap()
}

/// The trailers of an answer that fails after it has begun.
fn failed(code: u8) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", u16::from(code).into());
    trailers.insert("grpc-message", HeaderValue::from_static("too%20late"));
    trailers.insert("why", HeaderValue::from_static("it left"));
    trailers
}

fn message(bytes: &[u8]) -> Bytes {
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_be_bytes());
    framed.extend_from_slice(bytes);
    framed.into()
}
