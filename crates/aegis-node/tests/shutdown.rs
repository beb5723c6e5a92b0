//! In what order a node leaves, and how long that takes at most.

use std::future::pending;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use aegis_core::{Address, NodeId};
use aegis_node::{Limits, NodeBuilder, Server};
use aegis_testing::{TestMesh, eventually};
use aegis_topology::{NodeState, Snapshot};
use aegis_transport::{BoxFuture, BoxIo, Io, Listener, Network};
use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, timeout};

use crate::support::{
    END_HEADERS, END_STREAM, Frames, Kind, LAB_V1, LIMIT, Lab, Peer, listen, post, request_block,
    tls_in,
};

pub(crate) const SECOND: Duration = Duration::from_secs(1);
const DRAIN: Duration = Duration::from_secs(20);
/// How much longer than its drain timeout a shutdown may take.
const MORE: Duration = Duration::from_millis(100);

/// A network on which answers to what a node dials stop coming.
#[derive(Debug, Clone)]
struct Silenced {
    inner: Arc<dyn Network>,
    on: Arc<AtomicBool>,
}

struct SilencedIo(BoxIo, Arc<AtomicBool>);

impl Network for Silenced {
    fn connect(&self, address: &Address) -> BoxFuture<'static, io::Result<BoxIo>> {
        let (connecting, on) = (self.inner.connect(address), Arc::clone(&self.on));
        Box::pin(async move {
            if on.load(Ordering::SeqCst) {
                return pending().await;
            }
            Ok(Box::new(SilencedIo(connecting.await?, on)) as BoxIo)
        })
    }

    fn bind(&self, address: &Address) -> BoxFuture<'static, io::Result<Box<dyn Listener>>> {
        self.inner.bind(address)
    }
}

impl Io for SilencedIo {
    fn peer_addr(&self) -> Option<std::net::SocketAddr> {
        self.0.peer_addr()
    }

    fn local_addr(&self) -> Option<std::net::SocketAddr> {
        self.0.local_addr()
    }
}

