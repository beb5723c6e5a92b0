//! The `grpc-timeout` header: a duration of at most 8 digits and a unit, as gRPC's `PROTOCOL-HTTP2.md` has it.
//!
//! ```
//! use std::time::Duration;
//!
//! use aegis_transport::timeout::{GRPC_TIMEOUT, encode, parse};
//! use http::HeaderMap;
//!
//! let mut headers = HeaderMap::new();
//! assert_eq!(parse(&headers)?, None);
//! headers.insert(GRPC_TIMEOUT, encode(Duration::from_millis(1_500)));
//! assert_eq!(headers[GRPC_TIMEOUT], "1500000u");
//! assert_eq!(parse(&headers)?, Some(Duration::from_millis(1_500)));
//! headers.insert(GRPC_TIMEOUT, "soon".parse()?);
//! assert!(parse(&headers).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Status;

/// The header's name.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The largest number that 8 digits hold.
const MAX: u128 = 99_999_999;

const LONGEST: HeaderValue = HeaderValue::from_static("99999999H");

/// The units from fine to coarse, with their nanoseconds.
const UNITS: [(char, u128); 6] = [
    ('n', 1),
    ('u', 1_000),
    ('m', 1_000_000),
    ('S', 1_000_000_000),
    ('M', 60_000_000_000),
    ('H', 3_600_000_000_000),
];

/// Writes a timeout in the finest unit whose number has at most 8 digits.
///
/// It is rounded up, so that the server never gives up before the client: longer than asked by less than one unit,
/// which is less than a ten-millionth of the timeout or, below 100 ms, nothing at all.
/// More than 99,999,999 hours are written as 99,999,999 hours.
pub fn encode(timeout: Duration) -> HeaderValue {
    let nanos = timeout.as_nanos();
    let text = UNITS
        .iter()
        .map(|(unit, size)| (unit, nanos.div_ceil(*size)))
        .find(|(_, count)| *count <= MAX)
        .map(|(unit, count)| format!("{count}{unit}"));
    text.and_then(|text| HeaderValue::try_from(text).ok()).unwrap_or(LONGEST)
}

/// Reads the timeout of a request; `None` where it has none.
///
/// Any number of 8 digits is taken, however large: [`Deadline::after`](crate::deadline::Deadline::after) clamps it.
///
/// # Errors
/// [`InvalidTimeout`] for anything else, and for a header that is there twice. The calling client has to be mended.
pub fn parse(headers: &HeaderMap) -> Result<Option<Duration>, InvalidTimeout> {
    let mut values = headers.get_all(GRPC_TIMEOUT).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(InvalidTimeout { value: None });
    }
    parse_value(value.as_bytes()).map(Some).ok_or_else(|| {
        // A peer chose these bytes: an error must not carry a kilobyte of them.
        let text = String::from_utf8_lossy(value.as_bytes());
        InvalidTimeout { value: Some(text.chars().take(20).collect()) }
    })
}

fn parse_value(value: &[u8]) -> Option<Duration> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = std::str::from_utf8(digits).ok()?.parse::<u64>().ok()?;
    match unit {
        b'n' => Some(Duration::from_nanos(count)),
        b'u' => Some(Duration::from_micros(count)),
        b'm' => Some(Duration::from_millis(count)),
        b'S' => Some(Duration::from_secs(count)),
        b'M' => Some(Duration::from_secs(count * 60)),
        b'H' => Some(Duration::from_secs(count * 3_600)),
        _ => None,
    }
}

/// A `grpc-timeout` that is no timeout; the calling client has to be mended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", match value {
    Some(value) => format!("the grpc-timeout {value:?} is not 1 to 8 digits and a unit (n, u, m, S, M, H)"),
    None => "the request has more than one grpc-timeout".to_owned(),
})]
pub struct InvalidTimeout {
    value: Option<String>,
}

impl From<InvalidTimeout> for Status {
    /// `INVALID_ARGUMENT`: the request is malformed, and would be again.
    fn from(error: InvalidTimeout) -> Self {
        Self::invalid_argument(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn read(values: &[&str]) -> Result<Option<Duration>, InvalidTimeout> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(GRPC_TIMEOUT, HeaderValue::from_str(value).unwrap());
        }
        parse(&headers)
    }

    #[test]
    fn the_finest_unit_that_fits_is_sent() {
        for (timeout, text) in [
            (Duration::ZERO, "0n"),
            (Duration::from_nanos(1), "1n"),
            (Duration::from_millis(99), "99000000n"),
            (Duration::from_millis(100), "100000u"),
            (Duration::from_nanos(100_000_001), "100001u"),
            (Duration::from_secs(30 * 86_400), "2592000S"),
            (Duration::from_secs(3 * 365 * 86_400), "94608000S"),
            (Duration::from_secs(4 * 365 * 86_400), "2102400M"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(encode(timeout), text, "{timeout:?}");
        }
    }

    #[test]
    fn what_is_no_timeout_is_refused() {
        for bad in ["", "5", "S", "-1S", "+1S", "1.5S", "100000000S", "1 S", "1s", "0x1S", "1SS"] {
            let error = read(&[bad]).expect_err(bad);
            assert_eq!(Status::from(error).code(), tonic::Code::InvalidArgument);
        }
        assert!(read(&["1S", "1S"]).is_err());
        assert_eq!(read(&[]), Ok(None));
    }

    #[test]
    fn any_eight_digits_are_taken() {
        assert_eq!(read(&["0m"]), Ok(Some(Duration::ZERO)));
        assert_eq!(read(&["99999999H"]), Ok(Some(Duration::from_secs(99_999_999 * 3_600))));
        assert_eq!(read(&["00000001u"]), Ok(Some(Duration::from_micros(1))));
    }

    proptest::proptest! {
        #[test]
        fn a_timeout_is_never_cut_and_grows_by_less_than_its_unit(
            seconds in 0_u64..300_000_000_000, nanos in 0_u32..1_000_000_000
        ) {
            let asked = Duration::new(seconds, nanos);
            let text = encode(asked);
            let sent = parse_value(text.as_bytes()).unwrap();
            let unit = parse_value(&[b'1', *text.as_bytes().last().unwrap()]).unwrap();
            assert!(sent >= asked && sent < asked + unit, "{asked:?} was sent as {text:?}");
        }

        #[test]
        fn no_header_makes_the_reader_panic(bytes in proptest::collection::vec(0x20_u8..=0xff, 0..12)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                drop(parse(&HeaderMap::from_iter([(GRPC_TIMEOUT, value)])));
            }
        }
    }
}
