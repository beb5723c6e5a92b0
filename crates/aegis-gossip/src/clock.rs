use std::time::SystemTime;

use aegis_topology::Timestamp;

/// The only place of this crate that reads the wall clock.
pub(crate) fn now() -> Timestamp {
    SystemTime::now().into()
}
