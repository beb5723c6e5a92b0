use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use aegis_transport::Slot;

use crate::view::{Picked, Provider};

/// A call's places in the lines for a stream, one at each provider that it may go to.
///
/// Dropping it leaves them; a slot that has just come goes to the next call. It must be polled for as long as it
/// lives, or it keeps a slot from the others.
#[derive(Default)]
pub(crate) struct Line {
    places: Vec<Place>,
}

struct Place {
    provider: Arc<Provider>,
    slot: Pin<Box<dyn Future<Output = Slot> + Send>>,
}

impl Line {
    /// Lines up at these providers and no others; where the call stands already, it keeps its place.
    pub(crate) fn stand_at(&mut self, providers: &[Arc<Provider>]) {
        self.places.retain(|place| providers.iter().any(|it| Arc::ptr_eq(it, &place.provider)));
        for provider in providers {
            if self.places.iter().all(|place| !Arc::ptr_eq(provider, &place.provider)) {
                let slot = Box::pin(provider.link.acquire());
                self.places.push(Place { provider: Arc::clone(provider), slot });
            }
        }
    }

    /// Waits until it is the call's turn somewhere.
    pub(crate) async fn turn(&mut self) -> Picked {
        let places = &mut self.places;
        let picked = poll_fn(|cx| {
            for Place { provider, slot } in &mut *places {
                if let Poll::Ready(slot) = slot.as_mut().poll(cx) {
                    return Poll::Ready(Picked { slot, provider: Arc::clone(provider) });
                }
            }
            Poll::Pending
        })
        .await;
        self.places.clear();
        picked
    }
}