impl AsyncRead for SilencedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.1.load(Ordering::SeqCst) {
            return Poll::Pending;
        }
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for SilencedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.1.load(Ordering::SeqCst) {
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// A node with a peer that it is connected to and that stops answering; beside them the peer's server.
pub(crate) async fn with_silent_peer(
    mesh: &TestMesh,
    with: impl FnOnce(NodeBuilder) -> NodeBuilder,
) -> (Server, Server, Lab) {
    let network = Silenced { inner: mesh.network(), on: Arc::default() };
    let (on, lab) = (Arc::clone(&network.on), Lab::default());
    let b = mesh.serve("b", |node| node).await;
    let server = mesh
        .serve("server", |node| with(node.service(LAB_V1, lab.clone()).network(Arc::new(network))))
        .await;
    knows(&b, server.node().id(), NodeState::Active).await;
    knows(&server, b.node().id(), NodeState::Active).await;
    on.store(true, Ordering::SeqCst);
    (server, b, lab)
}

async fn knows(node: &Server, id: &NodeId, state: NodeState) {
    let shows = |it: &Snapshot| it.node(id).is_some_and(|it| it.state() == state);
    node.node().directory().wait_for(shows, LIMIT).await.unwrap();
}

/// A call that goes on for as long as it may.
async fn call(peer: &Peer, lab: &Lab, method: &str) -> h2::client::ResponseFuture {
    let before = lab.seen.calls();
    let (running, mut stream) = peer.open(post(method)).await.unwrap();
    stream.send_data(Bytes::new(), true).unwrap();
    eventually(LIMIT, || if before < lab.seen.calls() { Ok(()) } else { Err("not called") }).await;
    running
}

#[tokio::test(start_paused = true)]
async fn peers_know_of_a_drain_before_connections_go() {
    let mesh = TestMesh::in_memory();
    let lab = Lab::default();
    let b = mesh.serve("b", |node| node).await;
    let server = mesh.serve("server", |node| node.service(LAB_V1, lab.clone())).await;
    knows(&b, server.node().id(), NodeState::Active).await;
    let id = server.node().id().clone();
    let mut frames = Frames::over(tls_in(&mesh, "peer", server.local_addr()).await).await;
    frames.send(Kind::Headers, END_HEADERS, 1, &request_block("/test.Lab/Echo")).await;
    eventually(LIMIT, || if lab.seen.calls() == 1 { Ok(()) } else { Err("not called") }).await;
    let began = Instant::now();
    let shutdown = tokio::spawn(server.shutdown());
    // Told at once, and not by a comparison some time later.
    knows(&b, &id, NodeState::Draining).await;
    frames.next(Kind::GoAway).await;
    assert!(began.elapsed() < SECOND / 4, "it waited for more than the acknowledgement");
    frames.send(Kind::Data, END_STREAM, 1, &[]).await;
    drop(frames);
    shutdown.await.unwrap().unwrap();
    // It says goodbye at its end.
    knows(&b, &id, NodeState::Left).await;
    assert!(began.elapsed() < SECOND, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn calls_are_taken_while_peers_have_not_acknowledged_for_two_seconds_at_most() {
    let mesh = TestMesh::in_memory();
    let (server, _b, lab) = with_silent_peer(&mesh, |node| node).await;
    let address = server.local_addr();
    let mut frames = Frames::over(tls_in(&mesh, "peer", address).await).await;
    frames.next(Kind::Settings).await;
    let began = Instant::now();
    let shutdown = tokio::spawn(server.shutdown());
    for _ in 0..3 {
        tokio::time::sleep(SECOND / 2).await;
        // A connection of somebody who has not heard of it.
        Peer::over(tls_in(&mesh, "late", address).await).await.unwrap().ask().await;
    }
    frames.next(Kind::GoAway).await;
    assert!((2 * SECOND..2 * SECOND + MORE).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert!(mesh.network().connect(&address.into()).await.is_err(), "it still listens");
    drop(frames);
    shutdown.await.unwrap().unwrap();
    assert_eq!(lab.seen.calls(), 3);
    // Neither did the peer hear its goodbye, nor does the connection to it end well.
    assert!(began.elapsed() < 4 * SECOND + MORE, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_open_stream_holds_a_shutdown_for_the_drain_timeout_and_no_longer() {
    for drain in [Duration::ZERO, SECOND / 4, DRAIN] {
        let (lines, _listening) = listen();
        let mesh = TestMesh::in_memory();
        // With all that can hold an end: peers that do not acknowledge, and one that reads nothing.
        let with = |node: NodeBuilder| node.drain_timeout(drain);
        let (server, _b, lab) = with_silent_peer(&mesh, with).await;
        let address = server.local_addr();
        let peer = Peer::over(tls_in(&mesh, "peer", address).await).await.unwrap();
        let running = call(&peer, &lab, "Forever").await;
        let mut deaf = Frames::over(tls_in(&mesh, "deaf", address).await).await;
        // Windows without end, so that only the pipe is full.
        let window = ((1_u32 << 31) - 1).to_be_bytes();
        deaf.send(Kind::Settings, 0, 0, &[&[0, 4], &window[..]].concat()).await;
        deaf.send(Kind::WindowUpdate, 0, 0, &((1_u32 << 31) - 65_536).to_be_bytes()).await;
        let block = request_block("/test.Lab/Events");
        deaf.send(Kind::Headers, END_HEADERS | END_STREAM, 1, &block).await;
        eventually(LIMIT, || if lab.seen.calls() == 2 { Ok(()) } else { Err("not called") }).await;

        let began = Instant::now();
        let shutdown = tokio::spawn(server.shutdown());
        let answer = timeout(2 * DRAIN, running).await.expect("the call goes on").unwrap();
        assert_eq!(answer.headers()["grpc-status"], "14", "{answer:?}");
        assert!(drain <= began.elapsed(), "the call had {:?} of {drain:?}", began.elapsed());
        shutdown.await.unwrap().unwrap();
        assert!(began.elapsed() <= drain + MORE, "{drain:?}: {:?}", began.elapsed());
        let told = lines.warnings("the time to drain is over");
        // Whoever reads nothing answers no PING either, and is gone by the end of a long drain.
        let calls = if drain == DRAIN { "calls=1" } else { "calls=2" };
        assert!(told.len() == 1 && told[0].contains(calls), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_that_outlive_an_old_connection_end_unavailable_and_are_counted() {
    let mesh = TestMesh::in_memory();
    let lab = Lab::default();
    let limits = Limits::default().max_connection_age(10 * SECOND, 5 * SECOND);
    let server =
        mesh.serve("server", |node| node.service(LAB_V1, lab.clone()).limits(limits)).await;
    let peer = Peer::over(tls_in(&mesh, "peer", server.local_addr()).await).await.unwrap();
    peer.ask().await;
    let began = Instant::now();
    let running = call(&peer, &lab, "Forever").await;
    let answer = timeout(DRAIN, running).await.expect("the call goes on").unwrap();
    assert_eq!(answer.headers()["grpc-status"], "14", "{answer:?}");
    // The age varies by a tenth.
    assert!((14 * SECOND..=16 * SECOND + MORE).contains(&began.elapsed()), "{:?}", began.elapsed());
    assert_eq!(server.stats().terminated, 1);
}
