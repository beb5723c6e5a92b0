use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aegis_core::{Address, NodeId, ServiceInfo};
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::call::Call;
use crate::failure::{FailedAttempt, Record, Stopped};
use crate::outcome::Ended;

/// How many earlier attempts a message names.
const NAMED: usize = 3;

/// How far a call has come, for the words and the code it ends with: where it is, and which attempts have failed.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    at: At,
    record: Record,
}

#[derive(Debug, Default)]
enum At {
    /// It waits for a connected provider.
    #[default]
    Provider,
    /// It waits for a stream.
    Slot,
    /// It waits before it is sent again.
    Pause,
    /// It was given to a node.
    Answer(Attempt),
    /// The node has failed it.
    Failed(Attempt),
}

/// An attempt at a call: what its failures name.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) node_id: NodeId,
    pub(crate) address: Address,
    pub(crate) number: u32,
    pub(crate) foreign: bool,
    pub(crate) began: Instant,
}

impl Attempt {
    /// What the call ends with when its deadline passes while its answer is being read.
    pub(crate) fn deadline_passed(&self, info: &ServiceInfo) -> Status {
        let whereabouts = self.whereabouts(info, &[]);
        self.broke(Status::deadline_exceeded(format!("the deadline passed {whereabouts}")))
    }

    /// The status of an answer that had begun and broke, with why.
    pub(crate) fn broke(&self, status: Status) -> Status {
        let failed = self.failed(status.code(), status.message(), true);
        Record::of(failed, self.number).kept_in(status, Stopped::Begun, None)
    }

    fn failed(&self, code: Code, cause: &str, sent: bool) -> FailedAttempt {
        FailedAttempt {
            node_id: self.node_id.clone(),
            address: self.address.clone(),
            code,
            cause: cause.to_owned(),
            elapsed: self.began.elapsed(),
            sent,
        }
    }

    fn whereabouts(&self, info: &ServiceInfo, earlier: &[FailedAttempt]) -> String {
        let Self { node_id, address, number, .. } = self;
        let after = After(earlier);
        format!(
            "while node {node_id} at {address} had the call (attempt {number} of {info}{after})"
        )
    }
}

impl Stage {
    pub(crate) fn provider(&self) {
        self.lock().at = At::Provider;
    }

    pub(crate) fn slot(&self) {
        self.lock().at = At::Slot;
    }

    pub(crate) fn pause(&self) {
        self.lock().at = At::Pause;
    }

    pub(crate) fn answer(&self, attempt: Attempt) {
        self.lock().at = At::Answer(attempt);
    }

    /// The attempt that the call is in came to nothing; with whom it was.
    pub(crate) fn failed(&self, status: &Status, sent: bool) -> Option<NodeId> {
        let inner = &mut *self.lock();
        match std::mem::take(&mut inner.at) {
            At::Answer(attempt) => {
                inner.record.add(attempt.failed(status.code(), status.message(), sent));
                let node_id = attempt.node_id.clone();
                inner.at = At::Failed(attempt);
                Some(node_id)
            }
            at => {
                inner.at = at;
                None
            }
        }
    }

    /// Whether the call is with a node that is not one of ours.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(&self.lock().at, At::Answer(Attempt { foreign: true, .. }))
    }

    /// The attempt that was answered.
    pub(crate) fn into_attempt(self) -> Option<Attempt> {
        match self.inner.into_inner().unwrap_or_else(PoisonError::into_inner).at {
            At::Answer(attempt) | At::Failed(attempt) => Some(attempt),
            At::Provider | At::Slot | At::Pause => None,
        }
    }

    /// The attempts that failed.
    pub(crate) fn into_record(self) -> Record {
        self.inner.into_inner().unwrap_or_else(PoisonError::into_inner).record
    }

    /// A text about the attempt that failed last, with its number, those before it, and why there is none after it.
    pub(crate) fn numbered(&self, text: &str, info: &ServiceInfo, stopped: Stopped) -> String {
        let inner = &*self.lock();
        let (after, why) = (After(inner.record.earlier()), Why(stopped));
        match &inner.at {
            At::Failed(Attempt { number, .. }) => {
                format!("{text} (attempt {number} of {info}{after}{why})")
            }
            _ => format!("{text} ({info}{}{why})", After(inner.record.all())),
        }
    }

    /// Where the attempt was that failed last.
    pub(crate) fn place(&self) -> String {
        match self.lock().record.all().last() {
            Some(last) => format!("node {} at {}", last.node_id, last.address),
            None => "nobody".to_owned(),
        }
    }

    pub(crate) fn deadline_passed(&self, call: &Call) -> Ended {
        let text = format!("the deadline passed {}", self.whereabouts(call));
        self.out_of_time(Status::deadline_exceeded(text))
    }

    /// The call was with nobody, with a full provider, or with one that did not answer.
    pub(crate) fn limit_passed(&self, call: &Call, limit: Duration) -> Ended {
        let text = format!(
            "the response_limit of {limit:?} for calls without a deadline passed {}",
            self.whereabouts(call)
        );
        let nobody = matches!(self.lock().at, At::Provider);
        if nobody {
            let service = call.service();
            let error = Some(Box::new(service.pool.no_providers(&service.info)));
            return Ended { error, ..self.out_of_time(Status::unavailable(text)) };
        }
        let full = matches!(self.lock().at, At::Slot);
        self.out_of_time(if full {
            Status::resource_exhausted(text)
        } else {
            Status::deadline_exceeded(text)
        })
    }

    fn out_of_time(&self, status: Status) -> Ended {
        let words = Status::deadline_exceeded("it had not answered when the call's time was over");
        self.failed(&words, true);
        Ended { status, stopped: Some(Stopped::Deadline), error: None }
    }

    fn whereabouts(&self, call: &Call) -> String {
        let info = &call.service().info;
        let inner = &*self.lock();
        match &inner.at {
            At::Provider => {
                let explanation = call.service().pool.explain(info);
                format!(
                    "while the call waited for a provider of {info}: {}{}",
                    explanation.summary(),
                    After(inner.record.all())
                )
            }
            At::Slot => {
                format!(
                    "while the call waited for a stream: each provider of {info} has as many as it allows"
                )
            }
            At::Pause => {
                let after = After(inner.record.all());
                format!(
                    "while the call waited before it is sent to a provider of {info} again{after}"
                )
            }
            At::Answer(attempt) => attempt.whereabouts(info, inner.record.all()),
            At::Failed(attempt) => attempt.whereabouts(info, inner.record.earlier()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The attempts that came before.
struct After<'a>(&'a [FailedAttempt]);

impl fmt::Display for After<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, FailedAttempt { node_id, code, .. }) in self.0.iter().take(NAMED).enumerate() {
            write!(f, "{} {node_id}: {code:?}", if index == 0 { ", after" } else { "," })?;
        }
        match self.0.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Why there is no further attempt, where the code does not say it.
struct Why(Stopped);

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Stopped::Begun | Stopped::Code => Ok(()),
            stopped => write!(f, "; not sent again: {stopped}"),
        }
    }
}
