//! A few nodes on loopback: the service of a member behind a plain tonic server.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::{Address, NodeId, ServiceInfo, SpiffeId};
use aegis_gossip::{Member, Observer, Settings};
use aegis_proto::convert::encode_record;
use aegis_proto::mesh::v1 as wire;
use aegis_proto::mesh::v1::directory_service_client::DirectoryServiceClient;
use aegis_proto::mesh::v1::directory_service_server::{DirectoryService, DirectoryServiceServer};
use aegis_testing::TestCa;
use aegis_tls::Tls;
use aegis_topology::{
    Description, Directory, Instance, Label, NodeState, Precedence, Record, ServiceEntry,
    SignedRecord, Snapshot, Timestamp,
};
use aegis_transport::{Connections, Link, Target, Tcp};
use bytes::Bytes;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::transport::server::{Router, Server};

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
        let services = Server::builder().add_service(member.service());
        server.0.as_ref().unwrap().spawn(serve(listener, tls.clone(), services));
        member.start(describe(&address), seeds.iter().map(|it| (*it).clone())).unwrap();
        Self { member, address, tls, _server: server }
    }

    pub(crate) fn directory(&self) -> Directory {
        self.member.directory()
    }
}

/// A server that speaks the protocol in its own way, under the identity of `tls`.
pub(crate) struct Stranger {
    pub(crate) address: Address,
    _server: Killable,
}

impl Stranger {
    pub(crate) async fn start(tls: &Tls, service: impl DirectoryService) -> Self {
        let listener = listen("127.0.0.1:0").await;
        let address = Address::from(listener.local_addr().unwrap());
        let server = Killable::new();
        let services = Server::builder().add_service(DirectoryServiceServer::new(service));
        server.0.as_ref().unwrap().spawn(serve(listener, tls.clone(), services));
        Self { address, _server: server }
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

/// A record about `about`, signed by the key of `from`, whoever that is.
pub(crate) fn record(from: &Tls, about: &str) -> Record {
    let own = from.spiffe_id();
    let (domain, node_type) = (own.trust_domain().clone(), own.node_type().clone());
    let owner = SpiffeId::new(domain, node_type, NodeId::new(about).unwrap());
    let instance = Instance::from_bytes([9; 16]);
    let precedence = Precedence::new(now().as_millis(), 1);
    let description = describe(&"127.0.0.1:1".parse().unwrap());
    Record::new(owner, instance, precedence, description, now(), Duration::from_secs(60))
}

pub(crate) fn sign(from: &Tls, record: &Record) -> SignedRecord {
    let body = encode_record(record);
    let signature = from.sign_record(&body).unwrap();
    let chain: Vec<_> = signature.chain.iter().map(|der| Bytes::copy_from_slice(der)).collect();
    SignedRecord::new(body, chain, signature.scheme, signature.signature.into())
}

/// Pushes records to a node, as the process that has the identity of `from`.
pub(crate) async fn push(
    from: &Tls,
    to: &Node,
    records: impl IntoIterator<Item = impl Into<wire::SignedRecord>>,
) {
    let records = records.into_iter().map(Into::into).collect();
    let request = wire::SyncRequest { records, ..Default::default() };
    let (_connections, link) = link(from, to);
    DirectoryServiceClient::new(link.channel()).sync(request).await.unwrap();
}

pub(crate) fn link(from: &Tls, to: &Node) -> (Connections, Link) {
    let target = Target::new(to.tls.spiffe_id().node_id().clone(), vec![to.address.clone()]);
    let connections = connections(from);
    let link = connections.link(target);
    (connections, link)
}

pub(crate) fn now() -> Timestamp {
    std::time::SystemTime::now().into()
}

pub(crate) fn observe(ca: &TestCa, id: &str, seeds: &[&Address]) -> Observer {
    observe_with(ca, id, seeds, Settings::default())
}

pub(crate) fn observe_with(
    ca: &TestCa,
    id: &str,
    seeds: &[&Address],
    settings: Settings,
) -> Observer {
    let tls = ca.tls(id, "client");
    let seeds = seeds.iter().map(|it| (*it).clone());
    Observer::start(tls.clone(), connections(&tls), seeds, settings)
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

pub(crate) fn state(directory: &Directory, id: &str) -> Option<NodeState> {
    directory.snapshot().node(&NodeId::new(id).unwrap()).map(|node| node.state())
}

async fn serve(listener: TcpListener, tls: Tls, services: Router) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let (accepted, incoming) = mpsc::channel(16);
    let accepting = async move {
        let mut handshakes = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, accepted) = (tls.clone(), accepted.clone());
            handshakes.spawn(async move {
                if let Ok(connection) = tls.accept(stream).await {
                    drop(accepted.send(Ok::<_, std::io::Error>(connection)).await);
                }
            });
        }
    };
    let incoming = futures_util::stream::unfold(incoming, |mut incoming| async {
        incoming.recv().await.map(|next| (next, incoming))
    });
    let serving = services.serve_with_incoming(incoming);
    tokio::join!(accepting, serving).1.unwrap();
}
