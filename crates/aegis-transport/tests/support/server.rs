use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aegis_core::{Address, NodeId};
use aegis_testing::TestCa;
use aegis_tls::{AcceptError, ServerStream, Tls};
use aegis_transport::Target;
use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use super::raw::Raw;

pub(crate) type Http2 = h2::server::Connection<ServerStream<TcpStream>, Bytes>;

/// Accepts TLS connections for one node and hands them to the test.
pub(crate) struct Server {
    id: NodeId,
    address: SocketAddr,
    accepted: Mutex<mpsc::UnboundedReceiver<ServerStream<TcpStream>>>,
    refused: Mutex<mpsc::UnboundedReceiver<AcceptError>>,
    count: Arc<AtomicUsize>,
    tasks: std::sync::Mutex<JoinSet<()>>,
}

impl Server {
    pub(crate) async fn start(ca: &TestCa, id: &str) -> Self {
        Self::at("127.0.0.1:0", ca, id).await
    }

    pub(crate) async fn at(address: &str, ca: &TestCa, id: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let tls = ca.tls(id, "server");
        let count = Arc::new(AtomicUsize::new(0));
        let (accepted, accepted_rx) = mpsc::unbounded_channel();
        let (refused, refused_rx) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, tls, Arc::clone(&count), accepted, refused));
        Self {
            id: id.parse().unwrap(),
            address,
            accepted: Mutex::new(accepted_rx),
            refused: Mutex::new(refused_rx),
            count,
            tasks: std::sync::Mutex::new(tasks),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.id.clone()
    }

    pub(crate) fn socket_addr(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn address(&self) -> Address {
        self.address.into()
    }

    pub(crate) fn target(&self) -> Target {
        Target::new(self.id(), vec![self.address()])
    }

    /// TCP connections so far.
    pub(crate) fn dials(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// The next connection, before HTTP/2.
    pub(crate) async fn stream(&self) -> ServerStream<TcpStream> {
        self.accepted.lock().await.recv().await.unwrap()
    }

    /// The next connection, to be played by hand.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::new(self.stream().await).await
    }

    /// The next connection with SETTINGS exchanged.
    pub(crate) async fn greeted(&self, max_streams: u32) -> Raw {
        let mut raw = self.raw().await;
        raw.greet(max_streams).await;
        raw
    }

    pub(crate) async fn refusal(&self) -> AcceptError {
        self.refused.lock().await.recv().await.unwrap()
    }

    /// The next connection, played by h2.
    pub(crate) async fn http2(&self) -> Http2 {
        h2::server::Builder::new().handshake(self.stream().await).await.unwrap()
    }

    /// Runs something for as long as the server lives.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.lock().unwrap().spawn(task);
    }
}

async fn accept(
    listener: TcpListener,
    tls: Tls,
    count: Arc<AtomicUsize>,
    accepted: mpsc::UnboundedSender<ServerStream<TcpStream>>,
    refused: mpsc::UnboundedSender<AcceptError>,
) {
    let mut handshakes = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        count.fetch_add(1, Ordering::SeqCst);
        let (tls, accepted, refused) = (tls.clone(), accepted.clone(), refused.clone());
        handshakes.spawn(async move {
            match tls.accept(stream).await {
                Ok(done) => drop(accepted.send(done.stream)),
                Err(error) => drop(refused.send(error)),
            }
        });
    }
}
