//! A few nodes on loopback: the service of a member behind a plain tonic server.

use std::net::TcpListener;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use aegis_core::{Address, NodeId, ServiceInfo};
use aegis_gossip::{Member, Observer, Settings};
use aegis_testing::TestCa;
use aegis_tls::{Caller, ServerStream, Tls};
use aegis_topology::{Description, Directory, Label, NodeState, ServiceEntry, Snapshot};
use aegis_transport::{Connections, Tcp};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::transport::server::{Connected, Server};

pub(crate) static IDENTITY: ServiceInfo = ServiceInfo::from_static("identity", "v1");
pub(crate) const SOON: Duration = Duration::from_secs(2);

/// A node that listens. Dropping it kills it: nobody hears a goodbye.
pub(crate) struct Node {
    pub(crate) member: Member,
    pub(crate) address: Address,
    pub(crate) tls: Tls,
    _server: Killable,
}

impl Node {
    pub(crate) async fn start(ca: &TestCa, id: &str, seeds: &[&Address]) -> Self {
        Self::start_at(ca, id, "127.0.0.1:0", seeds).await
    }

    pub(crate) async fn start_at(ca: &TestCa, id: &str, bind: &str, seeds: &[&Address]) -> Self {
        Self::start_with(ca, id, bind, seeds, Settings::default()).await
    }

    pub(crate) async fn start_with(
        ca: &TestCa,
        id: &str,
        bind: &str,
        seeds: &[&Address],
        settings: Settings,
    ) -> Self {
        let listener = listen(bind).await;
        let address = Address::from(listener.local_addr().unwrap());
        let tls = ca.tls(id, "worker");
        let member = Member::new(tls.clone(), connections(&tls), settings);
        let server = Killable::new();
        server.0.as_ref().unwrap().spawn(serve(listener, tls.clone(), member.service()));
        member.start(describe(&address), seeds.iter().map(|it| (*it).clone())).unwrap();
        Self { member, address, tls, _server: server }
    }

    pub(crate) fn directory(&self) -> Directory {
        self.member.directory()
    }
}

/// A runtime of its own: tonic's tasks outlive its server, a killed process's do not.
struct Killable(Option<Runtime>);

impl Killable {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread();
        Self(Some({ runtime }.worker_threads(1).enable_all().build().unwrap()))
    }
}

impl Drop for Killable {
    fn drop(&mut self) {
        self.0.take().unwrap().shutdown_background();
    }
}

/// Listens, once the node that was killed there has let go of the port.
async fn listen(bind: &str) -> TcpListener {
    let listening = async {
        loop {
            match TcpListener::bind(bind) {
                Ok(listener) => return listener,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    let listener = tokio::time::timeout(SOON, listening).await.expect("the port stays taken");
    listener.set_nonblocking(true).unwrap();
    listener
}

pub(crate) fn describe(address: &Address) -> Description {
    let service = ServiceEntry::new(IDENTITY.clone()).served_by(["identity.Service"]).unwrap();
    Description::new(Label::new("a worker").unwrap(), [address.clone()], [service]).unwrap()
}

pub(crate) fn observe(ca: &TestCa, id: &str, seeds: &[&Address]) -> Observer {
    let tls = ca.tls(id, "client");
    let seeds = seeds.iter().map(|it| (*it).clone());
    Observer::start(tls.clone(), connections(&tls), seeds, Settings::default())
}

pub(crate) fn connections(tls: &Tls) -> Connections {
    Connections::new(tls.clone(), Arc::new(Tcp::default()), aegis_transport::Settings::default())
}

/// Ids of the nodes that take calls.
pub(crate) fn active(snapshot: &Snapshot) -> Vec<&str> {
    let nodes = snapshot.nodes().iter().filter(|node| node.state() == NodeState::Active);
    nodes.map(|node| node.node_id().as_str()).collect()
}

/// Waits until a directory shows exactly these nodes taking calls.
#[track_caller]
pub(crate) fn shows<'a>(
    directory: &'a Directory,
    ids: &'a [&'a str],
) -> impl Future<Output = ()> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let seen = directory.wait_for(|snapshot| active(snapshot) == ids, SOON).await;
        if let Err(late) = seen {
            panic!("at {caller}: {:?} and not {ids:?}", active(&late.last));
        }
    }
}

/// Waits until a condition holds.
#[track_caller]
pub(crate) fn eventually(condition: impl Fn() -> bool) -> impl Future<Output = ()> {
    let caller = std::panic::Location::caller();
    async move {
        let holds = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(SOON, holds).await.is_ok(), "not in time at {caller}");
    }
}

pub(crate) fn state(directory: &Directory, id: &str) -> Option<NodeState> {
    directory.snapshot().node(&NodeId::new(id).unwrap()).map(|node| node.state())
}

type Service = aegis_proto::mesh::v1::directory_service_server::DirectoryServiceServer<
    aegis_gossip::DirectoryHandler,
>;

async fn serve(listener: TcpListener, tls: Tls, service: Service) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let (accepted, incoming) = mpsc::channel(16);
    let accepting = async move {
        let mut handshakes = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, accepted) = (tls.clone(), accepted.clone());
            handshakes.spawn(async move {
                if let Ok(secure) = tls.accept(stream).await {
                    let conn = Secure { stream: secure.stream, caller: secure.caller };
                    drop(accepted.send(Ok::<_, std::io::Error>(conn)).await);
                }
            });
        }
    };
    let incoming = futures_util::stream::unfold(incoming, |mut incoming| async {
        incoming.recv().await.map(|next| (next, incoming))
    });
    let serving = Server::builder().add_service(service).serve_with_incoming(incoming);
    tokio::join!(accepting, serving).1.unwrap();
}

struct Secure {
    stream: ServerStream<TcpStream>,
    caller: Caller,
}

impl Connected for Secure {
    /// tonic puts it into the extensions of each request.
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Secure {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Secure {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
