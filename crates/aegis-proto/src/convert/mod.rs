//! Conversions between wire messages and the types of aegis-core and aegis-topology.
//!
//! From the wire they are total: whatever a peer sent is either a checked value or a [`WireError`].
//! Lengths and counts are compared with their bounds before anything is allocated for them.

mod directory;
mod error;
mod record;

pub use directory::{keys, records, root, signed_records};
pub use error::WireError;
pub use record::{decode_record, encode_record};
