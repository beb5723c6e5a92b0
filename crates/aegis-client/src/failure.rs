use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aegis_core::{Address, NodeId};
use tonic::{Code, Status};

use crate::Error;
use crate::error::Kept;

/// How many attempts a failure tells of: the first, and the last ones.
const TOLD: usize = 16;

/// Why a call failed: which providers had it, what became of it there, and why it was given to no other.
///
/// The status of each failed call keeps one as its source, the answers of handlers included, at once or after an answer
/// has begun. It stays in this process: on its way to another a status has its code, message, details and metadata only.
///
/// Without one is a status that the caller itself is to blame for: a malformed `grpc-timeout`, a request body that failed,
/// an answer that is longer than it allows.
///
/// ```
/// use aegis_client::{Failure, RequestExt as _};
/// use aegis_core::ServiceInfo;
/// use aegis_proto::identity::v1::{GetUserRequest, identity_service_client::IdentityServiceClient};
/// use tonic::Request;
/// # use aegis_proto::identity::v1::identity_service_server::{IdentityService, IdentityServiceServer};
/// # struct Identity;
/// # impl IdentityService for Identity {}
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let mesh = aegis_testing::TestMesh::in_memory();
/// # let identity_v1 = ServiceInfo::from_static("identity", "v1");
/// # let serve = |id| mesh.serve(id, |node| node.service(identity_v1.clone(), IdentityServiceServer::new(Identity)));
/// # let _provider = serve("morpheus-1").await;
/// # let pool = mesh.node("vicky-1").pool();
/// let mut identity = IdentityServiceClient::new(pool.channel(ServiceInfo::from_static("identity", "v1")));
/// let request = Request::new(GetUserRequest::default()).idempotent();
/// let status = identity.get_user(request).await.unwrap_err();
/// if let Some(failure) = Failure::from_status(&status) {
///     for attempt in failure.attempts() {
///         println!("{} at {}: {:?}, {}", attempt.node_id, attempt.address, attempt.code, attempt.cause);
///     }
///     println!("no further attempt: {}", failure.stopped());
/// }
/// # let failure = Failure::from_status(&status).expect("a failure");
/// # assert_eq!(failure.attempts()[0].node_id.as_str(), "morpheus-1");
/// # assert_eq!(failure.stopped(), aegis_client::Stopped::Code);
/// # }
/// ```
#[derive(Debug)]
pub struct Failure {
    attempts: Vec<FailedAttempt>,
    made: usize,
    stopped: Stopped,
    error: Option<Kept>,
}

/// One provider that had a call, and what became of it there.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FailedAttempt {
    /// Who it was.
    pub node_id: NodeId,
    /// Where it was.
    pub address: Address,
    /// The code that the attempt ended with.
    pub code: Code,
    /// What went wrong, in words: the provider's own message, or what happened on the way.
    pub cause: String,
    /// How long the provider had the call.
    pub elapsed: Duration,
    /// Whether a handler may have acted on it; `false` where the provider has provably not processed it.
    pub sent: bool,
}

/// Why a failed call was not sent once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stopped {
    /// It was sent as often as its policy allows, or refused too often.
    Attempts,
    /// The answer had begun.
    Begun,
    /// The service's budget for repeats was used up.
    Budget,
    /// The code is none after which a call is sent again.
    Code,
    /// Its deadline or response limit had passed, or would have before it could be sent again.
    Deadline,
    /// A provider may have acted on it, and it is not marked idempotent.
    NotIdempotent,
    /// More of the request's body was sent than is kept for a repeat (64 KiB).
    NotReplayable,
    /// There was nobody else to ask, or nobody at all: [`Error::from_status`] says why.
    OutOfProviders,
    /// The provider asked for no repeat.
    Pushback,
    /// The pool was closed, or our own certificate cannot be used: [`Error::from_status`] says which.
    Unusable,
}

impl Failure {
    /// Why a call failed; `None` for a status that came otherwise.
    ///
    /// It looks through the sources of the status, so a layer that wraps statuses hides nothing.
    pub fn from_status(status: &Status) -> Option<&Self> {
        let mut source = status.source();
        while let Some(error) = source {
            if let Some(KeptFailure(failure)) = error.downcast_ref() {
                return Some(failure);
            }
            source = error.source();
        }
        None
    }

    /// The attempts, in their order. Of more than 16 these are the first and the last ones.
    pub fn attempts(&self) -> &[FailedAttempt] {
        &self.attempts
    }

    /// How many attempts there were.
    pub fn attempts_made(&self) -> usize {
        self.made
    }

    /// Why there was no further attempt.
    pub fn stopped(&self) -> Stopped {
        self.stopped
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, then no more: {}", Attempts(self.made), self.stopped)?;
        for attempt in &self.attempts {
            write!(f, "\n  {attempt}")?;
        }
        Ok(())
    }
}

impl fmt::Display for FailedAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node_id, address, code, cause, elapsed, sent } = self;
        let never = if *sent { "" } else { ", never processed" };
        write!(f, "{node_id} at {address}: {code:?} after {elapsed:.1?}{never}: {cause}")
    }
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attempts => "it was sent as often as it may be",
            Self::Begun => "its answer had begun",
            Self::Budget => "the budget for repeats is used up",
            Self::Code => "its code is none that is retried",
            Self::Deadline => "there is no time left",
            Self::NotIdempotent => "it is not marked idempotent",
            Self::NotReplayable => "too much of its request was sent to send it again",
            Self::OutOfProviders => "there is nobody else to ask",
            Self::Pushback => "the provider asked for no repeat",
            Self::Unusable => "the pool cannot be used",
        })
    }
}

