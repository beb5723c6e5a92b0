//! Leaves connected providers out that fail.

mod probe;
mod record;
mod review;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

pub(crate) use probe::probe;
pub(crate) use record::{Record, Standing};
pub(crate) use review::{Member, review};

/// When a connected provider is left out for a while, because it fails its calls (outlier detection, as in Envoy and gRFC A50).
///
/// A failure is an attempt that the provider answers with `UNAVAILABLE`, `INTERNAL`, `UNKNOWN`, `DATA_LOSS` or
/// `DEADLINE_EXCEEDED`, that takes longer than the [`try_timeout`](crate::CallPolicy::try_timeout), or that ends with a lost
/// connection, which counts once however many calls it carried. A call whose own deadline passes says that the provider was
/// slow, and is no failure: the deadline may have been short. Each pool judges by its own calls, each service apart.
///
/// An ejected provider gets no call. When its time is over, the pool itself asks it over its connection
/// (`grpc.health.v1.Health/Check`; a server without that service lives as well), and only then it returns: with a slow
/// start where the balancer knows one, and with one more failure among its first calls it is out again, for twice as
/// long. When all that are connected would be out, all are called (*panic mode*).
///
/// ```
/// use std::time::Duration;
///
/// use aegis_client::{OutlierDetection, ServicePool};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let tls = aegis_testing::TestCa::new().options("vicky-1", "gateway");
/// let mut detection = OutlierDetection::default();
/// detection.consecutive_failures = 10;
/// detection.longest_ejection = Duration::from_secs(120);
/// let pool = ServicePool::builder()
///     .tls(tls)
///     .seeds(["10.0.0.7:9443"])
///     .outlier_detection(detection) // or .no_outlier_detection()
///     .build()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct OutlierDetection {
    /// Failures in a row after which a provider is ejected (5); 0 turns this rule off.
    pub consecutive_failures: u32,
    /// How often success rates are compared (10 s); as often, a provider that stayed in is forgiven one ejection.
    pub interval: Duration,
    /// The fewest providers whose success rates are compared (5).
    pub success_rate_providers: usize,
    /// The fewest calls of an interval from which a success rate is taken (100).
    pub success_rate_calls: u64,
    /// A provider is ejected whose success rate is lower than the mean by more than so many standard deviations (1.9).
    pub success_rate_deviations: f64,
    /// The most connected providers out at once, in percent (50). One of two or more may be out in any case, all never.
    pub most_ejected: u8,
    /// How long the first ejection lasts (1 s); each one in a row lasts twice as long.
    pub first_ejection: Duration,
    /// The longest ejection (30 s).
    pub longest_ejection: Duration,
    /// How long an ejected provider may take to answer our question before it returns (1 s).
    pub probe_limit: Duration,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            interval: Duration::from_secs(10),
            success_rate_providers: 5,
            success_rate_calls: 100,
            success_rate_deviations: 1.9,
            most_ejected: 50,
            first_ejection: Duration::from_secs(1),
            longest_ejection: Duration::from_secs(30),
            probe_limit: Duration::from_secs(1),
        }
    }
}

/// What the providers of a pool share about outliers.
#[derive(Debug)]
pub(crate) struct Outliers {
    /// `None` is off.
    pub(crate) detection: Option<OutlierDetection>,
    /// Some provider may have to go.
    pub(crate) news: Notify,
    /// Some record may be that of a suspect. While none is, which is nearly always, a pick need not look at any.
    suspicion: AtomicBool,
}

impl Outliers {
    pub(crate) fn new(detection: Option<OutlierDetection>) -> Self {
        Self { detection, news: Notify::new(), suspicion: AtomicBool::new(false) }
    }

    /// Some record has just become that of a suspect: it is to be judged.
    pub(crate) fn accuse(&self) {
        self.suspicion.store(true, Ordering::SeqCst);
        self.news.notify_one();
    }

    /// All records are about to be judged.
    pub(crate) fn judge(&self) {
        self.suspicion.store(false, Ordering::SeqCst);
    }

    pub(crate) fn suspicion(&self) -> bool {
        self.suspicion.load(Ordering::SeqCst)
    }
}
