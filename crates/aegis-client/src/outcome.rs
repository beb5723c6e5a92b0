//! How attempts, and with them calls, come to nothing.

use std::error::Error as _;

use aegis_transport::{CallError, NeverSent, ResponseBody};
use http::Response;
use http_body::Body as _;
use tonic::{Code, Status};

use crate::Error;
use crate::failure::Stopped;
use crate::headers::{NOT_SERVED, take_refusal};
use crate::load::Outcome;
use crate::pushback::Pushback;
use crate::stage::Stage;

/// An attempt that came to nothing.
#[derive(Debug)]
pub(crate) struct Failed {
    /// Its code and words, without the number of the attempt.
    pub(crate) status: Status,
    pub(crate) how: How,
    pub(crate) pushback: Option<Pushback>,
}

/// What is known of an attempt that came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// The provider's answer is a failure, and nothing else.
    Answered,
    /// The stream broke, or all of its connection was lost: the provider may have acted on the request.
    Broken { lost: bool },
    /// We gave it up, which the budget has paid for.
    Left,
    /// The node does not serve what was asked for, so it is of no use to ask it again.
    NotServed,
    /// Nothing left this process.
    NotSent,
    /// The caller's own request body failed.
    Own,
    /// The peer said that it has not processed the request.
    Refused,
    /// The request itself is at fault: it cannot be sent.
    Unsendable,
}

impl How {
    /// Whether a handler may have acted on the request.
    pub(crate) fn was_sent(self) -> bool {
        matches!(self, Self::Answered | Self::Broken { .. } | Self::Left | Self::Own)
    }
}

impl Failed {
    pub(crate) fn left(status: Status) -> Self {
        Self { status, how: How::Left, pushback: None }
    }

    /// What it says about the provider.
    pub(crate) fn outcome(&self) -> Outcome {
        match self.how {
            How::Answered => Outcome::of(self.status.code()),
            How::Broken { lost: true } => Outcome::Lost,
            How::Broken { lost: false } | How::Left => Outcome::Failed,
            How::NotServed | How::Refused => Outcome::Refused,
            How::NotSent | How::Own | How::Unsendable => Outcome::Unsent,
        }
    }
}

impl From<CallError> for Failed {
    fn from(error: CallError) -> Self {
        let is_callers = error.source().and_then(|it| it.downcast_ref::<Status>()).is_some();
        let how = match error.never_sent() {
            _ if is_callers => How::Own,
            _ if error.is_unsendable() => How::Unsendable,
            None => How::Broken { lost: error.is_lost_connection() },
            Some(NeverSent::SlotLost) => How::NotSent,
            Some(_) => How::Refused,
        };
        Self { status: error.into(), how, pushback: None }
    }
}

/// Takes failures out of the answers: those that are nothing but a status.
///
/// What has more than its headers has begun, and is the caller's (gRFC A6 calls the call committed then).
pub(crate) fn judge(
    outcome: Result<Response<ResponseBody>, CallError>,
) -> Result<Response<ResponseBody>, Failed> {
    let mut answer = outcome?;
    // The mark is taken off in any case: a handler that passes the answer on would say of its own call that it was never
    // processed.
    let mark = take_refusal(answer.headers_mut());
    if !answer.body().is_end_stream() {
        return Ok(answer);
    }
    let Some(status) = Status::from_header_map(answer.headers()) else { return Ok(answer) };
    match status.code() {
        Code::Ok => Ok(answer),
        Code::Unimplemented if mark.is_some_and(|mark| mark == NOT_SERVED) => {
            Err(Failed { status, how: How::NotServed, pushback: None })
        }
        _ => {
            let pushback = Pushback::of(&status);
            Err(Failed { status, how: How::Answered, pushback })
        }
    }
}

/// How a call ended without an answer.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: Status,
    /// `None` where the caller's own status is the whole story.
    pub(crate) stopped: Option<Stopped>,
    pub(crate) error: Option<Box<Error>>,
}

impl Ended {
    /// The status for the caller, which keeps the story.
    pub(crate) fn into_status(self, stage: Stage) -> Status {
        let Self { status, stopped, error } = self;
        match stopped {
            Some(stopped) => stage.into_record().kept_in(status, stopped, error),
            None => status,
        }
    }
}

impl From<Error> for Ended {
    fn from(error: Error) -> Self {
        let stopped = match error {
            Error::Closed | Error::NoTlsConfig { .. } => Stopped::Unusable,
            Error::NoProviders { .. } | Error::NotReady { .. } | Error::PinLost { .. } => {
                Stopped::OutOfProviders
            }
        };
        Self { status: error.status(), stopped: Some(stopped), error: Some(Box::new(error)) }
    }
}
