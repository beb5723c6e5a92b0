use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{check_label, check_name, name};
use crate::{InvalidName, NameKind};

name! {
    /// The name of a service: one DNS label, so that a certificate can grant it as `<service>.svc.<trust-domain>`.
    ///
    /// 1–63 bytes of `[a-z0-9]([a-z0-9-]*[a-z0-9])?`.
    ServiceName, ServiceName, check_label
}

name! {
    /// The version of a service, such as `v1`: opaque, compared for equality only.
    ///
    /// The grammar of a [`NodeType`](crate::NodeType).
    ServiceVersion, ServiceVersion, check_name
}

/// A service by name and version: what a node advertises and a client asks for.
///
/// `identity/v1` and `identity/v2` are two services.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
pub struct ServiceInfo {
    name: ServiceName,
    version: ServiceVersion,
}

impl ServiceInfo {
    /// Checks and copies a name and a version.
    ///
    /// # Errors
    /// [`InvalidName`] says which of the two is wrong, and why.
    pub fn new(name: impl AsRef<str>, version: impl AsRef<str>) -> Result<Self, InvalidName> {
        Ok(Self { name: ServiceName::new(name)?, version: ServiceVersion::new(version)? })
    }

    /// A service from literals; in a `const` a bad name does not compile, and the error names the broken rule.
    ///
    /// ```compile_fail
    /// const BAD: aegis_core::ServiceInfo = aegis_core::ServiceInfo::from_static("Identity", "v1");
    /// # let _ = BAD;
    /// ```
    ///
    /// # Panics
    /// On an invalid name or version.
    pub const fn from_static(name: &'static str, version: &'static str) -> Self {
        Self { name: ServiceName::from_static(name), version: ServiceVersion::from_static(version) }
    }

    /// The service's name.
    pub fn name(&self) -> &ServiceName {
        &self.name
    }

    /// The service's version.
    pub fn version(&self) -> &ServiceVersion {
        &self.version
    }
}

impl From<(ServiceName, ServiceVersion)> for ServiceInfo {
    fn from((name, version): (ServiceName, ServiceVersion)) -> Self {
        Self { name, version }
    }
}

impl fmt::Display for ServiceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.name, self.version)
    }
}

impl fmt::Debug for ServiceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ServiceInfo {
    type Err = InvalidName;

    /// Reads `name/version`.
    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let Some((name, version)) = value.split_once('/') else {
            return Err(InvalidName::new(
                NameKind::Service,
                value,
                "it is not written name/version",
            ));
        };
        Self::new(name, version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_reads_back_as_it_is_written() {
        let service = ServiceInfo::from_static("identity", "v1.2");
        assert_eq!(service.to_string().parse(), Ok(service));
    }

    #[test]
    fn a_service_name_is_one_dns_label() {
        for bad in ["a.b/v1", "a_b/v1", "a/", "/v1", "a", "a/b/c", "A/v1"] {
            assert!(bad.parse::<ServiceInfo>().is_err(), "{bad:?} was accepted");
        }
    }
}
