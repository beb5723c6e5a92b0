use std::any::Any;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use aegis_client::{PoolOptions, ServicePool};
use aegis_core::{Address, NodeId, NodeType, SpiffeId};
use aegis_gossip::{Member, Observer};
use aegis_proto::mesh::mesh_service_server::MeshServiceServer;
use aegis_tls::Tls;
use aegis_topology::{Description, Directory};
use aegis_transport::{Connections, Listener, Network, Settings};

use crate::accept::{Acceptor, Stages};
use crate::builder::NodeBuilder;
use crate::dispatch::{Route, Routes};
use crate::error::StartError;
use crate::handler::Handler;
use crate::health::{Health, Phase};
use crate::limits::Limits;
use crate::mesh_service::Mesh;
use crate::peers::Peers;
use crate::probe::Probe;
use crate::server::{Server, Serving};
use crate::stats::Counters;
use crate::usage::ServiceUsage;

/// A member of the mesh: an identity, its certificates and its view of the others.
///
/// A clone is the same node.
/// [`start`](Self::start) makes it listen; a node that only calls others never has to.
/// When the last clone is gone, and with it what was made of the node (server, pool and its channels, peers), its
/// connections are cut and it follows the mesh no more.
#[derive(Clone)]
pub struct Node(Arc<Inner>);

/// What a builder found right.
pub(crate) struct Parts {
    pub(crate) id: NodeId,
    pub(crate) node_type: NodeType,
    pub(crate) description: Description,
    pub(crate) bind: Option<Address>,
    pub(crate) advertised: Vec<Address>,
    pub(crate) seeds: Vec<Address>,
    pub(crate) tls: Tls,
    pub(crate) routes: Routes,
    pub(crate) limits: Limits,
    pub(crate) drain_timeout: Duration,
    pub(crate) probe: Option<Address>,
    pub(crate) pool: PoolOptions,
    pub(crate) network: Arc<dyn Network>,
}

/// Who a node is, for those who ask it.
#[derive(Debug)]
pub(crate) struct About {
    pub(crate) id: NodeId,
    pub(crate) node_type: NodeType,
    pub(crate) name: String,
}

struct Inner {
    parts: Parts,
    about: Arc<About>,
    connections: Connections,
    view: Arc<View>,
    health: Health,
    health_service: Handler,
    pool: OnceLock<ServicePool>,
}

/// The node's view of the mesh; its pool holds it too, and may outlive the node.
pub(crate) struct View {
    member: Member,
    role: Mutex<Role>,
}

/// A server's membership: it ends with the server, whoever else holds the view.
pub(crate) struct Membership(Arc<View>);

impl Membership {
    pub(crate) fn member(&self) -> &Member {
        &self.0.member
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.0.member.stop();
    }
}

impl View {
    pub(crate) fn member(&self) -> &Member {
        &self.member
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View").field("member", &self.member).finish_non_exhaustive()
    }
}

/// How the node follows the directory.
enum Role {
    /// Not yet: nobody has asked, and tasks need a runtime.
    Idle,
    /// As a client, without a record of its own.
    Observer(#[expect(dead_code, reason = "owns the tasks that follow the directory")] Observer),
    /// With a record, or about to have one.
    Member,
}

impl Node {
    /// Describes a node.
    pub fn builder() -> NodeBuilder {
        NodeBuilder::default()
    }

    pub(crate) fn new(parts: Parts) -> Self {
        let about = Arc::new(About {
            id: parts.id.clone(),
            node_type: parts.node_type.clone(),
            name: parts.description.name().as_str().to_owned(),
        });
        let connections =
            Connections::new(parts.tls.clone(), Arc::clone(&parts.network), Settings::default());
        let member =
            Member::new(parts.tls.clone(), connections.clone(), aegis_gossip::Settings::default());
        let (reporter, health_server) = tonic_health::server::health_reporter();
        let health = Health::new(reporter, parts.routes.names());
        Self(Arc::new(Inner {
            about,
            view: Arc::new(View { member, role: Mutex::new(Role::Idle) }),
            connections,
            health,
            health_service: Handler::new(health_server),
            pool: OnceLock::new(),
            parts,
        }))
    }

    /// The node's id.
    pub fn id(&self) -> &NodeId {
        &self.0.parts.id
    }

    /// What kind of node it is.
    pub fn node_type(&self) -> &NodeType {
        &self.0.parts.node_type
    }

    /// The identity in the node's certificate.
    pub fn spiffe_id(&self) -> SpiffeId {
        self.0.parts.tls.spiffe_id()
    }

    /// The node's connections to providers; every call gives the same pool.
    ///
    /// The first call of this, [`directory`](Self::directory) or [`peers`](Self::peers) begins to follow the mesh.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn pool(&self) -> ServicePool {
        self.observe();
        let pool = self.0.pool.get_or_init(|| {
            ServicePool::for_node(
                self.0.view.member.directory(),
                self.0.connections.clone(),
                self.0.parts.tls.clone(),
                Arc::clone(&self.0.view) as Arc<dyn Any + Send + Sync>,
                self.0.parts.pool.clone(),
            )
        });
        pool.clone()
    }

