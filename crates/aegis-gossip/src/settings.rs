use std::time::Duration;

use aegis_topology::Limits;

/// How a directory is replicated; the defaults, named with each field, suit a mesh in one region.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Bounds on what peers can make us hold. See [`Limits`].
    pub limits: Limits,
    /// How often a member compares its directory with a peer's, ± 20 %. 1 s.
    pub sync_every: Duration,
    /// How long one call of a sync may take, and a tenth of what all of them may. 3 s.
    pub call_timeout: Duration,
    /// To how many peers news is pushed. 4.
    pub push_peers: usize,
    /// How long news is collected before it is pushed. 50 ms.
    pub push_delay: Duration,
    /// How many peers have to acknowledge a change of our own state, where there are as many. 8.
    pub acknowledging_peers: usize,
    /// The first wait after a seed could not be reached; each further one is a quarter longer. 250 ms.
    pub seed_retry: Duration,
    /// The longest wait after a seed could not be reached. 30 s.
    pub seed_retry_limit: Duration,
    /// How often a seed that answers is asked again, ± 20 %: it may have restarted empty. 10 s.
    pub seed_every: Duration,
    /// How many members an observer follows. 2.
    pub watched_members: usize,
    /// Records per peer and second that are decoded and verified; those that are known already do not count. 200.
    pub verify_rate: u32,
    /// How often a node that lost its identity to another process looks whether that one is still there. 10 s.
    pub conflict_every: Duration,
    /// The incarnation of this node's last run, as the directory showed it, if somebody kept it. None.
    ///
    /// Only needed by a node whose clock was set back since, and that neither reaches a seed nor is reached by anybody who
    /// holds its last record: whoever meets it tells it.
    pub last_incarnation: Option<u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            sync_every: Duration::from_secs(1),
            call_timeout: Duration::from_secs(3),
            push_peers: 4,
            push_delay: Duration::from_millis(50),
            acknowledging_peers: 8,
            seed_retry: Duration::from_millis(250),
            seed_retry_limit: Duration::from_secs(30),
            seed_every: Duration::from_secs(10),
            watched_members: 2,
            verify_rate: 200,
            conflict_every: Duration::from_secs(10),
            last_incarnation: None,
        }
    }
}

/// A duration, longer or shorter by up to a fifth, so that many processes do not act in step.
pub(crate) fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.8 + 0.4 * fastrand::f64())
}
