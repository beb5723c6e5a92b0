mod child;
mod frames;
mod lab;
mod log;
mod peer;

use std::time::Duration;

use aegis_core::ServiceInfo;
use aegis_node::{Limits, NodeBuilder, Server};
use aegis_testing::TestMesh;

pub(crate) use child::Child;
pub(crate) use frames::{ACK, END_HEADERS, END_STREAM, Frames, Kind, put, request_block};
pub(crate) use lab::{Lab, message};
pub(crate) use log::listen;
pub(crate) use peer::{Answer, Peer, dial, post, read, tls, tls_in};

/// Far longer than anything here takes.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
pub(crate) const LAB_V1: ServiceInfo = ServiceInfo::from_static("lab", "v1");

/// A node that listens on loopback, and the mesh that its peers have their certificates from.
pub(crate) async fn node(limits: Limits) -> (TestMesh, Server, Lab) {
    node_with(limits, |node| node).await
}

pub(crate) async fn node_with(
    limits: Limits,
    with: impl FnOnce(NodeBuilder) -> NodeBuilder,
) -> (TestMesh, Server, Lab) {
    let (mesh, lab) = (TestMesh::loopback(), Lab::default());
    let server =
        mesh.serve("server", |node| with(node.service(LAB_V1, lab.clone()).limits(limits))).await;
    (mesh, server, lab)
}
