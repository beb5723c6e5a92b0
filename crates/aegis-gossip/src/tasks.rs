use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::core::Core;

/// The shortest time between two snapshots: an index of thousands of nodes is not rebuilt for each of them.
const PUBLISH_EVERY: Duration = Duration::from_millis(20);
/// How often records are looked at that may be over.
const EXPIRE_EVERY: Duration = Duration::from_secs(5);

/// Publishes what changed in the replica.
pub(crate) async fn publish(core: Arc<Core>) {
    let mut changed = core.changed();
    // Peers may have called before this task began to listen.
    changed.mark_changed();
    while changed.changed().await.is_ok() {
        core.publish();
        sleep(PUBLISH_EVERY).await;
    }
}

/// Forgets records that are over.
pub(crate) async fn expire(core: Arc<Core>) {
    loop {
        sleep(EXPIRE_EVERY).await;
        core.expire(core.now());
    }
}