    /// The directory of the mesh as this node sees it, followed for as long as the node or its pool lives.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn directory(&self) -> Directory {
        self.observe();
        self.0.view.member.directory()
    }

    /// Single nodes of the mesh, for hands-on use.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn peers(&self) -> Peers {
        self.observe();
        Peers::new(Arc::clone(&self.0.about), Arc::clone(&self.0.view), self.0.connections.clone())
    }

    /// The node's health, for its owner to set.
    pub fn health(&self) -> &Health {
        &self.0.health
    }

    /// How often each service that the node advertises was called since it was built, by name and version; empty where it
    /// advertises none.
    pub fn usage(&self) -> Vec<ServiceUsage> {
        self.0.parts.routes.usage()
    }

    /// Follows the mesh as a client, unless the node does so already or is a member.
    fn observe(&self) {
        let mut role = self.role();
        if matches!(*role, Role::Idle) {
            *role = Role::Observer(self.0.view.member.observe(self.0.parts.seeds.iter().cloned()));
        }
    }

    /// Listens, serves and advertises; when it returns, calls are answered.
    ///
    /// That others know of the node takes a moment longer: [`Directory::wait_for`] on their side shows it.
    ///
    /// # Errors
    /// [`StartError`]; the node can be started again then, except after [`AlreadyStarted`](StartError::AlreadyStarted).
    ///
    /// # Cancel safety
    /// Dropping the future leaves the node as it was.
    pub async fn start(&self) -> Result<Server, StartError> {
        let inner = &self.0;
        let parts = &inner.parts;
        let Some(bind) = &parts.bind else {
            return Err(StartError::NoAddress { node: parts.id.clone() });
        };
        if matches!(*self.role(), Role::Member) {
            return Err(StartError::AlreadyStarted { node: parts.id.clone() });
        }
        // A start that was given up has left it further on.
        inner.health.enter(Phase::Starting);
        // First, since it says how far the rest is.
        let mut probe = None;
        if let Some(address) = &parts.probe {
            let failed = |source| StartError::Bind { address: address.clone(), source };
            let health = inner.health.clone();
            probe = Some(Probe::bind(&*parts.network, address, health).await.map_err(failed)?);
        }
        let listening = self.listen(bind);
        let (listener, local, description) = match &mut probe {
            Some(probe) => probe.beside(listening).await?,
            None => listening.await?,
        };
        // Here nothing waits any more: from here on nothing can be interrupted half-way.
        let serving = self.serve(listener, description, probe)?;
        tracing::info!(node = %parts.id, address = %local, "listening");
        Ok(Server::new(self.clone(), local, serving))
    }

    /// Binds the address and tells that the node takes calls, which it will when nothing further goes wrong.
    async fn listen(
        &self,
        bind: &Address,
    ) -> Result<(Box<dyn Listener>, SocketAddr, Description), StartError> {
        let parts = &self.0.parts;
        let failed = |source| StartError::Bind { address: bind.clone(), source };
        let listener = parts.network.bind(bind).await.map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        let description = Description::new(
            parts.description.name().clone(),
            self.addresses(bind, local.port()),
            parts.description.services().iter().cloned(),
        )
        .map_err(|error| StartError::Publish { source: error.into() })?
        .in_zone(parts.description.zone().clone());
        self.0.health.enter(Phase::Serving);
        self.0.health.tell().await;
        Ok((listener, local, description))
    }

    /// Accepts connections, then becomes a member: peers may dial as soon as they see the record.
    fn serve(
        &self,
        listener: Box<dyn Listener>,
        description: Description,
        probe: Option<Probe>,
    ) -> Result<Serving, StartError> {
        let inner = &self.0;
        let parts = &inner.parts;
        let mut role = self.role();
        if matches!(*role, Role::Member) {
            return Err(StartError::AlreadyStarted { node: parts.id.clone() });
        }
        let member = &inner.view.member;
        let mesh = Mesh::new(Arc::clone(&inner.about), member.directory(), inner.health.clone());
        let mut routes = parts.routes.clone();
        let ours = [
            inner.health_service.clone(),
            Handler::new(MeshServiceServer::new(mesh)),
            Handler::new(member.service()),
        ];
        for handler in ours {
            // The builder refused these names to others.
            routes.add(Route::new(handler, None));
        }
        let counters = Arc::new(Counters::default());
        let stages = Stages::default();
        let acceptor = Acceptor {
            listener,
            tls: parts.tls.clone(),
            routes: Arc::new(routes),
            limits: parts.limits.clone(),
            counters: Arc::clone(&counters),
            places: Arc::default(),
            stages: stages.clone(),
        };
        let task = acceptor.spawn();
        member
            .start(description, parts.seeds.iter().cloned())
            .map_err(|error| StartError::Publish { source: error.into() })?;
        *role = Role::Member;
        // Another start may have begun meanwhile, and failed.
        inner.health.enter(Phase::Serving);
        let probe = probe.map(|probe| probe.spawn(task.abort_handle()));
        Ok(Serving {
            task,
            probe,
            stages,
            counters,
            membership: Membership(Arc::clone(&inner.view)),
            health: inner.health.clone(),
            drain_timeout: parts.drain_timeout,
        })
    }

    /// Where others dial this node.
    fn addresses(&self, bind: &Address, port: u16) -> Vec<Address> {
        let fill = |address: &Address| {
            if address.port() == 0 { address.with_port(port) } else { address.clone() }
        };
        if self.0.parts.advertised.is_empty() {
            vec![fill(bind)]
        } else {
            self.0.parts.advertised.iter().map(fill).collect()
        }
    }

    fn role(&self) -> MutexGuard<'_, Role> {
        self.0.view.role.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn parsed_certificates(&self) -> u64 {
        self.0.parts.tls.parsed_certificates()
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.0.connections
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("id", self.id())
            .field("bind", &self.0.parts.bind)
            .finish_non_exhaustive()
    }
}
