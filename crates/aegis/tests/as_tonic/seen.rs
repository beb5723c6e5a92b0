//! What a row's handler did.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use aegis_testing::eventually;
use tokio_stream::Stream;

use super::LIMIT;

/// Counts the handlers, and their streams, that were dropped before their end.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<AtomicUsize>);

impl Seen {
    /// To be held while it runs, and forgotten with [`Guard::done`].
    pub(crate) fn guard(&self) -> Guard {
        Guard(Some(Arc::clone(&self.0)))
    }

    /// Waits until one was dropped.
    pub(crate) async fn dropped(&self) -> String {
        eventually(LIMIT, || match self.0.load(Ordering::SeqCst) {
            0 => Err("the handler lives"),
            _ => Ok(()),
        })
        .await;
        "the handler was dropped".to_owned()
    }
}

pub(crate) struct Guard(Option<Arc<AtomicUsize>>);

impl Guard {
    pub(crate) fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(count) = &self.0 {
            count.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A stream that notes that it is dropped.
pub(crate) struct Guarded<S>(
    pub(crate) S,
    #[expect(dead_code, reason = "its end is what counts")] pub(crate) Guard,
);

impl<S: Stream + Unpin> Stream for Guarded<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        Pin::new(&mut self.0).poll_next(cx)
    }
}