struct Attempts(usize);

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("no attempt"),
            1 => f.write_str("1 attempt"),
            some => write!(f, "{some} attempts"),
        }
    }
}

/// The failed attempts of a call that is under way. It is empty, and owns nothing, until one fails.
#[derive(Debug, Default)]
pub(crate) struct Record {
    attempts: Vec<FailedAttempt>,
    made: usize,
}

impl Record {
    /// The record of a call that was answered at this attempt, and broke then.
    pub(crate) fn of(attempt: FailedAttempt, number: u32) -> Self {
        Self { attempts: vec![attempt], made: number.try_into().unwrap_or(usize::MAX) }
    }

    pub(crate) fn add(&mut self, attempt: FailedAttempt) {
        self.made += 1;
        // A call that waits until there is a provider may be refused for hours.
        if TOLD <= self.attempts.len() {
            self.attempts.remove(1);
        }
        self.attempts.push(attempt);
    }

    /// The attempts before the last one.
    pub(crate) fn earlier(&self) -> &[FailedAttempt] {
        self.attempts.split_last().map_or(&[], |(_, earlier)| earlier)
    }

    pub(crate) fn all(&self) -> &[FailedAttempt] {
        &self.attempts
    }

    /// The same status, which keeps why the call failed.
    pub(crate) fn kept_in(
        self,
        mut status: Status,
        stopped: Stopped,
        error: Option<Box<Error>>,
    ) -> Status {
        let Self { attempts, made } = self;
        let error = error.map(|error| Kept(*error));
        status.set_source(Arc::new(KeptFailure(Failure { attempts, made, stopped, error })));
        status
    }
}

/// A failure within a status, whose message tells the most of it: tonic prints the source of a status behind its message.
struct KeptFailure(Failure);

impl fmt::Debug for KeptFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for KeptFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failure { attempts, made, error, .. } = &self.0;
        match (error, attempts.last()) {
            (Some(error), _) => fmt::Display::fmt(error, f),
            (None, Some(FailedAttempt { node_id, address, .. })) => {
                write!(f, "client::Failure({} by {node_id} at {address})", Attempts(*made))
            }
            (None, None) => f.write_str("client::Failure"),
        }
    }
}

impl StdError for KeptFailure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.error.as_ref().map(|error| error as _)
    }
}

#[cfg(test)]
mod tests {
    use aegis_core::Chain;

    use super::*;

    fn attempt(number: usize) -> FailedAttempt {
        FailedAttempt {
            node_id: NodeId::new(format!("node-{number}")).unwrap(),
            address: "127.0.0.1:1".parse().unwrap(),
            code: Code::Unavailable,
            cause: "it is on fire".to_owned(),
            elapsed: Duration::from_millis(3),
            sent: number != 2,
        }
    }

    fn record(attempts: usize) -> Record {
        let mut record = Record::default();
        (1..=attempts).for_each(|number| record.add(attempt(number)));
        record
    }

    #[test]
    fn a_failure_is_found_in_its_status_and_tells_each_attempt() {
        let status = record(2).kept_in(Status::unavailable("it is on fire"), Stopped::Budget, None);
        let failure = Failure::from_status(&status).unwrap();
        assert_eq!((failure.attempts_made(), failure.stopped()), (2, Stopped::Budget));
        assert_eq!(
            failure.to_string(),
            "2 attempts, then no more: the budget for repeats is used up\n  \
             node-1 at 127.0.0.1:1: Unavailable after 3.0ms: it is on fire\n  \
             node-2 at 127.0.0.1:1: Unavailable after 3.0ms, never processed: it is on fire"
        );
        assert!(Error::from_status(&status).is_none());
        assert!(Failure::from_status(&Status::unavailable("")).is_none());
    }

    #[test]
    fn a_status_is_printed_with_the_place_of_its_failure() {
        let status = record(1).kept_in(Status::not_found("gone"), Stopped::Code, None);
        let text = status.to_string();
        assert!(
            text.ends_with("\"gone\", source: client::Failure(1 attempt by node-1 at 127.0.0.1:1)"),
            "{text}"
        );
        assert_eq!(Chain::new(&status).to_string(), text);
    }

    #[test]
    fn an_error_of_ours_is_found_in_the_same_status() {
        let status = Status::unavailable("");
        let status = record(0).kept_in(status, Stopped::Unusable, Some(Box::new(Error::Closed)));
        assert!(matches!(Error::from_status(&status), Some(Error::Closed)));
        assert_eq!(Failure::from_status(&status).unwrap().stopped(), Stopped::Unusable);
        let text = status.to_string();
        assert!(text.ends_with("source: client::Error::Closed"), "{text}");
        assert_eq!(Chain::new(&status).to_string(), text);
    }

    #[test]
    fn of_many_attempts_the_first_and_the_last_are_kept() {
        let status = record(100).kept_in(Status::unavailable(""), Stopped::Deadline, None);
        let failure = Failure::from_status(&status).unwrap();
        assert_eq!(failure.attempts_made(), 100);
        let ids: Vec<_> = failure.attempts().iter().map(|it| it.node_id.as_str()).collect();
        assert_eq!((ids.len(), ids[0], ids[1], ids[15]), (16, "node-1", "node-86", "node-100"));
    }
}
