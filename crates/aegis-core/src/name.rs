use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The text of a checked name: static, or shared so that a clone is a reference count.
#[derive(Clone)]
pub(crate) enum Text {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Text {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Static(text) => text,
            Self::Shared(text) => text,
        }
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Borrow<str> for Text {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

/// The longest name: a DNS label, and short enough for an X.509 common name (64).
const MAX: usize = 63;

const fn is_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// `[a-z0-9]([a-z0-9._-]*[a-z0-9])?`, at most 63 bytes, no `..`.
// Indexing and loops instead of iterators: this runs in const context too.
#[expect(
    clippy::indexing_slicing,
    reason = "the index is below the length; const fn has no iterators"
)]
pub(crate) const fn check_name(bytes: &[u8]) -> Result<(), &'static str> {
    if bytes.is_empty() {
        return Err("it is empty");
    }
    if bytes.len() > MAX {
        return Err("it is longer than 63 bytes");
    }
    if !is_alphanumeric(bytes[0]) || !is_alphanumeric(bytes[bytes.len() - 1]) {
        return Err("it must begin and end with a-z or 0-9");
    }
    let mut at = 1;
    while at < bytes.len() {
        let byte = bytes[at];
        if !is_alphanumeric(byte) && byte != b'.' && byte != b'_' && byte != b'-' {
            return Err("only a-z, 0-9, '.', '_' and '-' are allowed");
        }
        if byte == b'.' && bytes[at - 1] == b'.' {
            return Err("it contains \"..\"");
        }
        at += 1;
    }
    Ok(())
}

/// One DNS label: `[a-z0-9]([a-z0-9-]*[a-z0-9])?`, at most 63 bytes.
#[expect(
    clippy::indexing_slicing,
    reason = "the index is below the length; const fn has no iterators"
)]
pub(crate) const fn check_label(bytes: &[u8]) -> Result<(), &'static str> {
    if let Err(reason) = check_name(bytes) {
        return Err(reason);
    }
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == b'.' || bytes[at] == b'_' {
            return Err("only a-z, 0-9 and '-' are allowed");
        }
        at += 1;
    }
    Ok(())
}

/// The text of a panic in const context, where nothing can be formatted.
pub(crate) struct ConstText {
    bytes: [u8; Self::MAX],
    length: usize,
}

impl ConstText {
    const MAX: usize = 512;
    /// The most of one part: four of them fit.
    const MAX_PART: usize = Self::MAX / 4;

    pub(crate) const fn new() -> Self {
        Self { bytes: [0; Self::MAX], length: 0 }
    }

    /// Adds a text, cut to 128 bytes.
    #[expect(
        clippy::indexing_slicing,
        reason = "the index is below the length; const fn has no iterators"
    )]
    pub(crate) const fn push(mut self, text: &str) -> Self {
        let mut length = if text.len() < Self::MAX_PART { text.len() } else { Self::MAX_PART };
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        let mut at = 0;
        while at < length && self.length < Self::MAX {
            self.bytes[self.length] = text.as_bytes()[at];
            self.length += 1;
            at += 1;
        }
        self
    }

    pub(crate) const fn as_str(&self) -> &str {
        match std::str::from_utf8(self.bytes.split_at(self.length).0) {
            Ok(text) => text,
            Err(_) => "not a valid name",
        }
    }
}

/// A newtype over [`Text`] with its constructors, conversions and serde, for one check.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $kind:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Deserialize, serde::Serialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name($crate::name::Text);

        impl $name {
            /// Checks and copies a name.
            ///
            /// # Errors
            /// [`InvalidName`](crate::InvalidName) names the broken rule.
            pub fn new(value: impl AsRef<str>) -> Result<Self, $crate::InvalidName> {
                let value = value.as_ref();
                match $check(value.as_bytes()) {
                    Ok(()) => Ok(Self($crate::name::Text::Shared(value.into()))),
                    Err(reason) => Err($crate::InvalidName::new($crate::NameKind::$kind, value, reason)),
                }
            }

            /// A name from a literal; in a `const` a bad one does not compile.
            ///
            /// # Panics
            /// On an invalid name; the text names it and the broken rule.
            pub const fn from_static(value: &'static str) -> Self {
                match $check(value.as_bytes()) {
                    Ok(()) => Self($crate::name::Text::Static(value)),
                    Err(reason) => {
                        let text = $crate::name::ConstText::new()
                            .push("\"")
                            .push(value)
                            .push(concat!("\" is not a valid ", stringify!($name), ": "))
                            .push(reason);
                        panic!("{}", text.as_str())
                    }
                }
            }

            /// The name as it was given.
            pub fn as_str(&self) -> &str {
                self.0.as_str()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::InvalidName;

            fn from_str(value: &str) -> Result<Self, Self::Err> {
                Self::new(value)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = $crate::InvalidName;

            fn try_from(value: &str) -> Result<Self, Self::Error> {
                Self::new(value)
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::InvalidName;

            fn try_from(value: String) -> Result<Self, Self::Error> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }
    };
}
pub(crate) use name;

#[cfg(test)]
mod tests {
    use crate::{NodeId, NodeType, ServiceInfo, TrustDomain};

    #[track_caller]
    fn check(make: impl FnOnce() + std::panic::UnwindSafe, expected: &str) {
        let panic = std::panic::catch_unwind(make).unwrap_err();
        assert_eq!(panic.downcast_ref::<String>().unwrap(), expected);
    }

    #[test]
    fn a_bad_literal_is_named_with_the_rule_that_it_breaks() {
        check(
            || drop(ServiceInfo::from_static("Identity", "v1")),
            "\"Identity\" is not a valid ServiceName: it must begin and end with a-z or 0-9",
        );
        check(
            || drop(ServiceInfo::from_static("a_b", "v1")),
            "\"a_b\" is not a valid ServiceName: only a-z, 0-9 and '-' are allowed",
        );
        check(
            || drop(ServiceInfo::from_static("a", "")),
            "\"\" is not a valid ServiceVersion: it is empty",
        );
        check(
            || drop(NodeId::from_static("localhost")),
            "\"localhost\" is not a valid NodeId: \"ca\" and \"localhost\" are reserved",
        );
        check(
            || drop(TrustDomain::from_static("a..b")),
            "\"a..b\" is not a valid TrustDomain: it contains \"..\"",
        );
        // Cut between two characters.
        let long = "ä".repeat(200);
        let cut = "ä".repeat(64);
        check(
            move || drop(NodeType::from_static(long.leak())),
            &format!("\"{cut}\" is not a valid NodeType: it is longer than 63 bytes"),
        );
    }
}
