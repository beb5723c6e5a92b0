use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::lease::Lease;

/// Calls that wait for a slot of one node, first come, first served.
///
/// A slot that is given back goes straight to the first of them, so nobody who comes later takes it before.
#[derive(Debug, Default)]
pub(crate) struct Line {
    waiting: Mutex<Waiting>,
    /// How many they are: most slots are given back with nobody waiting.
    length: AtomicUsize,
}

#[derive(Debug, Default)]
struct Waiting {
    next_ticket: u64,
    by_ticket: BTreeMap<u64, oneshot::Sender<Lease>>,
}

/// A place in the line; dropping it leaves the line, and a slot that has come meanwhile goes to the next.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    line: &'a Line,
    ticket: u64,
    slot: oneshot::Receiver<Lease>,
}

impl Line {
    /// Lines up. A slot that became free before that is not reported: look once more after this.
    pub(crate) fn join(&self) -> Place<'_> {
        let (give, slot) = oneshot::channel();
        let ticket = self.change(|waiting| {
            let ticket = waiting.next_ticket;
            waiting.next_ticket += 1;
            waiting.by_ticket.insert(ticket, give);
            ticket
        });
        Place { line: self, ticket, slot }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length.load(Ordering::SeqCst) == 0
    }

    /// Who is next, taken out of the line.
    pub(crate) fn next(&self) -> Option<oneshot::Sender<Lease>> {
        if self.is_empty() {
            return None;
        }
        self.change(|waiting| Some(waiting.by_ticket.pop_first()?.1))
    }

    fn change<T>(&self, change: impl FnOnce(&mut Waiting) -> T) -> T {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = change(&mut waiting);
        self.length.store(waiting.by_ticket.len(), Ordering::SeqCst);
        outcome
    }
}

impl Place<'_> {
    /// Waits until it is this one's turn; `None` never comes before the place is dropped.
    pub(crate) async fn turn(&mut self) -> Option<Lease> {
        (&mut self.slot).await.ok()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        drop(self.line.change(|waiting| waiting.by_ticket.remove(&self.ticket)));
    }
}
