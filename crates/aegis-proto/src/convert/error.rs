use aegis_core::InvalidName;
use aegis_topology::{InvalidDescription, InvalidLabel};
use tonic::Status;

/// A message that cannot mean anything to us. The peer's developer has to act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// An address is no `host:port`.
    #[error("an address in the message cannot be read")]
    Address {
        /// The broken rule.
        source: InvalidName,
    },
    /// A count is larger than allowed.
    #[error("the message holds {count} {what}, more than {limit}")]
    Count {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many are allowed.
        limit: usize,
    },
    /// The bytes are no message.
    #[error("the bytes are no {message}")]
    Decode {
        /// Which message they should be.
        message: &'static str,
        /// Where reading ended.
        source: prost::DecodeError,
    },
    /// A description breaks a rule.
    #[error("the description in the record cannot be used")]
    Description {
        /// The broken rule.
        source: InvalidDescription,
    },
    /// A text for people is too long or disturbs a terminal.
    #[error("the {field} in the record cannot be shown")]
    Label {
        /// Which text.
        field: &'static str,
        /// The broken rule.
        source: InvalidLabel,
    },
    /// Bytes of a fixed length have another.
    #[error("the {what} has {length} bytes, not {expected}")]
    Length {
        /// Which bytes.
        what: &'static str,
        /// How many there are.
        length: usize,
        /// How many there should be.
        expected: usize,
    },
    /// A name breaks its grammar.
    #[error("a name in the record is not valid")]
    Name {
        /// The broken rule.
        source: InvalidName,
    },
    /// A signed record brings no certificate chain, and none was agreed on before.
    #[error("a signed record comes without its certificate chain")]
    NoChain,
    /// A number is outside its range.
    #[error("the {what} {value} is out of range")]
    Range {
        /// Which number.
        what: &'static str,
        /// Its value.
        value: i64,
    },
    /// The record's state is none that we know.
    #[error("the record's state {state} is unknown")]
    State {
        /// The number that was sent.
        state: i32,
    },
}

/// Always `INVALID_ARGUMENT`.
impl From<WireError> for Status {
    fn from(error: WireError) -> Self {
        Self::invalid_argument(error.to_string())
    }
}
