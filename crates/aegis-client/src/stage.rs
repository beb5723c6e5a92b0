use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aegis_core::{Address, NodeId};
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
    Answer { node_id: NodeId, address: Address, attempt: u32, foreign: bool },
}

impl Stage {
    pub(crate) fn provider(&self) {
        *self.lock() = At::Provider;
    }

    pub(crate) fn slot(&self) {
        *self.lock() = At::Slot;
    }

    pub(crate) fn answer(&self, node_id: &NodeId, address: &Address, attempt: u32, foreign: bool) {
        *self.lock() =
            At::Answer { node_id: node_id.clone(), address: address.clone(), attempt, foreign };
    }

    /// Whether the call is with a node that is not one of ours.
    pub(crate) fn is_foreign(&self) -> bool {
        matches!(*self.lock(), At::Answer { foreign: true, .. })
    }

    pub(crate) fn deadline_passed(&self, call: &Call) -> Status {
        Status::deadline_exceeded(self.deadline_text(call))
    }

    pub(crate) fn deadline_text(&self, call: &Call) -> String {
        format!("the deadline passed {}", self.whereabouts(call))
    }

    /// The call was with nobody, with a full provider, or with one that did not answer.
    pub(crate) fn limit_passed(&self, call: &Call, limit: Duration) -> Status {
        let text = format!(
            "the response_limit of {limit:?} for calls without a deadline passed {}",
            self.whereabouts(call)
        );
        match *self.lock() {
            At::Provider => {
                let mut status = Status::unavailable(text);
                let service = call.service();
                status.set_source(std::sync::Arc::new(service.pool.no_providers(&service.info)));
                status
            }
            At::Slot => Status::resource_exhausted(text),
            At::Answer { .. } => Status::deadline_exceeded(text),
        }
    }

    fn whereabouts(&self, call: &Call) -> String {
        let info = &call.service().info;
        match &*self.lock() {
            At::Provider => format!("while the call waited for a provider of {info}"),
            At::Slot => {
                format!(
                    "while the call waited for a stream: each provider of {info} has as many as it allows"
                )
            }
            At::Answer { node_id, address, attempt, .. } => format!(
                "while node {node_id} at {address} had the call (attempt {attempt} of {info})"
            ),
        }
    }

    fn lock(&self) -> MutexGuard<'_, At> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
