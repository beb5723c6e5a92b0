//! How much of a request can be sent again.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tonic::body::Body;
use tonic::{Code, Status};
use tower_service::Service as _;

use crate::mesh::{IDENTITY, Mesh, PATIENCE};
use crate::provider::{Act, Provider};

const KEPT: usize = 64 * 1024;

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

/// Sends a body that the first attempt's provider refuses, and says whether the second one got it whole.
async fn check(sizes: &[usize], open: bool, replayed: bool) {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let pool = mesh.pool(&[&provider]);
    let mut channel = pool.channel(IDENTITY);
    channel.wait_ready(1, PATIENCE).await.unwrap();
    provider.once(Act::RefuseAfter(sizes.iter().sum::<usize>().min(KEPT + 1)));
    let answer = if open { Act::Stream } else { Act::Answer };
    provider.always(answer);
    let pieces = sizes.iter().map(|size| Bytes::from(vec![7; *size])).collect();
    let request = http::Request::post("/aegis.identity.v1.IdentityService/ValidateSession")
        .body(Body::new(Pieces { pieces, open }))
        .unwrap();
    match channel.call(request).await {
        Ok(_) => assert!(replayed, "{sizes:?} was sent again"),
        Err(status) => {
            assert!(!replayed, "{sizes:?} was not sent again: {status}");
            assert_eq!(status.code(), Code::Unavailable);
        }
    }
    assert_eq!(provider.requests(), 1 + usize::from(replayed));
    if replayed && !open {
        assert_eq!(provider.bytes(), sizes.iter().sum::<usize>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_sent_again_only_while_all_of_it_that_was_taken_is_kept() {
    check(&[], false, true).await;
    check(&[100], false, true).await;
    check(&[KEPT / 2, KEPT / 2], false, true).await;
    check(&[KEPT, KEPT, KEPT, KEPT, KEPT, KEPT], false, false).await;
    check(&[100], true, true).await;
    check(&[KEPT, KEPT, KEPT, KEPT, KEPT, KEPT], true, false).await;
}
