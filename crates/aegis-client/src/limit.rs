use std::time::Duration;

/// How long a call without a deadline may wait for its response headers.
const DEFAULT: Duration = Duration::from_secs(10);

/// The local limit of calls that have no deadline: from the call to the response headers, restarted by each
/// piece of the request that is taken to be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum ResponseLimit {
    /// Ten seconds, and none towards nodes that are not aegis: some send a stream's headers only with its first message.
    #[default]
    Default,
    Off,
    Set(Duration),
}

impl ResponseLimit {
    /// The limit towards a node; `None` if there is none.
    pub(crate) fn towards(self, foreign: bool) -> Option<Duration> {
        match self {
            Self::Default if foreign => None,
            Self::Default => Some(DEFAULT),
            Self::Off => None,
            Self::Set(limit) => Some(limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_nodes_are_limited_only_on_request() {
        let set = Duration::from_secs(1);
        for (limit, ours, foreign) in [
            (ResponseLimit::Default, Some(DEFAULT), None),
            (ResponseLimit::Off, None, None),
            (ResponseLimit::Set(set), Some(set), Some(set)),
        ] {
            assert_eq!((limit.towards(false), limit.towards(true)), (ours, foreign));
        }
    }
}
