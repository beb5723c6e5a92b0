//! Conversions between wire messages and the types of aegis-core and aegis-topology.
//!
//! From the wire they are total: whatever a peer sent is either a checked value or a [`WireError`].
//! Lengths and counts are compared with their bounds before anything is allocated for them.
//!
//! ```
//! use aegis_core::ServiceInfo;
//! use aegis_proto::convert::{WireError, decode_record, encode_record};
//! use aegis_topology::{Description, Instance, Label, Precedence, Record, ServiceEntry, Timestamp};
//! # use std::time::Duration;
//!
//! let services = [ServiceEntry::new(ServiceInfo::from_static("identity", "v1"))];
//! let description = Description::new(Label::new("Morpheus")?, ["10.0.0.1:8443".parse()?], services)?;
//! let record = Record::new(
//!     "spiffe://mesh.example/aegis/identity-server/morpheus-1".parse()?,
//!     Instance::from_bytes([7; 16]),
//!     Precedence::new(1, 1),
//!     description,
//!     Timestamp::from_millis(1_000),
//!     Duration::from_secs(3_600),
//! );
//! let body = encode_record(&record); // what its owner signs
//! assert_eq!(decode_record(&body)?, record);
//! assert!(matches!(decode_record(b"\x0a\xff"), Err(WireError::Decode { .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod directory;
mod error;
mod record;

pub use directory::{keys, records, root, signed_records};
pub use error::WireError;
pub use record::{decode_record, encode_record};
