use std::fmt;

/// The error of every constructor in this crate: a string that is not a name of the wanted kind.
///
/// Whoever supplied the string has to change it.
///
/// `Debug` prints the text too, as a `main` that returns the error shows it.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} is not a valid {kind}: {reason}")]
pub struct InvalidName {
    kind: NameKind,
    value: String,
    reason: &'static str,
}

impl fmt::Debug for InvalidName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl InvalidName {
    pub(crate) fn new(kind: NameKind, value: &str, reason: &'static str) -> Self {
        // Peers supply these strings: an error must not carry a megabyte of them.
        let value = value.chars().take(80).collect();
        Self { kind, value, reason }
    }

    /// The kind of name that was wanted.
    pub fn kind(&self) -> NameKind {
        self.kind
    }

    /// The rejected string, cut to its first 80 characters.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The rule that was broken.
    pub fn reason(&self) -> &'static str {
        self.reason
    }
}

/// The kinds of names that this crate parses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum NameKind {
    /// An [`Address`](crate::Address).
    Address,
    /// A [`NodeId`](crate::NodeId).
    NodeId,
    /// A [`NodeType`](crate::NodeType).
    NodeType,
    /// A [`ServiceInfo`](crate::ServiceInfo), written `name/version`.
    Service,
    /// A [`ServiceName`](crate::ServiceName).
    ServiceName,
    /// A [`ServiceVersion`](crate::ServiceVersion).
    ServiceVersion,
    /// A [`SpiffeId`](crate::SpiffeId).
    SpiffeId,
    /// A [`TrustDomain`](crate::TrustDomain).
    TrustDomain,
}

impl fmt::Display for NameKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Address => "address",
            Self::NodeId => "node id",
            Self::NodeType => "node type",
            Self::Service => "service",
            Self::ServiceName => "service name",
            Self::ServiceVersion => "service version",
            Self::SpiffeId => "SPIFFE id",
            Self::TrustDomain => "trust domain",
        })
    }
}
