use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

/// How much of a request body is kept for another attempt.
pub(crate) const KEPT: usize = 64 * 1024;

/// A request body that can be sent again, as long as all that was taken of it is still kept.
///
/// So a body that was never polled can always be sent again, and one that was polled beyond [`KEPT`] bytes never.
#[derive(Debug)]
pub(crate) struct Replay {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    body: Body,
    /// What was taken from `body` so far, while `keeping`.
    kept: Vec<Bytes>,
    length: usize,
    keeping: bool,
    ended: bool,
    /// The attempt that may poll; an older one may still sit in a connection's task.
    attempt: u32,
    /// How many entries of `kept` the current attempt was given.
    given: usize,
    /// When an attempt last took a piece.
    progress: Option<Instant>,
}

impl Replay {
    pub(crate) fn new(body: Body) -> Self {
        let shared = Shared {
            body,
            kept: Vec::new(),
            length: 0,
            keeping: true,
            ended: false,
            attempt: 0,
            given: 0,
            progress: None,
        };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// The body for one more attempt, which takes it away from the one before; `None` if its beginning is gone.
    pub(crate) fn attempt(&self) -> Option<Attempt> {
        let mut shared = lock(&self.shared);
        if !shared.keeping {
            return None;
        }
        shared.attempt += 1;
        shared.given = 0;
        Some(Attempt { number: shared.attempt, shared: Arc::clone(&self.shared) })
    }

    /// Whether [`attempt`](Self::attempt) would have one.
    pub(crate) fn is_possible(&self) -> bool {
        lock(&self.shared).keeping
    }

    /// There will be no other attempt: what is kept is let go once the current one has it.
    pub(crate) fn settle(&self) {
        let mut shared = lock(&self.shared);
        shared.keeping = false;
        shared.forget_given();
    }

    /// When the last piece was taken, by whichever attempt.
    pub(crate) fn progress(&self) -> Option<Instant> {
        lock(&self.shared).progress
    }
}

/// The body of one attempt.
#[derive(Debug)]
pub(crate) struct Attempt {
    shared: Arc<Mutex<Shared>>,
    number: u32,
}

impl http_body::Body for Attempt {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut shared = lock(&self.shared);
        if shared.attempt != self.number {
            // An error, not an end: the peer must not take the half for the whole.
            return Poll::Ready(Some(Err(Status::cancelled("the call moved to another provider"))));
        }
        shared.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        let shared = lock(&self.shared);
        shared.attempt == self.number
            && shared.given == shared.kept.len()
            && (shared.ended || shared.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Shared {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(piece) = self.kept.get(self.given) {
            let piece = piece.clone();
            self.given += 1;
            self.progress = Some(Instant::now());
            self.forget_given();
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        if self.ended {
            return Poll::Ready(None);
        }
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                self.progress = Some(Instant::now());
                self.keep(frame.data_ref());
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(status)) => {
                self.keeping = false;
                Poll::Ready(Some(Err(status)))
            }
            None => {
                self.ended = true;
                Poll::Ready(None)
            }
        }
    }

    /// `None` is a frame that cannot be kept: trailers, which gRPC requests do not have.
    fn keep(&mut self, data: Option<&Bytes>) {
        if !self.keeping {
            return;
        }
        match data {
            Some(data) if self.length + data.len() <= KEPT => {
                self.length += data.len();
                self.kept.push(data.clone());
                self.given += 1;
            }
            _ => {
                self.keeping = false;
                self.forget_given();
            }
        }
    }

    fn forget_given(&mut self) {
        if !self.keeping && self.given == self.kept.len() {
            self.kept = Vec::new();
            self.given = 0;
        }
    }
}

/// A panic in the caller's stream ends that call; the state here is whole at every step.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::FutureExt;
    use futures_util::future::poll_fn;
    use proptest::prelude::*;

    use super::*;

    /// Gives its pieces, then ends or stays open.
    struct Pieces {
        pieces: VecDeque<Bytes>,
        open: bool,
    }

    impl http_body::Body for Pieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            match self.pieces.pop_front() {
                Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
                None if self.open => Poll::Pending,
                None => Poll::Ready(None),
            }
        }
    }

    fn replay(sizes: &[usize], open: bool) -> (Replay, Vec<u8>) {
        let piece = |(index, size): (usize, &usize)| {
            Bytes::from(vec![u8::try_from(index % 251).unwrap(); *size])
        };
        let pieces: VecDeque<_> = sizes.iter().enumerate().map(piece).collect();
        let whole = pieces.iter().flatten().copied().collect();
        (Replay::new(Body::new(Pieces { pieces, open })), whole)
    }

    /// Takes up to `pieces` pieces; fewer if the body ends or has no more yet.
    fn take(attempt: &mut Attempt, pieces: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        for _ in 0..pieces {
            match poll_fn(|cx| Pin::new(&mut *attempt).poll_frame(cx)).now_or_never() {
                Some(Some(Ok(frame))) => taken.extend_from_slice(frame.data_ref().unwrap()),
                _ => break,
            }
        }
        taken
    }

    #[track_caller]
    fn check(sizes: &[usize], open: bool, polled: usize, possible: bool) {
        let (replay, whole) = replay(sizes, open);
        let mut first = replay.attempt().unwrap();
        take(&mut first, polled);
        assert_eq!(replay.is_possible(), possible);
        assert_eq!(
            replay.attempt().map(|mut next| take(&mut next, 1_000)),
            possible.then_some(whole)
        );
    }

    #[test]
    fn a_body_is_replayed_while_all_that_was_taken_is_kept() {
        check(&[], false, 1, true);
        check(&[100], false, 0, true);
        check(&[100], false, 2, true);
        check(&[KEPT], false, 2, true);
        check(&[KEPT + 1], false, 0, true);
        check(&[KEPT + 1], false, 1, false);
        check(&[KEPT, 1], false, 1, true);
        check(&[KEPT, 1], false, 2, false);
        check(&[100, 100], true, 2, true);
        check(&[KEPT, 100], true, 2, false);
    }

    #[test]
    fn an_old_attempt_fails_instead_of_ending() {
        let (replay, _) = replay(&[10, 10], false);
        let mut old = replay.attempt().unwrap();
        take(&mut old, 1);
        let _new = replay.attempt().unwrap();
        let frame = poll_fn(|cx| Pin::new(&mut old).poll_frame(cx)).now_or_never();
        assert!(matches!(frame, Some(Some(Err(_)))));
        assert!(!old.is_end_stream());
    }

    #[test]
    fn settling_keeps_what_the_last_attempt_has_not_read() {
        let (replay, whole) = replay(&[10, 20, 30], false);
        take(&mut replay.attempt().unwrap(), 2);
        let mut last = replay.attempt().unwrap();
        replay.settle();
        assert!(replay.attempt().is_none());
        assert_eq!(take(&mut last, 10), whole);
        assert!(lock(&last.shared).kept.is_empty());
    }

    proptest! {
        #[test]
        fn every_attempt_sends_the_whole_body(
            sizes in proptest::collection::vec(0_usize..20_000, 0..8),
            polls in proptest::collection::vec(0_usize..8, 0..5),
            open: bool,
        ) {
            let (replay, whole) = replay(&sizes, open);
            for polled in polls {
                let Some(mut attempt) = replay.attempt() else { break };
                let taken = take(&mut attempt, polled);
                prop_assert!(whole.starts_with(&taken));
            }
            if let Some(mut last) = replay.attempt() {
                prop_assert_eq!(take(&mut last, 1_000), whole);
            } else {
                prop_assert!(whole.len() > KEPT);
            }
        }
    }
}
