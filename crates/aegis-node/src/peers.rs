use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aegis_core::{Address, Chain, NodeId};
use aegis_gossip::{SyncError, Synced};
use aegis_proto::mesh::mesh_service_client::MeshServiceClient;
use aegis_proto::mesh::{HealthRequest, NodeInfoRequest, PingRequest};
use aegis_transport::{Connections, Link, LinkStatus, NodeChannel, Target};
use tokio::time::Instant;
use tonic::{Request, Status};

use crate::health::HealthStatus;
use crate::node::{About, View};

/// How long a peer may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// Single nodes of the mesh, asked one by one.
///
/// Nothing here is needed to make calls: nodes find each other and keep their directories equal by themselves.
/// A clone is the same; it keeps the node's connections.
///
/// ```
/// use aegis_testing::TestMesh;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mesh = TestMesh::in_memory();
/// let morpheus = mesh.serve("morpheus-1", |node| node.name("Morpheus")).await;
/// let vicky = mesh.node("vicky-1");
///
/// let peers = vicky.peers();
/// let id = peers.add(&morpheus.local_addr().into()).await?;
/// assert_eq!(id, "morpheus-1"); // its certificate says so
/// assert_eq!(peers.info(&id).await?.name, "Morpheus"); // it says so itself
/// println!("{id} answers within {:?}", peers.ping(&id).await?);
/// # Ok(())
/// # }
/// ```
///
/// # Cancel safety
/// Of all its futures: dropping one gives up the connection attempt or the call. What was learned by then stays.
#[derive(Debug, Clone)]
pub struct Peers {
    about: Arc<About>,
    view: Arc<View>,
    connections: Connections,
}

/// What a peer says of itself; only the id is proved, by its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerInfo {
    /// The peer's id.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// What kind of node it says it is.
    pub node_type: String,
    /// Where it says it listens.
    pub address: String,
}

/// How a peer says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PeerHealth {
    /// Its health.
    pub status: HealthStatus,
    /// A word on it for people.
    pub message: String,
    /// When it last looked, as it says, in whole seconds; 1970 if it says nothing usable.
    pub last_checked: SystemTime,
}

impl Peers {
    pub(crate) fn new(about: Arc<About>, view: Arc<View>, connections: Connections) -> Self {
        Self { about, view, connections }
    }

    /// Learns what whoever listens at an address knows of the mesh, and tells its id, as its certificate proves it.
    ///
    /// It is a [`sync`](Self::sync): the peer need not be added again, since the directory keeps it.
    ///
    /// # Errors
    /// As [`sync`](Self::sync).
    pub async fn add(&self, address: &Address) -> Result<NodeId, SyncError> {
        self.sync(address).await.map(|synced| synced.node_id)
    }

    /// Compares the directory with that of whoever listens at an address, now; nodes do so by themselves every second.
    ///
    /// A call of it takes 3 s at most, all of them 30 s.
    ///
    /// # Errors
    /// [`SyncError`] says why there is no connection, or no answer; its variants say who has to act.
    pub async fn sync(&self, address: &Address) -> Result<Synced, SyncError> {
        self.view.member().sync_now(address).await
    }

    /// The time a peer takes to answer, the making of a connection included if there is none.
    ///
    /// # Errors
    /// `NOT_FOUND` for an id that the directory does not hold, `UNAVAILABLE` with the reason where no connection can be
    /// made, `DEADLINE_EXCEEDED` after 5 s, else what the peer answered.
    pub async fn ping(&self, id: &NodeId) -> Result<Duration, Status> {
        let (_link, mut client) = self.client(id).await?;
        let asked = Instant::now();
        client.ping(self.request(|sender_id| PingRequest { sender_id, timestamp: 0 })).await?;
        Ok(asked.elapsed())
    }

    /// How a peer says it is.
    ///
    /// # Errors
    /// As [`ping`](Self::ping).
    pub async fn health(&self, id: &NodeId) -> Result<PeerHealth, Status> {
        let (_link, mut client) = self.client(id).await?;
        let answer = client
            .get_health(self.request(|sender_id| HealthRequest { sender_id }))
            .await?
            .into_inner();
        let status = match answer.status.as_str() {
            "healthy" => HealthStatus::Healthy,
            "unhealthy" => HealthStatus::Unhealthy,
            _ => HealthStatus::Unknown,
        };
        let since = Duration::from_secs(u64::try_from(answer.last_checked).unwrap_or(0));
        let last_checked =
            SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH);
        Ok(PeerHealth { status, message: answer.message, last_checked })
    }

    /// What a peer says of itself.
    ///
    /// # Errors
    /// As [`ping`](Self::ping).
    pub async fn info(&self, id: &NodeId) -> Result<PeerInfo, Status> {
        let (_link, mut client) = self.client(id).await?;
        let answer = client
            .get_node_info(self.request(|sender_id| NodeInfoRequest { sender_id }))
            .await?
            .into_inner();
        Ok(PeerInfo {
            id: answer.id,
            name: answer.name,
            node_type: answer.r#type,
            address: answer.address,
        })
    }

    fn request<T>(&self, message: impl FnOnce(String) -> T) -> Request<T> {
        let mut request = Request::new(message(self.about.id.to_string()));
        request.set_timeout(ANSWER);
        request
    }

    /// A client of one node; the link keeps its connection.
    async fn client(&self, id: &NodeId) -> Result<(Link, MeshServiceClient<NodeChannel>), Status> {
        let snapshot = self.view.member().directory().snapshot();
        let Some(node) = snapshot.node(id) else {
            return Err(Status::not_found(format!("the directory holds no node {id}")));
        };
        let target = Target::new(id.clone(), node.addresses().to_vec())
            .record(node.incarnation(), node.revision());
        let link = self.connections.link(target.clone());
        if matches!(link.status(), LinkStatus::Backoff { .. }) {
            // Who asks by hand wants to know how it is now.
            self.connections.dial(target).await.map_err(|error| {
                let error = Chain::new(&error);
                Status::unavailable(format!("node {id} is not connected: {error}"))
            })?;
        }
        let client = MeshServiceClient::new(link.channel());
        Ok((link, client))
    }
}
