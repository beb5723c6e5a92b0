use crate::name::{check_name, name};

name! {
    /// The id of a node: unique in its mesh, equal to its certificate's identity.
    ///
    /// 1–63 bytes of `[a-z0-9]([a-z0-9._-]*[a-z0-9])?`, without `..`, not `ca` or `localhost`,
    /// and nothing that reads as an IP address.
    /// So it is safe as a file name, a log field and a path segment of a SPIFFE id.
    NodeId, NodeId, check_node_id
}

name! {
    /// What kind of node this is (`api-gateway`, `identity-server`): part of its certificate.
    ///
    /// The same grammar as [`NodeId`], without its reserved words.
    NodeType, NodeType, check_name
}

/// The server name of nodes whose id is no DNS name.
const FALLBACK_SERVER_NAME: &str = "node.aegis.invalid";

impl NodeId {
    /// What a client sends as SNI and `:authority`: the id where it is a DNS name, else `node.aegis.invalid`.
    ///
    /// Trust never rests on it; identities are compared in the handshake.
    pub fn server_name(&self) -> &str {
        if self.is_dns_name() { self.as_str() } else { FALLBACK_SERVER_NAME }
    }

    /// Whether the id is a DNS name (RFC 1123 labels, the last not numeric): `morpheus-1` is, `10`, `a_b` and `a.-b` are not.
    pub fn is_dns_name(&self) -> bool {
        let label = |label: &str| crate::name::check_label(label.as_bytes()).is_ok();
        let numeric = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
        self.as_str().split('.').all(label)
            && !self.as_str().rsplit('.').next().is_some_and(numeric)
    }
}

const fn check_node_id(bytes: &[u8]) -> Result<(), &'static str> {
    if let Err(reason) = check_name(bytes) {
        return Err(reason);
    }
    if matches!(bytes, b"ca" | b"localhost") {
        return Err("\"ca\" and \"localhost\" are reserved");
    }
    // Only IPv4 is spelled with the characters of this grammar: IPv6 needs a colon.
    if is_ipv4(bytes) {
        return Err("it reads as an IP address");
    }
    Ok(())
}

/// Four dot-separated decimal numbers up to 255; leading zeros count, since some parsers take them.
#[expect(
    clippy::indexing_slicing,
    reason = "the index is below the length; const fn has no iterators"
)]
const fn is_ipv4(bytes: &[u8]) -> bool {
    let (mut at, mut dots, mut digits, mut value) = (0, 0, 0, 0_u32);
    while at < bytes.len() {
        match bytes[at] {
            b'.' => {
                if digits == 0 {
                    return false;
                }
                dots += 1;
                digits = 0;
                value = 0;
            }
            digit @ b'0'..=b'9' => {
                digits += 1;
                value = value * 10 + (digit - b'0') as u32;
                if value > 255 || digits > 3 {
                    return false;
                }
            }
            _ => return false,
        }
        at += 1;
    }
    dots == 3 && digits > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(good: &[&str], bad: &[&str]) {
        for id in good {
            assert_eq!(NodeId::new(id).unwrap().as_str(), *id);
        }
        for id in bad {
            assert!(NodeId::new(id).is_err(), "{id:?} was accepted");
        }
    }

    #[test]
    fn ids_are_safe_file_names() {
        let long = "a".repeat(63);
        check(
            &["morpheus-1", "10", "node.1", "a.-b", "a", "1.2.3", "256.1.1.1", "a_b", &long],
            &[
                "",
                "-a",
                "a-",
                "a..b",
                "../x",
                "A",
                "a b",
                "a/b",
                "ca",
                "localhost",
                "1.2.3.4",
                "::1",
                "ä",
                "a\0",
                &"a".repeat(64),
            ],
        );
    }

    #[test]
    fn only_dns_names_are_sent_as_server_name() {
        for (id, name) in [
            ("morpheus-1", "morpheus-1"),
            ("a.b", "a.b"),
            ("10", FALLBACK_SERVER_NAME),
            ("node.1", FALLBACK_SERVER_NAME),
            ("a.-b", FALLBACK_SERVER_NAME),
            ("a_b", FALLBACK_SERVER_NAME),
        ] {
            assert_eq!(NodeId::new(id).unwrap().server_name(), name);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_accepted_id_is_one_plain_path_component(text in "\\PC{0,70}|[a-z0-9./_-]{0,70}") {
            if let Ok(id) = NodeId::new(&text) {
                let path = std::path::Path::new(id.as_str());
                let mut parts = path.components();
                assert!(matches!(parts.next(), Some(std::path::Component::Normal(_))));
                assert!(parts.next().is_none());
                assert!(id.as_str().parse::<std::net::IpAddr>().is_err());
            }
        }
    }
}
