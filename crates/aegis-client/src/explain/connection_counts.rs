use std::fmt;

use aegis_transport::Link;

use super::display::Times;

/// What has happened so far on the connections to a candidate's node.
///
/// They are the node's and not the service's: all its services share them, as does what the mesh exchanges with it. The
/// counts begin when the node is first wanted, and anew when it is wanted again after nobody did and its last connection
/// was gone.
/// `Display` names what went wrong, and nothing if nothing did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionCounts {
    /// Dials that were begun, one for all addresses of the node.
    pub dials: u64,
    /// Dials that failed, at each address.
    pub dial_failures: u64,
    /// Connections that were established: the node has proved who it is and speaks HTTP/2.
    pub established: u64,
    /// Connections that the node ended with a GOAWAY, as one does that drains or bounds their age: running calls end on
    /// them, new ones go elsewhere. One that breaks after that does not count as lost.
    pub go_aways: u64,
    /// Connections open to new calls that broke, or were given up because PINGs were not answered: the calls on them ended.
    pub lost: u64,
    /// How often a PING was not answered in time, so that a connection counted as stalled; it may have recovered since.
    pub stalls: u64,
}

impl ConnectionCounts {
    pub(super) fn of(link: &Link) -> Self {
        let counters = link.counters();
        Self {
            dials: counters.dials,
            dial_failures: counters.dial_failures,
            established: counters.connected,
            go_aways: counters.go_aways,
            lost: counters.lost,
            stalls: counters.stalls,
        }
    }
}

impl fmt::Display for ConnectionCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let troubles = [
            ("dialled in vain", self.dial_failures),
            ("sent away", self.go_aways),
            ("lost", self.lost),
            ("stalled", self.stalls),
        ];
        let happened = troubles.into_iter().filter(|(_, count)| 0 < *count);
        for (index, (what, count)) in happened.enumerate() {
            write!(f, "{}{what} {}", if index == 0 { "" } else { ", " }, Times(count))?;
        }
        Ok(())
    }
}
