use std::time::Duration;

/// Bounds on what peers can make us hold or do; each is checked before anything is allocated for it. Each field names its
/// default.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Nodes in the directory; when it is full, new ones are refused and known ones keep changing. 16,384.
    pub nodes: usize,
    /// Bytes of a record's body. 4 KiB.
    pub body: usize,
    /// Bytes of a certificate chain. 8 KiB.
    pub chain: usize,
    /// Certificates of a chain. 4.
    pub certificates: usize,
    /// Bytes of records in one page of a sync. 1 MiB.
    pub page: usize,
    /// Stamps or keys in one message. 16,384, as many as there can be nodes.
    pub stamps: usize,
    /// How long a record may be valid. 12 h.
    pub lease: Duration,
    /// How far ahead of ours a record's clock may be. 5 min.
    pub skew: Duration,
    /// How far ahead of our clock an incarnation may be. 24 h.
    pub incarnation_lead: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            nodes: 16_384,
            body: 4 << 10,
            chain: 8 << 10,
            certificates: 4,
            page: 1 << 20,
            stamps: 16_384,
            lease: Duration::from_secs(12 * 3_600),
            skew: Duration::from_secs(5 * 60),
            incarnation_lead: Duration::from_secs(24 * 3_600),
        }
    }
}

/// Addresses in a description.
pub(crate) const ADDRESSES: usize = 16;
/// Services in a description.
pub(crate) const SERVICES: usize = 256;
/// gRPC services behind one service.
pub(crate) const GRPC_SERVICES: usize = 64;
/// Bytes of a gRPC service's name.
pub(crate) const GRPC_NAME: usize = 255;
/// Characters of a label.
pub(crate) const LABEL: usize = 64;
