use aegis_core::{Address, NodeId, NodeType, ServiceInfo, SpiffeId, TrustDomain};
use aegis_topology::{
    Description, Instance, Label, NodeState, Precedence, Record, ServiceEntry, Timestamp,
};
use bytes::Bytes;
use prost::Message;

use super::WireError;
use super::directory::fixed;
use crate::mesh::v1 as wire;

/// The version of the protocol that we speak.
const PROTOCOL: u32 = 1;

/// Encodes a record as the body that its owner signs.
pub fn encode_record(record: &Record) -> Bytes {
    let description = &record.description;
    let state = match record.state {
        NodeState::Active => wire::State::Active,
        NodeState::Draining => wire::State::Draining,
        NodeState::Left => wire::State::Left,
        _ => wire::State::Unspecified,
    };
    let services = description.services().iter().map(|service| wire::ServiceRecord {
        name: service.info().name().to_string(),
        version: service.info().version().to_string(),
        grpc_services: service.grpc_services().iter().map(|it| it.as_ref().to_owned()).collect(),
        weight: service.weight(),
    });
    let body = wire::Record {
        trust_domain: record.owner.trust_domain().to_string(),
        node_id: record.owner.node_id().to_string(),
        name: description.name().as_str().to_owned(),
        node_type: record.owner.node_type().to_string(),
        addresses: description.addresses().iter().map(ToString::to_string).collect(),
        zone: description.zone().as_str().to_owned(),
        services: services.collect(),
        state: state.into(),
        incarnation: record.precedence.incarnation,
        revision: record.precedence.revision,
        instance: Bytes::copy_from_slice(record.instance.as_bytes()),
        issued_at: to_wire(record.issued_at),
        expires_at: to_wire(record.expires_at),
        protocol: PROTOCOL,
    };
    body.encode_to_vec().into()
}

/// Reads the body of a signed record; addresses that nobody can dial are left out.
///
/// # Errors
/// [`WireError`] says what is wrong.
pub fn decode_record(body: &[u8]) -> Result<Record, WireError> {
    let record = wire::Record::decode(body)
        .map_err(|source| WireError::Decode { message: "record", source })?;
    let name = |source| WireError::Name { source };
    let owner = SpiffeId::new(
        TrustDomain::new(record.trust_domain).map_err(name)?,
        NodeType::new(record.node_type).map_err(name)?,
        NodeId::new(record.node_id).map_err(name)?,
    );
    let addresses = record
        .addresses
        .iter()
        .map(|address| address.parse().map_err(|source| WireError::Address { source }))
        .collect::<Result<Vec<Address>, _>>()?;
    let services =
        record.services.into_iter().map(service).collect::<Result<Vec<ServiceEntry>, _>>()?;
    let label = |field, text| Label::new(text).map_err(|source| WireError::Label { field, source });
    let description = Description::new(label("name", record.name)?, addresses, services)
        .map_err(|source| WireError::Description { source })?
        .in_zone(label("zone", record.zone)?);
    let issued_at = timestamp("time of issue", record.issued_at)?;
    let expires_at = timestamp("time of expiry", record.expires_at)?;
    let instance = Instance::from_bytes(fixed("instance", &record.instance)?);
    let precedence = Precedence::new(record.incarnation, record.revision);
    if record.protocol == 0 {
        return Err(WireError::Range { what: "protocol version", value: 0 });
    }
    let lease = expires_at.since(issued_at);
    let mut decoded = Record::new(owner, instance, precedence, description, issued_at, lease);
    // Not the same as `issued_at + lease` where a record expires before it was issued.
    decoded.expires_at = expires_at;
    decoded.state = match wire::State::try_from(record.state) {
        Ok(wire::State::Active) => NodeState::Active,
        Ok(wire::State::Draining) => NodeState::Draining,
        Ok(wire::State::Left) => NodeState::Left,
        Ok(wire::State::Unspecified) | Err(_) => {
            return Err(WireError::State { state: record.state });
        }
    };
    Ok(decoded)
}

fn service(service: wire::ServiceRecord) -> Result<ServiceEntry, WireError> {
    let info = ServiceInfo::new(service.name, service.version)
        .map_err(|source| WireError::Name { source })?;
    let entry = ServiceEntry::new(info)
        .served_by(service.grpc_services)
        .map_err(|source| WireError::Description { source })?;
    Ok(entry.with_weight(service.weight))
}

fn timestamp(what: &'static str, millis: i64) -> Result<Timestamp, WireError> {
    match u64::try_from(millis) {
        Ok(millis) => Ok(Timestamp::from_millis(millis)),
        Err(_) => Err(WireError::Range { what, value: millis }),
    }
}

fn to_wire(time: Timestamp) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
