use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tonic::Code;

/// How often a request is sent at most, the first time included: gRFC A6 has it say so in each configuration.
const ATTEMPTS: u32 = 3;

/// How the calls of a method are made: what may be repeated, when, and how long it may take.
///
/// It is given for a method or for a whole gRPC service, to [`PoolBuilder::policy`](crate::PoolBuilder::policy),
/// [`ServicePool::with_policy`](crate::ServicePool::with_policy) or
/// [`ServiceChannel::policy`](crate::ServiceChannel::policy). Calls of a method that has none are made by the default: they
/// are never repeated once a provider may have seen them.
///
/// The terms are those of a service config's `MethodConfig` (gRFC A6), and the numbers where A6 has some.
///
/// ```
/// use std::time::Duration;
///
/// use aegis_client::{CallPolicy, ServicePool};
/// use tonic::Code;
/// # use aegis_core::ServiceInfo;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tls = aegis_testing::TestCa::new().options("vicky-1", "gateway");
/// # let identity = ServiceInfo::from_static("identity", "v1");
/// let reads = CallPolicy::new().idempotent().try_timeout(Duration::from_millis(300));
/// let pool = ServicePool::builder()
///     .policy("aegis.identity.v1.IdentityService", CallPolicy::new().deadline(Duration::from_secs(2)))
///     .policy("/aegis.identity.v1.IdentityService/GetUser", reads) // the method's own counts, and it alone
///     .policy("/aegis.identity.v1.IdentityService/ListUsers", reads.retry_on([Code::Unavailable, Code::Aborted]))
/// #   .tls(tls)
/// #   .provider("morpheus-1", "10.0.0.7:8443", [identity])
///     .build()?;
/// # drop(pool);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct CallPolicy {
    pub(crate) idempotent: bool,
    codes: Codes,
    pub(crate) attempts: u32,
    pub(crate) try_timeout: Option<Duration>,
    pub(crate) deadline: Option<Duration>,
}

impl CallPolicy {
    /// What holds where nothing is said: not idempotent, three attempts, `UNAVAILABLE`, no timeout of its own.
    pub const fn new() -> Self {
        Self {
            idempotent: false,
            codes: Codes::UNAVAILABLE,
            attempts: ATTEMPTS,
            try_timeout: None,
            deadline: None,
        }
    }

    /// To run it twice is as good as to run it once, so a call may be sent again although a provider has had it
    /// (default: it may not).
    ///
    /// For a single call there is [`RequestExt::idempotent`](crate::RequestExt::idempotent).
    pub const fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// The codes after which an idempotent call is sent again, instead of those before (default: `UNAVAILABLE`).
    ///
    /// Only failures before the answer has begun count; what was never processed goes on whatever its code is.
    pub fn retry_on(mut self, codes: impl IntoIterator<Item = Code>) -> Self {
        self.codes = Codes::of(codes);
        self
    }

    /// How often an idempotent call is sent at most, the first time included (default 3; 0 is taken for 1).
    ///
    /// What a provider has provably not processed does not count.
    pub const fn attempts(mut self, most: u32) -> Self {
        self.attempts = if most == 0 { 1 } else { most };
        self
    }

    /// How long an idempotent call waits for a provider's answer to begin before it asks another one (default: as long
    /// as the call lasts).
    ///
    /// The stream to the slow one is reset then. A call that may not be sent again, because its attempts or the budget
    /// are used up or its request is too long, goes on waiting: giving up would help nobody.
    pub const fn try_timeout(mut self, timeout: Duration) -> Self {
        self.try_timeout = Some(timeout);
        self
    }

    /// The deadline of calls that have none, neither their own nor that of the handler they are made in (default: none;
    /// the channel's response limit holds).
    pub const fn deadline(mut self, timeout: Duration) -> Self {
        self.deadline = Some(timeout);
        self
    }

    /// Whether a call that failed like this may be sent again.
    pub(crate) fn retries(&self, code: Code) -> bool {
        self.codes.contain(code)
    }
}

impl Default for CallPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// A set of status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Codes(u32);

impl Codes {
    const UNAVAILABLE: Self = Self(1 << 14);

    fn of(codes: impl IntoIterator<Item = Code>) -> Self {
        Self(codes.into_iter().fold(0, |bits, code| bits | Self::bit(code)))
    }

    fn contain(self, code: Code) -> bool {
        self.0 & Self::bit(code) != 0
    }

    fn bit(code: Code) -> u32 {
        // gRPC has 17 codes, and tonic takes any other for `UNKNOWN`.
        1_u32.checked_shl(i32::from(code).unsigned_abs()).unwrap_or_default()
    }
}

/// Policies by method and by gRPC service. Copied when it is added to, which is before calls are made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Policies(Option<Arc<HashMap<Box<str>, CallPolicy>>>);

impl Policies {
    pub(crate) fn set(&mut self, name: &str, policy: CallPolicy) {
        let policies = Arc::make_mut(self.0.get_or_insert_default());
        policies.insert(name.strip_prefix('/').unwrap_or(name).into(), policy);
    }

    /// The policy for a path: the method's, else that of its service, else the default.
    pub(crate) fn of(&self, path: &str) -> CallPolicy {
        let Some(policies) = &self.0 else { return CallPolicy::new() };
        let method = path.strip_prefix('/').unwrap_or(path);
        let service = || method.rsplit_once('/').and_then(|(service, _)| policies.get(service));
        policies.get(method).or_else(service).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(names: &[&str], path: &str, attempts: u32) {
        let mut policies = Policies::default();
        for (name, attempts) in names.iter().zip(10..) {
            policies.set(name, CallPolicy::new().attempts(attempts));
        }
        assert_eq!(policies.of(path).attempts, attempts, "{path} of {names:?}");
    }

    #[test]
    fn a_methods_own_policy_counts_before_its_services() {
        let names = ["/a.B/C", "a.B", "a.B/D"];
        check(&names, "/a.B/C", 10);
        check(&names, "/a.B/D", 12);
        check(&names, "/a.B/E", 11);
        check(&["a.B", "a.B"], "/a.B/C", 11);
    }

    #[test]
    fn an_unknown_method_has_the_default() {
        for path in ["/a.B/C", "/a.Bc/D", "/a/B", "", "/", "a.B"] {
            check(&["a.B/X", "a.BC"], path, ATTEMPTS);
            check(&[], path, ATTEMPTS);
        }
        assert!(!CallPolicy::default().idempotent);
    }

    #[test]
    fn a_copy_that_is_added_to_leaves_the_first_alone() {
        let mut first = Policies::default();
        first.set("a.B", CallPolicy::new().attempts(7));
        let mut second = first.clone();
        second.set("a.B", CallPolicy::new().attempts(8));
        assert_eq!((first.of("/a.B/C").attempts, second.of("/a.B/C").attempts), (7, 8));
    }

    #[test]
    fn the_codes_that_are_named_are_the_codes_that_count() {
        let every = (0..17).map(Code::from);
        for code in every.clone() {
            assert_eq!(CallPolicy::new().retries(code), code == Code::Unavailable, "{code:?}");
            let two = CallPolicy::new().retry_on([Code::Ok, code]);
            for other in every.clone() {
                assert_eq!(two.retries(other), other == Code::Ok || other == code, "{other:?}");
            }
            assert!(!CallPolicy::new().retry_on([]).retries(code));
        }
    }

    #[test]
    fn no_attempt_at_all_is_one() {
        assert_eq!(CallPolicy::new().attempts(0).attempts, 1);
    }
}
