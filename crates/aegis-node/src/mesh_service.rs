//! `aegis.MeshService`: what nodes of the Go mesh ask each other (WIRE facts: times in Unix seconds, versions as one number).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use aegis_core::NodeId;
use aegis_proto::mesh::mesh_service_server::MeshService;
use aegis_proto::mesh::{
    GetTopologyRequest, GetTopologyResponse, HealthRequest, HealthResponse, NodeInfoRequest,
    NodeInfoResponse, PingRequest, PingResponse, Service, TopologyNode, TopologySyncRequest,
    TopologySyncResponse,
};
use aegis_tls::Caller;
use aegis_topology::{Directory, NodeEntry, Snapshot, Timestamp};
use tonic::{Request, Response, Status};

use crate::health::Health;
use crate::node::About;

/// Callers whose last answer is remembered; beyond, the oldest knowledge is forgotten, which costs one full answer.
const REMEMBERED: usize = 1024;

/// Answers nodes about this node and the directory; it believes nothing they say.
pub(crate) struct Mesh {
    about: Arc<About>,
    directory: Directory,
    health: Health,
    told: Mutex<HashMap<NodeId, Told>>,
}

/// What a caller was told last.
#[derive(Clone, Copy)]
struct Told {
    epoch: u64,
    version: i64,
}

impl Mesh {
    pub(crate) fn new(about: Arc<About>, directory: Directory, health: Health) -> Self {
        Self { about, directory, health, told: Mutex::default() }
    }

    fn health(&self) -> HealthResponse {
        let report = self.health.report();
        HealthResponse {
            node_id: self.about.id.to_string(),
            status: report.status.as_str().to_owned(),
            last_checked: seconds(report.since),
            message: report.message,
            error: String::new(),
        }
    }

    /// A version above the caller's exactly when the directory changed since its last answer.
    ///
    /// A Go node replaces its whole map at a higher version and forgets what it knew itself, so it must not see one without need;
    /// and whatever number it sends, nothing of ours advances by it.
    fn version_for(&self, caller: &NodeId, asked: i64, epoch: u64) -> i64 {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let version = match told.get(caller) {
            Some(last) if last.epoch == epoch && last.version <= asked => asked,
            _ => asked.saturating_add(1).max(i64::try_from(epoch).unwrap_or(i64::MAX)),
        };
        if REMEMBERED <= told.len() && !told.contains_key(caller) {
            told.clear();
        }
        told.insert(caller.clone(), Told { epoch, version });
        version
    }
}

#[tonic::async_trait]
impl MeshService for Mesh {
    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        Ok(Response::new(PingResponse {
            receiver_id: self.about.id.to_string(),
            timestamp: seconds(SystemTime::now()),
            success: true,
        }))
    }

    async fn get_health(
        &self,
        _: Request<HealthRequest>,
    ) -> Result<Response<HealthResponse>, Status> {
        Ok(Response::new(self.health()))
    }

    async fn get_node_info(
        &self,
        _: Request<NodeInfoRequest>,
    ) -> Result<Response<NodeInfoResponse>, Status> {
        let snapshot = self.directory.snapshot();
        let address = snapshot
            .node(&self.about.id)
            .and_then(|node| node.addresses().first())
            .map(ToString::to_string);
        Ok(Response::new(NodeInfoResponse {
            id: self.about.id.to_string(),
            name: self.about.name.clone(),
            r#type: self.about.node_type.to_string(),
            address: address.unwrap_or_default(),
            health: Some(self.health()),
        }))
    }

    async fn sync_topology(
        &self,
        request: Request<TopologySyncRequest>,
    ) -> Result<Response<TopologySyncResponse>, Status> {
        let caller = Caller::from_request(&request)?;
        let snapshot = self.directory.snapshot();
        let version =
            self.version_for(caller.node_id(), request.get_ref().version, snapshot.version().epoch);
        Ok(Response::new(TopologySyncResponse {
            version,
            nodes: nodes(&snapshot),
            updated_at: seconds(SystemTime::now()),
        }))
    }

    async fn get_topology(
        &self,
        _: Request<GetTopologyRequest>,
    ) -> Result<Response<GetTopologyResponse>, Status> {
        let snapshot = self.directory.snapshot();
        let version = i64::try_from(snapshot.version().epoch).unwrap_or(i64::MAX);
        Ok(Response::new(GetTopologyResponse { version, nodes: nodes(&snapshot) }))
    }
}

fn nodes(snapshot: &Snapshot) -> Vec<TopologyNode> {
    snapshot.nodes().iter().map(|node| to_wire(node)).collect()
}

fn to_wire(node: &NodeEntry) -> TopologyNode {
    let service = |service: &aegis_topology::ServiceEntry| Service {
        name: service.info().name().to_string(),
        version: service.info().version().to_string(),
    };
    TopologyNode {
        id: node.node_id().to_string(),
        name: node.name().to_owned(),
        r#type: node.node_type().map(ToString::to_string).unwrap_or_default(),
        address: node.addresses().first().map(ToString::to_string).unwrap_or_default(),
        joined_at: unix_seconds(node.joined_at()),
        updated_at: unix_seconds(node.updated_at()),
        services: node.services().iter().map(service).collect(),
    }
}

fn unix_seconds(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis() / 1_000).unwrap_or(i64::MAX)
}

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or(0)
}
