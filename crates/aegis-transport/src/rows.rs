use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::slots::Slots;

/// The slots of all connections, side by side.
///
/// Picks walk over them, and a connection is a kilobyte among others of h2 and TLS: each on a page of its own, of which a
/// processor remembers some 2,000. Here 64 share a page, in the order in which they were connected: with 10,000 connections a
/// pick takes as long as with three, and not 30 ns longer. A place that is free is given to the next connection; of the most that
/// ever were at once, 64 bytes each stay.
#[derive(Debug, Default)]
pub(crate) struct Rows(Mutex<Vec<Arc<Row>>>);

#[derive(Debug)]
struct Row {
    /// A bit for each.
    in_use: AtomicU64,
    slots: [Slots; 64],
}

impl Rows {
    /// A place for one connection.
    pub(crate) fn place(&self, limit: usize) -> Place {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = rows.iter().find_map(Row::place).unwrap_or_else(|| {
            let row =
                Arc::new(Row { in_use: AtomicU64::new(1), slots: [const { Slots::new(0) }; 64] });
            rows.push(Arc::clone(&row));
            Place(Seat { row, index: 0 })
        });
        place.reset(limit);
        place
    }
}

impl Row {
    /// Its first free place; only one caller at a time looks for one.
    fn place(self: &Arc<Self>) -> Option<Place> {
        let free = self.in_use.load(Ordering::SeqCst).trailing_ones();
        let bit = 1_u64.checked_shl(free)?;
        self.in_use.fetch_or(bit, Ordering::SeqCst);
        Some(Place(Seat { row: Arc::clone(self), index: usize::try_from(free).ok()? }))
    }
}

/// A connection's place in the rows; it is free when this is dropped.
#[derive(Debug)]
pub(crate) struct Place(Seat);

/// Where a place is.
#[derive(Debug, Clone)]
pub(crate) struct Seat {
    row: Arc<Row>,
    index: usize,
}

impl Place {
    pub(crate) fn seat(&self) -> Seat {
        self.0.clone()
    }
}

impl Deref for Place {
    type Target = Slots;

    fn deref(&self) -> &Slots {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Seat { row, index } = &self.0;
        row.in_use.fetch_and(!(1 << index), Ordering::SeqCst);
    }
}

impl Deref for Seat {
    type Target = Slots;

    fn deref(&self) -> &Slots {
        let [first, ..] = &self.row.slots;
        // No index is beyond the row.
        self.row.slots.get(self.index).unwrap_or(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_place_is_given_to_the_next() {
        let rows = Rows::default();
        let mut places: Vec<_> = (0..200).map(|limit| rows.place(limit)).collect();
        assert!((0..200).all(|limit| places[limit].limit() == limit), "no two are the same");
        assert_eq!(rows.0.lock().unwrap().len(), 4);
        places.remove(70);
        let place = rows.place(1_000);
        assert_eq!((place.0.index, rows.0.lock().unwrap().len()), (6, 4));
        assert!((71..200).all(|limit| places[limit - 1].limit() == limit));
    }

    #[test]
    fn nothing_is_left_of_who_had_it_before() {
        let rows = Rows::default();
        let place = rows.place(1);
        place.take(|_| true).unwrap();
        place.set_stalled(true);
        drop(place);
        let place = rows.place(7);
        assert_eq!((place.0.index, place.limit(), place.state().in_use()), (0, 7, 0));
        assert!(!place.state().is_stalled());
    }
}
