use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aegis_core::NodeId;

/// How many connections each node id holds; an id without any takes no memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Identities(Arc<Mutex<HashMap<NodeId, usize>>>);

/// One connection of a node id, counted while it lives.
#[derive(Debug)]
pub(crate) struct Held {
    identities: Identities,
    id: NodeId,
    /// How many there were with this one.
    pub(crate) count: usize,
}

impl Identities {
    pub(crate) fn enter(&self, id: &NodeId) -> Held {
        let mut counts = self.counts();
        let count = counts.entry(id.clone()).or_default();
        *count += 1;
        Held { identities: self.clone(), id: id.clone(), count: *count }
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<NodeId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut counts = self.identities.counts();
        if let Some(count) = counts.get_mut(&self.id) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_forgotten_with_its_last_connection() {
        let identities = Identities::default();
        let id: NodeId = "a".parse().unwrap();
        let (first, second) = (identities.enter(&id), identities.enter(&id));
        assert_eq!((first.count, second.count), (1, 2));
        drop(first);
        assert_eq!(identities.enter(&id).count, 2);
        drop(second);
        assert!(identities.counts().is_empty());
    }
}
