use std::fmt;
use std::sync::Arc;

use aegis_core::{Address, ServiceInfo};
use serde::Serialize;

use crate::limits::{ADDRESSES, GRPC_NAME, GRPC_SERVICES, LABEL, SERVICES};

/// What a node says about itself: how people call it, where it listens, what it serves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    name: Label,
    zone: Label,
    addresses: Vec<Address>,
    services: Vec<ServiceEntry>,
}

impl Description {
    /// A node's description; the order of addresses is the order in which they are dialled.
    ///
    /// Addresses that nobody can dial (`0.0.0.0`, port 0) are left out, and of several entries for one
    /// service the first stays.
    ///
    /// # Errors
    /// [`InvalidDescription`] if there are more than 16 addresses or 256 services.
    pub fn new(
        name: Label,
        addresses: impl IntoIterator<Item = Address>,
        services: impl IntoIterator<Item = ServiceEntry>,
    ) -> Result<Self, InvalidDescription> {
        let mut description = Self { name, ..Self::default() };
        for address in addresses.into_iter().filter(Address::is_reachable) {
            if description.addresses.len() == ADDRESSES {
                return Err(InvalidDescription::TooManyAddresses { limit: ADDRESSES });
            }
            if !description.addresses.contains(&address) {
                description.addresses.push(address);
            }
        }
        for service in services {
            if description.services.len() == SERVICES {
                return Err(InvalidDescription::TooManyServices { limit: SERVICES });
            }
            if !description.services.iter().any(|it| it.info == service.info) {
                description.services.push(service);
            }
        }
        Ok(description)
    }

    /// The same node in a zone.
    #[must_use]
    pub fn in_zone(mut self, zone: Label) -> Self {
        self.zone = zone;
        self
    }

    /// The same node without services: what a node that left says.
    #[must_use]
    pub fn without_services(&self) -> Self {
        Self { services: Vec::new(), ..self.clone() }
    }

    /// The node's name for people.
    pub fn name(&self) -> &Label {
        &self.name
    }

    /// The node's zone; empty if it has none.
    pub fn zone(&self) -> &Label {
        &self.zone
    }

    /// Where the node listens, in the order to dial; empty if it does not listen.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// What the node serves.
    pub fn services(&self) -> &[ServiceEntry] {
        &self.services
    }
}

/// A service that a node advertises.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServiceEntry {
    #[serde(flatten)]
    info: ServiceInfo,
    grpc_services: Vec<Arc<str>>,
    weight: u32,
}

impl ServiceEntry {
    /// The weight of a provider that names none.
    pub const DEFAULT_WEIGHT: u32 = 100;
    /// The largest weight; larger ones are taken as this.
    pub const MAX_WEIGHT: u32 = 10_000;

    /// A service with the default weight, behind no gRPC service yet.
    pub fn new(info: ServiceInfo) -> Self {
        Self { info, grpc_services: Vec::new(), weight: Self::DEFAULT_WEIGHT }
    }

    /// The same service, served by these gRPC services (`aegis.identity.v1.IdentityService`).
    ///
    /// # Errors
    /// [`InvalidDescription`] if there are more than 64 or one is no gRPC service's name.
    pub fn served_by<N: AsRef<str>>(
        mut self,
        grpc_services: impl IntoIterator<Item = N>,
    ) -> Result<Self, InvalidDescription> {
        for name in grpc_services {
            let name = name.as_ref();
            if self.grpc_services.len() == GRPC_SERVICES {
                return Err(InvalidDescription::TooManyGrpcServices { limit: GRPC_SERVICES });
            }
            if !is_grpc_name(name) {
                return Err(InvalidDescription::GrpcName { service: self.info });
            }
            self.grpc_services.push(name.into());
        }
        Ok(self)
    }

