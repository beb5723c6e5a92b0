use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::name;
use crate::{InvalidName, NameKind, NodeId, NodeType};

name! {
    /// The trust domain of a mesh: whose CA vouches for its nodes.
    ///
    /// The grammar of the SPIFFE id specification (section 2.1): 1–255 bytes of `[a-z0-9._-]`;
    /// further, as host names have it, no empty label.
    TrustDomain, TrustDomain, check_domain
}

/// The identity that a node's certificate carries: `spiffe://<trust-domain>/aegis/<node-type>/<node-id>`.
///
/// A SPIFFE id by its specification, with a path of our own.
///
/// ```
/// use aegis_core::SpiffeId;
///
/// let id: SpiffeId = "spiffe://mesh.example/aegis/identity-server/morpheus-1".parse()?;
/// assert_eq!(id.node_id(), "morpheus-1");
/// // A workload's, which all its replicas share, names no node.
/// assert!("spiffe://mesh.example/ns/prod/sa/identity".parse::<SpiffeId>().is_err());
/// # Ok::<(), aegis_core::InvalidName>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    node_type: NodeType,
    node_id: NodeId,
}

impl SpiffeId {
    /// The identity of a node.
    pub fn new(trust_domain: TrustDomain, node_type: NodeType, node_id: NodeId) -> Self {
        Self { trust_domain, node_type, node_id }
    }

    /// Whose CA vouches for the node.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// What kind of node it is.
    pub fn node_type(&self) -> &NodeType {
        &self.node_type
    }

    /// Which node it is.
    pub fn node_id(&self) -> &NodeId {
        &self.node_id
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/aegis/{}/{}", self.trust_domain, self.node_type, self.node_id)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidName;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let error = |reason| InvalidName::new(NameKind::SpiffeId, value, reason);
        let Some(rest) = value.strip_prefix("spiffe://") else {
            return Err(error("it does not begin with spiffe://"));
        };
        let mut parts = rest.split('/');
        let (Some(domain), Some("aegis"), Some(node_type), Some(node_id), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(error("its path is not /aegis/<node-type>/<node-id>"));
        };
        Ok(Self {
            trust_domain: domain.parse()?,
            node_type: node_type.parse()?,
            node_id: node_id.parse()?,
        })
    }
}

impl TryFrom<String> for SpiffeId {
    type Error = InvalidName;

    fn try_from(value: String) -> Result<Self, Self::Error> {
        value.parse()
    }
}

impl From<SpiffeId> for String {
    fn from(id: SpiffeId) -> Self {
        id.to_string()
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "the index is below the length; const fn has no iterators"
)]
const fn check_domain(bytes: &[u8]) -> Result<(), &'static str> {
    if bytes.is_empty() || bytes.len() > 255 {
        return Err("it must have 1 to 255 bytes");
    }
    if bytes[0] == b'.' || bytes[bytes.len() - 1] == b'.' {
        return Err("it begins or ends with a dot");
    }
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        if !byte.is_ascii_lowercase()
            && !byte.is_ascii_digit()
            && byte != b'.'
            && byte != b'_'
            && byte != b'-'
        {
            return Err("only a-z, 0-9, '.', '_' and '-' are allowed");
        }
        if byte == b'.' && bytes[at - 1] == b'.' {
            return Err("it contains \"..\"");
        }
        at += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_as_it_is_written() {
        let text = "spiffe://prod.example/aegis/api-gateway/node.1";
        let id: SpiffeId = text.parse().unwrap();
        assert_eq!(
            (id.trust_domain().as_str(), id.node_type().as_str(), id.node_id().as_str()),
            ("prod.example", "api-gateway", "node.1")
        );
        assert_eq!(id.to_string(), text);
    }

    #[test]
    fn other_spiffe_ids_are_no_node_identities() {
        for bad in [
            "https://d/aegis/t/n",
            "spiffe://d/aegis/t",
            "spiffe://d/aegis/t/n/x",
            "spiffe://d/other/t/n",
            "spiffe://d/aegis//n",
            "spiffe://d/aegis/t/n/",
            "spiffe://D/aegis/t/n",
            "spiffe://u@d/aegis/t/n",
            "spiffe://d:1/aegis/t/n",
            "spiffe://d/aegis/t/n?q",
            "spiffe://d/aegis/t/%6e",
            "spiffe:///aegis/t/n",
            "SPIFFE://d/aegis/t/n",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad:?} was accepted");
        }
    }
}
