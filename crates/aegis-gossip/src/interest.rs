use std::collections::HashSet;

use aegis_core::{ServiceInfo, ServiceName};
use aegis_topology::Verified;
use tonic::Status;

/// Services that a request may name.
const SERVICES: usize = 256;

/// The services that a caller wants to hear of: all versions of some, single ones of others.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    names: HashSet<ServiceName>,
    versions: HashSet<ServiceInfo>,
}

impl Interest {
    /// Reads what a request names: `name` or `name/version`.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for anything else, and for more than 256: a stream keeps what it is asked for.
    pub(crate) fn parse(services: &[String]) -> Result<Self, Status> {
        if SERVICES < services.len() {
            return Err(Status::invalid_argument(format!(
                "a request may name {SERVICES} services, not {}",
                services.len()
            )));
        }
        let mut interest = Self::default();
        for service in services {
            let known = if service.contains('/') {
                service.parse().map(|version| interest.versions.insert(version))
            } else {
                service.parse().map(|name| interest.names.insert(name))
            };
            if known.is_err() {
                return Err(Status::invalid_argument(
                    "a service is named `name` or `name/version`, in small letters, digits and hyphens",
                ));
            }
        }
        Ok(interest)
    }

    /// Whether no service is named, which means all.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty() && self.versions.is_empty()
    }

    /// Whether a node provides one of the services.
    pub(crate) fn covers(&self, record: &Verified) -> bool {
        record.record().description.services().iter().any(|service| {
            let info = service.info();
            self.names.contains(info.name()) || self.versions.contains(info)
        })
    }
}
