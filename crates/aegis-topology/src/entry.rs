use aegis_core::{Address, NodeId, NodeType, ServiceInfo};
use serde::Serialize;

use crate::{Description, Instance, NodeState, Precedence, Record, ServiceEntry, Timestamp};

/// A node as the directory shows it. Times read as Unix milliseconds in JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeEntry {
    node_id: NodeId,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_type: Option<NodeType>,
    #[serde(flatten, serialize_with = "description")]
    description: Description,
    state: NodeState,
    incarnation: u64,
    revision: u64,
    #[serde(skip)]
    instance: Option<Instance>,
    joined_at: Timestamp,
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<Timestamp>,
    #[serde(skip)]
    foreign: bool,
}

impl NodeEntry {
    /// A node that somebody wrote down: no record, no signature; its certificate is checked at the connection all the same.
    pub fn fixed(node_id: NodeId, description: Description) -> Self {
        Self {
            node_id,
            node_type: None,
            description,
            state: NodeState::Active,
            incarnation: 0,
            revision: 0,
            instance: None,
            joined_at: Timestamp::default(),
            updated_at: Timestamp::default(),
            expires_at: None,
            foreign: false,
        }
    }

    /// Says that the server is not one of ours (grpc-go, grpcio), so that it is not pinged as often.
    #[must_use]
    pub fn foreign(mut self) -> Self {
        self.foreign = true;
        self
    }

    /// The node's id.
    pub fn node_id(&self) -> &NodeId {
        &self.node_id
    }

    /// The node's type, as its certificate has it; none for a [`fixed`](Self::fixed) node.
    pub fn node_type(&self) -> Option<&NodeType> {
        self.node_type.as_ref()
    }

    /// The node's name for people; may be empty.
    pub fn name(&self) -> &str {
        self.description.name().as_str()
    }

    /// The node's zone; may be empty.
    pub fn zone(&self) -> &str {
        self.description.zone().as_str()
    }

    /// Where the node listens, in the order to dial; empty if it does not.
    pub fn addresses(&self) -> &[Address] {
        self.description.addresses()
    }

    /// What the node serves.
    pub fn services(&self) -> &[ServiceEntry] {
        self.description.services()
    }

    /// The node's entry for a service, if it serves it.
    pub fn service(&self, info: &ServiceInfo) -> Option<&ServiceEntry> {
        self.services().iter().find(|service| service.info() == info)
    }

    /// Whether the node takes calls, as it last said.
    pub fn state(&self) -> NodeState {
        self.state
    }

    /// Which run of the node this is: larger than that of every earlier run, mostly Unix milliseconds of its start.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Which record of that run this is.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Which process of that identity this is; none for a [`fixed`](Self::fixed) node.
    pub fn instance(&self) -> Option<Instance> {
        self.instance
    }

    /// When this run of the node began, by its own clock.
    pub fn joined_at(&self) -> Timestamp {
        self.joined_at
    }

    /// When the node last said something about itself, by its own clock.
    pub fn updated_at(&self) -> Timestamp {
        self.updated_at
    }

    /// When the node is forgotten unless it says something again before; none for a [`fixed`](Self::fixed) node.
    pub fn expires_at(&self) -> Option<Timestamp> {
        self.expires_at
    }

    /// Whether the server is known not to be one of ours.
    pub fn is_foreign(&self) -> bool {
        self.foreign
    }
}

impl From<&Record> for NodeEntry {
    fn from(record: &Record) -> Self {
        let Precedence { incarnation, revision } = record.precedence;
        Self {
            node_id: record.owner.node_id().clone(),
            node_type: Some(record.owner.node_type().clone()),
            description: record.description.clone(),
            state: record.state,
            incarnation,
            revision,
            instance: Some(record.instance),
            // An incarnation is a time unless the clock was set back between two runs.
            joined_at: Timestamp::from_millis(incarnation).min(record.issued_at),
            updated_at: record.issued_at,
            expires_at: Some(record.expires_at),
            foreign: false,
        }
    }
}

fn description<S: serde::Serializer>(
    description: &Description,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    #[derive(Serialize)]
    struct Parts<'a> {
        name: &'a str,
        #[serde(skip_serializing_if = "str::is_empty")]
        zone: &'a str,
        addresses: &'a [Address],
        services: &'a [ServiceEntry],
    }
    Parts {
        name: description.name().as_str(),
        zone: description.zone().as_str(),
        addresses: description.addresses(),
        services: description.services(),
    }
    .serialize(serializer)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aegis_core::SpiffeId;

    use super::*;

    #[test]
    fn a_node_of_a_record_says_in_json_until_when_it_is_listed() {
        let owner: SpiffeId = "spiffe://mesh.test/aegis/worker/a".parse().unwrap();
        let (instance, now) = (Instance::from_bytes([1; 16]), Timestamp::from_millis(5_000));
        let (precedence, lease) = (Precedence::new(5_000, 1), Duration::from_secs(60));
        let record = Record::new(owner, instance, precedence, Description::default(), now, lease);
        let json = serde_json::to_value(NodeEntry::from(&record)).unwrap();
        assert_eq!((&json["updated_at"], &json["expires_at"]), (&5_000.into(), &65_000.into()));
    }
}
