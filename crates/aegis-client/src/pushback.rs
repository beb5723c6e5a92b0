use std::time::Duration;

use tonic::Status;
use tonic_types::StatusExt as _;

/// gRFC A6: how many milliseconds to wait before the call is sent again; negative or no number, it is not.
const HEADER: &str = "grpc-retry-pushback-ms";
/// Who asks for more says in effect not to come back.
const LONGEST: Duration = Duration::from_secs(300);

/// What a provider that failed a call says about sending it again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushback {
    After(Duration),
    Never,
}

impl Pushback {
    /// What a status says: in gRPC's header or, where that is absent, as `google.rpc.RetryInfo` among its details.
    pub(crate) fn of(status: &Status) -> Option<Self> {
        if let Some(value) = status.metadata().get(HEADER) {
            let millis = value.to_str().ok().and_then(|it| it.parse().ok());
            return Some(millis.map_or(Self::Never, |it| Self::after(Duration::from_millis(it))));
        }
        if status.details().is_empty() {
            return None;
        }
        Some(Self::after(status.get_details_retry_info()?.retry_delay?))
    }

    fn after(delay: Duration) -> Self {
        if delay <= LONGEST { Self::After(delay) } else { Self::Never }
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic::metadata::MetadataMap;
    use tonic_types::ErrorDetails;

    use super::*;

    fn header(value: &str) -> Option<Pushback> {
        let mut status = Status::unavailable("");
        status.metadata_mut().insert(HEADER, value.parse().unwrap());
        Pushback::of(&status)
    }

    #[test]
    fn a_header_says_how_long_to_wait_or_not_to_come_back() {
        for (value, pushback) in [
            ("0", Pushback::After(Duration::ZERO)),
            ("250", Pushback::After(Duration::from_millis(250))),
            ("300000", Pushback::After(LONGEST)),
            ("300001", Pushback::Never),
            ("18446744073709551616", Pushback::Never),
            ("-1", Pushback::Never),
            ("-0", Pushback::Never),
            ("1.5", Pushback::Never),
            ("soon", Pushback::Never),
            ("", Pushback::Never),
        ] {
            assert_eq!(header(value), Some(pushback), "{value:?}");
        }
        assert_eq!(Pushback::of(&Status::unavailable("")), None);
    }

    #[test]
    fn retry_info_says_it_among_the_details() {
        let status = |details, metadata| {
            Status::with_details_and_metadata(Code::Unavailable, "", details, metadata)
        };
        let told = |details: ErrorDetails, metadata| {
            use tonic_types::StatusExt as _;
            Status::with_error_details_and_metadata(Code::Unavailable, "", details, metadata)
        };
        let second = Duration::from_secs(1);
        let info = || ErrorDetails::with_retry_info(Some(second));
        let found = Pushback::of(&told(info(), MetadataMap::new()));
        assert_eq!(found, Some(Pushback::After(second)));
        // gRPC's own word counts first.
        let mut metadata = MetadataMap::new();
        metadata.insert(HEADER, "-1".parse().unwrap());
        assert_eq!(Pushback::of(&told(info(), metadata)), Some(Pushback::Never));
        for other in
            [ErrorDetails::with_retry_info(None), ErrorDetails::with_debug_info(Vec::new(), "b")]
        {
            assert_eq!(Pushback::of(&told(other, MetadataMap::new())), None);
        }
        for broken in [&b"\xff\xff"[..], b"\x1a\x7f", b"\0"] {
            assert_eq!(Pushback::of(&status(broken.into(), MetadataMap::new())), None);
        }
    }
}
