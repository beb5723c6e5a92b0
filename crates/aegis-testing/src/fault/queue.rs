//! Bytes on their way, in order.

use std::collections::VecDeque;

use tokio::time::Instant;

/// One direction of a link whose bytes take time, or have to wait.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pieces: VecDeque<Piece>,
    bytes: usize,
}

#[derive(Debug)]
struct Piece {
    due: Instant,
    bytes: Vec<u8>,
    /// How many of them have gone.
    gone: usize,
}

impl Queue {
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// How many bytes are on their way.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds bytes that arrive then, or together with those before them.
    pub(crate) fn push(&mut self, bytes: &[u8], due: Instant) {
        if bytes.is_empty() {
            return;
        }
        let due = self.pieces.back().map_or(due, |last| last.due.max(due));
        self.bytes += bytes.len();
        self.pieces.push_back(Piece { due, bytes: bytes.to_vec(), gone: 0 });
    }

    /// When the next bytes arrive.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.pieces.front().map(|piece| piece.due)
    }

    /// The next bytes, if they have arrived.
    pub(crate) fn front(&self, now: Instant) -> Option<&[u8]> {
        let piece = self.pieces.front().filter(|piece| piece.due <= now)?;
        piece.bytes.get(piece.gone..)
    }

    /// Takes so many of the next bytes away.
    pub(crate) fn advance(&mut self, count: usize) {
        let Some(piece) = self.pieces.front_mut() else { return };
        piece.gone += count;
        self.bytes -= count;
        if piece.bytes.len() <= piece.gone {
            self.pieces.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_arrive_in_order_and_never_early() {
        let now = Instant::now();
        let later = |millis| now + Duration::from_millis(millis);
        let mut queue = Queue::default();
        queue.push(b"slow", later(20));
        queue.push(b"quick", later(10));
        assert_eq!(
            (queue.bytes(), queue.due(), queue.front(later(19))),
            (9, Some(later(20)), None)
        );
        assert_eq!(queue.front(later(20)), Some(&b"slow"[..]));
        queue.advance(1);
        assert_eq!((queue.bytes(), queue.front(later(20))), (8, Some(&b"low"[..])));
        queue.advance(3);
        assert_eq!(queue.front(later(19)), None);
        assert_eq!(queue.front(later(20)), Some(&b"quick"[..]));
        queue.advance(5);
        assert!(queue.is_empty() && queue.bytes() == 0 && queue.due().is_none());
    }
}
