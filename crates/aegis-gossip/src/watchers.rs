use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aegis_core::NodeId;
use tokio::sync::{Notify, watch};

/// Streams of one caller.
const PER_CALLER: usize = 8;
/// Streams of all callers.
const TOTAL: usize = 4_096;

/// The streams that follow this node's directory, and how far each of them is.
#[derive(Debug)]
pub(crate) struct Watchers {
    state: Arc<Mutex<State>>,
    moved: Arc<Notify>,
    open: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    per_caller: HashMap<NodeId, usize>,
    /// The last change that a stream took.
    taken: HashMap<u64, u64>,
}

impl Default for Watchers {
    fn default() -> Self {
        let (state, moved) = (Arc::default(), Arc::default());
        Self { state, moved, open: watch::Sender::new(true) }
    }
}

impl Watchers {
    /// One more stream, unless the caller or the node has too many, or the node is leaving.
    pub(crate) fn join(&self, caller: &NodeId) -> Option<Watcher> {
        if !*self.open.borrow() {
            return None;
        }
        let mut state = lock(&self.state);
        let of_caller = state.per_caller.get(caller).copied().unwrap_or_default();
        if PER_CALLER <= of_caller || TOTAL <= state.taken.len() {
            return None;
        }
        state.per_caller.insert(caller.clone(), of_caller + 1);
        let id = state.next;
        state.next += 1;
        state.taken.insert(id, 0);
        Some(Watcher {
            id,
            caller: caller.clone(),
            state: Arc::clone(&self.state),
            moved: Arc::clone(&self.moved),
            open: self.open.subscribe(),
        })
    }

    /// Waits until every stream took a change.
    pub(crate) async fn delivered(&self, change: u64) {
        loop {
            let moved = self.moved.notified();
            tokio::pin!(moved);
            // Before the look, so that a step in between is not missed.
            moved.as_mut().enable();
            if lock(&self.state).taken.values().all(|taken| change <= *taken) {
                return;
            }
            moved.await;
        }
    }

    /// Ends the streams, once each has told what it has.
    pub(crate) fn close(&self) {
        self.open.send_replace(false);
    }
}

/// One stream.
#[derive(Debug)]
pub(crate) struct Watcher {
    id: u64,
    caller: NodeId,
    state: Arc<Mutex<State>>,
    moved: Arc<Notify>,
    open: watch::Receiver<bool>,
}

impl Watcher {
    /// The transport asked for more: it took everything up to `change`.
    pub(crate) fn took(&self, change: u64) {
        lock(&self.state).taken.insert(self.id, change);
        self.moved.notify_waiters();
    }

    /// Whether the node stays.
    pub(crate) fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    pub(crate) async fn closed(&mut self) {
        // A node that is gone is closed too.
        drop(self.open.wait_for(|open| !open).await);
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        state.taken.remove(&self.id);
        let left = state.per_caller.get(&self.caller).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            state.per_caller.remove(&self.caller);
        } else {
            state.per_caller.insert(self.caller.clone(), left);
        }
        drop(state);
        self.moved.notify_waiters();
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId::from_static("a");

    #[tokio::test]
    async fn a_change_is_delivered_when_every_stream_took_it_or_ended() {
        let watchers = Watchers::default();
        watchers.delivered(1).await;
        let (first, second) = (watchers.join(&A).unwrap(), watchers.join(&A).unwrap());
        let mut delivered = std::pin::pin!(watchers.delivered(5));
        assert!(futures_util::poll!(&mut delivered).is_pending());
        first.took(5);
        assert!(futures_util::poll!(&mut delivered).is_pending());
        drop(second);
        delivered.await;
    }

    #[tokio::test]
    async fn streams_of_a_caller_are_bounded_and_counted_down() {
        let watchers = Watchers::default();
        let mut streams: Vec<_> = (0..PER_CALLER).filter_map(|_| watchers.join(&A)).collect();
        assert!(watchers.join(&A).is_none());
        assert!(watchers.join(&NodeId::from_static("b")).is_some());
        streams.pop();
        assert!(watchers.join(&A).is_some());
        drop(streams);
        assert!(lock(&watchers.state).per_caller.is_empty());
    }
}
