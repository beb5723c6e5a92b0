use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{InvalidName, NameKind};

/// Where a node listens, `host:port`: a host name, an IPv4 address or a bracketed IPv6 address.
///
/// To bind, port 0 and the unspecified addresses are fine; a record of the directory holds neither
/// ([`is_reachable`](Self::is_reachable)). A host name is resolved each time it is dialled, never here.
///
/// ```
/// use aegis_core::Address;
///
/// let address: Address = "[2001:db8::7]:8443".parse()?;
/// assert_eq!((address.host(), address.port()), ("2001:db8::7", 8443));
/// assert!("2001:db8::7:8443".parse::<Address>().is_err()); // brackets are missing
/// assert!(!"0.0.0.0:8443".parse::<Address>()?.is_reachable());
/// # Ok::<(), aegis_core::InvalidName>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    host: Arc<str>,
    port: u16,
}

impl Address {
    /// The host: a name or an IP address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 lets the system choose one at bind.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same host with another port.
    #[must_use]
    pub fn with_port(&self, port: u16) -> Self {
        Self { host: Arc::clone(&self.host), port }
    }

    /// The host as an IP address, if it is one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether others can dial it: port 0, `0.0.0.0` and `[::]` they cannot.
    pub fn is_reachable(&self) -> bool {
        // An IPv4-mapped unspecified address ends at the dialler's own host too.
        self.port != 0 && !self.ip().is_some_and(|ip| ip.to_canonical().is_unspecified())
    }

    /// Whether it leads every host to itself: `127.0.0.1` and its like, `[::1]` and `localhost`.
    pub fn is_loopback(&self) -> bool {
        self.ip().map_or_else(
            || {
                let name = self.host.strip_suffix('.').unwrap_or(&self.host);
                name.eq_ignore_ascii_case("localhost")
            },
            |ip| ip.to_canonical().is_loopback(),
        )
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string().into(), port: address.port() }
    }
}

impl FromStr for Address {
    type Err = InvalidName;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let error = |reason| InvalidName::new(NameKind::Address, value, reason);
        // What tonic's `Channel` is given.
        if value.contains("://") {
            return Err(error("it is a URL, but has to be host:port alone"));
        }
        let Some((host, port)) = value.rsplit_once(':') else {
            return Err(error("it is not written host:port"));
        };
        // `parse` alone would take "+80".
        if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(error("the port is not a number"));
        }
        let port = port.parse().map_err(|_| error("the port is larger than 65535"))?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(ip) => {
                let IpAddr::V6(ip) =
                    ip.parse().map_err(|_| error("the brackets hold no IPv6 address"))?
                else {
                    return Err(error("the brackets hold no IPv6 address"));
                };
                ip.to_string()
            }
            None => check_host(host).map_err(error)?.to_owned(),
        };
        Ok(Self { host: host.into(), port })
    }
}

/// A host name by RFC 1123 (underscores tolerated, as resolvers do), or an IPv4 address.
///
/// A name whose last label is a number is none: no top-level domain is numeric (RFC 1123 §2.1), and resolvers take `0`,
/// `0x0` or `127.1` for addresses, unspecified ones among them.
fn check_host(host: &str) -> Result<&str, &'static str> {
    if host.contains(':') {
        return Err("an IPv6 address needs brackets");
    }
    if host.is_empty() || host.len() > 253 {
        return Err("the host must have 1 to 253 bytes");
    }
    let label = |label: &str| {
        !label.is_empty()
            && label.len() < 64
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !host.split('.').all(label) {
        return Err("the host is neither a host name nor an IP address");
    }
    if host.rsplit('.').next().is_some_and(is_number) && host.parse::<Ipv4Addr>().is_err() {
        return Err("a host that ends in a number must be an IPv4 address of four decimal numbers");
    }
    Ok(host)
}

/// Whether resolvers read a label as a number: decimal, octal or hexadecimal.
fn is_number(label: &str) -> bool {
    let hexadecimal = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    hexadecimal.is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        || label.bytes().all(|byte| byte.is_ascii_digit())
}

impl TryFrom<String> for Address {
    type Error = InvalidName;

    fn try_from(value: String) -> Result<Self, Self::Error> {
        value.parse()
    }
}

impl TryFrom<&str> for Address {
    type Error = InvalidName;

    fn try_from(value: &str) -> Result<Self, Self::Error> {
        value.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_they_are_written() {
        for text in [
            "127.0.0.1:8443",
            "[::1]:80",
            "db.example:65535",
            "a_b:1",
            "0.0.0.0:0",
            "7.db:1",
            "0x7.db:1",
            "1a:1",
            "0xg:1",
            "x0:1",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn text_that_is_no_address_is_refused() {
        for bad in [
            "",
            "host",
            "host:",
            ":80",
            "host:+80",
            "host:65536",
            "host:-1",
            "::1:80",
            "[1.2.3.4]:80",
            "[::1",
            "a b:1",
            "a..b:1",
            "-a:1",
            "a\n:1",
            "http://a:1",
            // Other spellings of addresses, some of them of 0.0.0.0, to the C library that resolves names.
            "0:1",
            "00:1",
            "0x0:1",
            "0X7f000001:1",
            "0x:1",
            "2130706433:1",
            "127.1:1",
            "0.0:1",
            "00.0.0.0:1",
            "0.0.0.0x0:1",
            "0177.0.0.1:1",
            "1.2.3.4.5:1",
            "256.0.0.1:1",
            "db.7:1",
            "db.0x7:1",
        ] {
            assert!(bad.parse::<Address>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_url_is_told_what_to_leave_out() {
        for url in [
            "http://127.0.0.1:8443",
            "https://db.example:1",
            "http://db.example",
            "https://[::1]:80/",
        ] {
            let error = url.parse::<Address>().unwrap_err().to_string();
            assert!(error.ends_with("it is a URL, but has to be host:port alone"), "{error}");
        }
    }

    #[test]
    fn nobody_can_dial_an_unspecified_address_or_port_zero() {
        for (text, reachable) in [
            ("127.0.0.1:1", true),
            ("a:1", true),
            ("a:0", false),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("[::ffff:0.0.0.0]:1", false),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().is_reachable(), reachable, "{text}");
        }
    }

    #[test]
    fn an_address_of_the_own_host_is_known_as_such() {
        for (text, loopback) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("localhost:1", true),
            ("10.0.0.1:1", false),
            ("[fe80::1]:1", false),
            ("localhost.example:1", false),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().is_loopback(), loopback, "{text}");
        }
    }
}