    /// The same service with another [weight](Self::weight); 0 means the default.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = match weight {
            0 => Self::DEFAULT_WEIGHT,
            weight => weight.min(Self::MAX_WEIGHT),
        };
        self
    }

    /// The service.
    pub fn info(&self) -> &ServiceInfo {
        &self.info
    }

    /// The full names of the gRPC services that serve it.
    pub fn grpc_services(&self) -> &[Arc<str>] {
        &self.grpc_services
    }

    /// Its share of the calls, in relation to other providers: 1 to 10,000.
    ///
    /// It is advertised for callers that balance by weight; others do not heed it.
    pub fn weight(&self) -> u32 {
        self.weight
    }
}

/// `package.Service`, as a path segment of a gRPC call has it.
fn is_grpc_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= GRPC_NAME
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.')
}

/// Text for people: at most 64 characters, none of them a control character. May be empty.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Label(Option<Arc<str>>);

impl Label {
    /// Checks and copies a text.
    ///
    /// # Errors
    /// [`InvalidLabel`] if it is longer than 64 characters or would disturb a terminal.
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidLabel> {
        let text = text.as_ref();
        if text.is_empty() {
            return Ok(Self(None));
        }
        // A byte count first, so that a long text costs nothing.
        if 4 * LABEL < text.len() || LABEL < text.chars().count() {
            return Err(InvalidLabel { reason: "it is longer than 64 characters" });
        }
        if text.chars().any(|char| char.is_control() || is_invisible(char)) {
            return Err(InvalidLabel { reason: "it holds control or direction characters" });
        }
        Ok(Self(Some(text.into())))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

/// Line separators, and the direction marks by which a log line can be made to read backwards.
fn is_invisible(char: char) -> bool {
    matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A text that cannot be a node's name or zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the text cannot be used: {reason}")]
pub struct InvalidLabel {
    reason: &'static str,
}

/// A description that no record can hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDescription {
    /// A gRPC service's name holds other characters than letters, digits, `_` and `.`.
    #[error("{service} names a gRPC service that cannot exist")]
    GrpcName {
        /// The service that names it.
        service: ServiceInfo,
    },
    /// More addresses than a node may have.
    #[error("a node may have at most {limit} addresses")]
    TooManyAddresses {
        /// How many it may have.
        limit: usize,
    },
    /// More gRPC services than one service may have.
    #[error("a service may be served by at most {limit} gRPC services")]
    TooManyGrpcServices {
        /// How many it may have.
        limit: usize,
    },
    /// More services than a node may have.
    #[error("a node may have at most {limit} services")]
    TooManyServices {
        /// How many it may have.
        limit: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_that_nobody_can_dial_are_left_out() {
        let addresses = ["0.0.0.0:80", "[::]:80", "10.0.0.1:0", "10.0.0.1:80", "10.0.0.1:80"];
        let description = Description::new(Label::default(), addresses.map(address), []).unwrap();
        assert_eq!(description.addresses(), [address("10.0.0.1:80")]);
    }

    #[test]
    fn a_service_is_listed_once() {
        let info = ServiceInfo::from_static("identity", "v1");
        let entries = [7, 9].map(|weight| ServiceEntry::new(info.clone()).with_weight(weight));
        let description = Description::new(Label::default(), [], entries).unwrap();
        assert_eq!(
            description.services().iter().map(ServiceEntry::weight).collect::<Vec<_>>(),
            [7]
        );
    }

    #[test]
    fn labels_are_short_and_printable() {
        let long = "ä".repeat(64);
        for good in ["", "Morpheus", "ネオ", &long] {
            assert_eq!(Label::new(good).unwrap().as_str(), good);
        }
        let long = [65, 10_000].map(|length| "a".repeat(length));
        for bad in ["a\nb", "a\u{1b}[31m", "a\u{202e}b", &long[0], &long[1]] {
            assert!(Label::new(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_description_is_bounded() {
        let service =
            |n: usize| ServiceEntry::new(ServiceInfo::new(format!("s{n}"), "v1").unwrap());
        assert!(Description::new(Label::default(), [], (0..256).map(service)).is_ok());
        assert!(Description::new(Label::default(), [], (0..257).map(service)).is_err());
        assert!(service(0).served_by(["a.B"; 65]).is_err());
        assert!(service(0).served_by(["a/B"]).is_err());
    }
}
