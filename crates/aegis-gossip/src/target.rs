use aegis_topology::NodeEntry;
use aegis_transport::Target;

/// Where a node of the directory is, and since which record.
pub(crate) fn target(node: &NodeEntry) -> Target {
    Target::new(node.node_id().clone(), node.addresses().to_vec())
        .record(node.incarnation(), node.revision())
}
