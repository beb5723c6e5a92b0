//! How much of a request can be sent again.

use tonic::{Code, Status};
use tower_service::Service as _;

use crate::bodies::{Pieces, upload};
use crate::mesh::{IDENTITY, Mesh, PATIENCE};
use crate::provider::{Act, Provider};

const KEPT: usize = 64 * 1024;

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
    match channel.call(upload(Pieces::new(sizes, open))).await {
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

#[tokio::test]
async fn a_request_that_fails_by_itself_ends_with_its_own_status() {
    let mesh = Mesh::new();
    let provider = Provider::start(&mesh, "a").await;
    let pool = mesh.pool(&[&provider]);
    let failure = Status::data_loss("the caller's own words");
    let pieces = Pieces::new(&[10], false).failing(failure);
    let status = pool.channel(IDENTITY).call(upload(pieces)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::DataLoss, "the caller's own words"));
    assert!(provider.requests() <= 1);
}
