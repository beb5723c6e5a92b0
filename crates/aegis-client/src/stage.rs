use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aegis_core::{Address, NodeId, ServiceInfo};
use tonic::Status;

use crate::call::Call;

/// How far a call has come, for the words and the code it ends with when its time is over.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    at: Mutex<At>,
}

#[derive(Debug, Default)]
enum At {
    /// It waits for a connected provider.
    #[default]
    Provider,
    /// It waits for a stream.
    Slot,
    /// It was given to a node.
    Answer(Attempt),
}

/// An attempt at a call: what its failures name.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) node_id: NodeId,
    pub(crate) address: Address,
    pub(crate) number: u32,
    pub(crate) foreign: bool,
}

impl Attempt {
    /// What the call ends with when its deadline passes with the node.
    pub(crate) fn deadline_passed(&self, info: &ServiceInfo) -> Status {
        Status::deadline_exceeded(format!("the deadline passed {}", self.whereabouts(info)))
    }

    fn whereabouts(&self, info: &ServiceInfo) -> String {
        let Self { node_id, address, number, .. } = self;
        format!("while node {node_id} at {address} had the call (attempt {number} of {info})")
    }
}

impl Stage {
    pub(crate) fn provider(&self) {
        *self.lock() = At::Provider;
    }

    pub(crate) fn slot(&self) {
        *self.lock() = At::Slot;
    }

    pub(crate) fn answer(&self, attempt: Attempt) {
        *self.lock() = At::Answer(attempt);
    }

    /// The attempt that the call is in, if it is with a node.
    pub(crate) fn attempt(&self) -> Option<Attempt> {
        match &*self.lock() {
            At::Answer(attempt) => Some(attempt.clone()),
            At::Provider | At::Slot => None,
        }
    }

    /// Whether the call is with a node that is not one of ours.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(&*self.lock(), At::Answer(Attempt { foreign: true, .. }))
    }

    pub(crate) fn deadline_passed(&self, call: &Call) -> Status {
        Status::deadline_exceeded(format!("the deadline passed {}", self.whereabouts(call)))
    }

    /// The call was with nobody, with a full provider, or with one that did not answer.
    pub(crate) fn limit_passed(&self, call: &Call, limit: Duration) -> Status {
        let text = format!(
            "the response_limit of {limit:?} for calls without a deadline passed {}",
            self.whereabouts(call)
        );
        match *self.lock() {
            At::Provider => {
                let service = call.service();
                service.pool.no_providers(&service.info).kept_in(Status::unavailable(text))
            }
            At::Slot => Status::resource_exhausted(text),
            At::Answer(_) => Status::deadline_exceeded(text),
        }
    }

    fn whereabouts(&self, call: &Call) -> String {
        let info = &call.service().info;
        match &*self.lock() {
            At::Provider => {
                let explanation = call.service().pool.explain(info);
                format!("while the call waited for a provider of {info}: {}", explanation.summary())
            }
            At::Slot => {
                format!(
                    "while the call waited for a stream: each provider of {info} has as many as it allows"
                )
            }
            At::Answer(attempt) => attempt.whereabouts(info),
        }
    }

    fn lock(&self) -> MutexGuard<'_, At> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
