use std::collections::BTreeSet;

use aegis_core::{NodeId, NodeType, ServiceName, SpiffeId};

/// Whom a certificate has to name.
///
/// ```
/// use aegis_tls::Subject;
///
/// let subject = Subject::new("morpheus-1".parse()?, "identity-server".parse()?);
/// // Only a development CA reads the services: it writes them into the certificate that it issues.
/// let subject = subject.services(["identity".parse()?]);
/// # drop(subject);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    node: Option<(NodeId, NodeType)>,
    services: BTreeSet<ServiceName>,
}

impl Subject {
    /// A node of this id and type; a certificate of anybody else is refused.
    pub fn new(id: NodeId, node_type: NodeType) -> Self {
        Self { node: Some((id, node_type)), services: BTreeSet::new() }
    }

    /// Whoever the certificate names: for processes that only call others.
    ///
    /// [`TlsOptions::cert_dir`](crate::TlsOptions::cert_dir) finds no file this way.
    pub fn any() -> Self {
        Self { node: None, services: BTreeSet::new() }
    }

    /// The services that a certificate of the development CA grants (`<service>.svc.<trust-domain>`; default: none). Each
    /// call adds some. A certificate of another CA is not searched for them.
    #[must_use]
    pub fn services(mut self, services: impl IntoIterator<Item = ServiceName>) -> Self {
        self.services.extend(services);
        self
    }

    pub(crate) fn node(&self) -> Option<&(NodeId, NodeType)> {
        self.node.as_ref()
    }

    #[cfg(feature = "dev-ca")]
    pub(crate) fn granted(&self) -> impl Iterator<Item = &ServiceName> {
        self.services.iter()
    }

    pub(crate) fn is_named_by(&self, id: &SpiffeId) -> bool {
        self.node.as_ref().is_none_or(|(node, kind)| node == id.node_id() && kind == id.node_type())
    }
}
